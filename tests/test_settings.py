"""The settings: read from the environment in one place, refused all together, and documented, each of them."""

from pathlib import Path

import msgspec
import pytest

from ledger.settings import PREFIX, BadSettings, Settings, settings_from
from tests import settings_page

SECRET = "s" * 32
PRODUCTION = {
    "LOYALTY_ENVIRONMENT": "production",
    "LOYALTY_DATABASE_URL": "postgresql://db.example/loyalty",
    "LOYALTY_REDIS_URL": "redis://queue.example",
    "LOYALTY_PUBLIC_BASE_URL": "https://loyalty.example",
    "LOYALTY_PEPPER": SECRET,
    "LOYALTY_MASTER_KEY": SECRET,
    "LOYALTY_TOKEN_SECRET": SECRET,
}
NUMBERS = [field.name for field in msgspec.structs.fields(Settings) if isinstance(field.default, int)]


def refused(environ: dict[str, str]) -> list[str]:
    """The lines of the refusal."""
    with pytest.raises(BadSettings) as error:
        settings_from(environ)
    return str(error.value).splitlines()


def names(lines: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in lines]


# ---- the page -----------------------------------------------------------------------------------------------------


def test_the_page_of_settings_is_as_the_settings_are() -> None:
    assert settings_page.PAGE.read_text(encoding="utf-8") == settings_page.page(), "run `python -m tests.settings_page`"


@pytest.mark.parametrize("field", msgspec.structs.fields(Settings), ids=lambda field: field.name)
def test_each_setting_is_documented_with_its_default(field: msgspec.structs.FieldInfo) -> None:
    (row,) = (line for line in settings_page.page().splitlines() if f"`{PREFIX}{field.name.upper()}`" in line)
    _, _, default, words, _ = (column.strip() for column in row.split("|"))
    assert default == ("" if field.default is None else f"`{field.default}`")
    assert len(words.split()) > 3


# ---- reading ------------------------------------------------------------------------------------------------------


def test_nothing_set_gives_the_defaults() -> None:
    assert settings_from({}) == Settings()
    assert settings_from({"PATH": "/bin", "loyalty_port": "1", "XLOYALTY_PORT": "1"}) == Settings()


def test_the_products_defaults_hold() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert (settings.default_cooldown_minutes, settings.max_daily_stamps) == (15, 5)
    assert (settings.pin_max_failed_attempts, settings.pin_lockout_minutes) == (5, 30)
    assert settings.default_points_per_euro == 10


def test_what_is_set_counts() -> None:
    read = settings_from({"LOYALTY_PORT": "9000", "LOYALTY_DATA_DIR": "/var/lib/x", "LOYALTY_PEPPER": SECRET})
    assert read == Settings(port=9000, data_dir=Path("/var/lib/x"), pepper=SECRET)


@pytest.mark.parametrize("field", msgspec.structs.fields(Settings), ids=lambda field: field.name)
def test_empty_counts_as_unset(field: msgspec.structs.FieldInfo) -> None:
    assert settings_from({f"{PREFIX}{field.name.upper()}": ""}) == Settings()


# ---- refusing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["-1", "many", "1.5", "99999999999", "0x10", "1 000"])
def test_a_number_that_is_none_or_out_of_bounds_is_refused_by_name_and_not_shown(value: str) -> None:
    bounded = [name for name in NUMBERS if name not in ("body_bytes_max", "body_seconds_max") or value != "99999999999"]
    environ = {f"{PREFIX}{name.upper()}": value for name in bounded}
    lines = refused(environ)
    assert names(lines) == sorted(environ)
    assert [line for line in lines if value in line.partition(":")[2].split()] == []


@pytest.mark.parametrize("name", ["PEPPER", "MASTER_KEY", "TOKEN_SECRET"])
def test_a_short_secret_is_refused_by_name_and_not_shown(name: str) -> None:
    (line,) = refused({f"LOYALTY_{name}": "hunter2" * 4})
    assert names([line]) == [f"LOYALTY_{name}"]
    assert "hunter2" not in line
    assert getattr(settings_from({f"LOYALTY_{name}": SECRET}), name.lower()) == SECRET


def test_everything_bad_is_named_together_misspelt_names_included() -> None:
    lines = refused({"LOYALTY_PORT": "x", "LOYALTY_PROT": "8000", "LOYALTY_WORKERS": "0", "LOYALTY_HOST": "::1"})
    assert names(lines) == ["LOYALTY_PORT", "LOYALTY_PROT", "LOYALTY_WORKERS"]
    assert lines[1] == "LOYALTY_PROT: there is no such setting"


def test_production_takes_what_is_complete() -> None:
    assert settings_from(PRODUCTION).environment == "production"


def test_production_names_everything_that_is_missing() -> None:
    lines = refused({"LOYALTY_ENVIRONMENT": "production", "LOYALTY_BCRYPT_ROUNDS": "9"})
    assert names(lines) == sorted({"LOYALTY_BCRYPT_ROUNDS", *PRODUCTION} - {"LOYALTY_ENVIRONMENT"})


@pytest.mark.parametrize("missing", sorted(set(PRODUCTION) - {"LOYALTY_ENVIRONMENT"}))
@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_production_is_refused_for_want_of_one(missing: str, value: str | None) -> None:
    environ = {name: text for name, text in PRODUCTION.items() if name != missing}
    assert refused(environ if value is None else environ | {missing: value}) == [
        f"{missing}: must be set in production"
    ]


def test_development_takes_what_production_does_not() -> None:
    assert settings_from({"LOYALTY_BCRYPT_ROUNDS": "4"}).bcrypt_rounds == 4
