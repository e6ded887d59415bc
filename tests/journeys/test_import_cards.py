"""`loyalty import cards` with small files: interrupted, repeated, twice at once, badly written, checked beforehand."""

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from ledger.settings import Settings
from loyalty.cards import COLUMNS
from loyalty.cli import with_parts
from loyalty.demo import demo
from loyalty.installation import running, with_secrets
from tests.installed import STORE, Installation, Up, installed
from tests.journeys.existing_cards import SOURCE, card_number, check, made_up_file, position

pytestmark = pytest.mark.slow

CARDS = 1_200
BAD_LINES = 1_000
GOOD_EVERY = 5
Demo = dict[str, Any]
Lines = list[dict[str, Any]]

FIRST_TAKEN = 50_000
BAD: dict[str, tuple[str, str, str]] = {
    "no customer": (',{number},,,,,,5,,,,""', "customer_id", "missing_field"),
    "a blank customer": ("  ,{number},,,,,,5,,,,", "customer_id", "missing_field"),
    "a long customer": ("{long},,,,,,,5,,,,", "customer_id", "invalid_field"),
    "a short number": ("{me},12345678901,,,,,,5,,,,", "card_number", "invalid_field"),
    "letters in a number": ("{me},12345678901X,,,,,,5,,,,", "card_number", "invalid_field"),
    "a mistyped number": ("{me},123456789012,,,,,,5,,,,", "card_number", "check_digit"),
    "a number taken": ("{me},{taken},,,,,,5,,,,", "card_number", "card_number_taken"),
    "a QR code taken": ("{me},,{taken_qr},,,,,5,,,,", "qr_code", "qr_code_taken"),
    "a short QR code": ("{me},,123456789012345,,,,,5,,,,", "qr_code", "invalid_field"),
    "a long QR code": ("{me},,{long}{long},,,,,5,,,,", "qr_code", "invalid_field"),
    "a long name": ("{me},,,{long}{long},,,,5,,,,", "name", "invalid_field"),
    "no e-mail address": ("{me},,,,nobody,,,5,,,,", "email", "invalid_field"),
    "no telephone number": ("{me},,,,,call me,,5,,,,", "phone", "invalid_field"),
    "no locale": ("{me},,,,,,french,5,,,,", "locale", "invalid_field"),
    "points below zero": ("{me},,,,,,,-1,,,,", "points", "invalid_field"),
    "half a point": ("{me},,,,,,,1.5,,,,", "points", "invalid_field"),
    "too many points": ("{me},,,,,,,1000000001,,,,", "points", "invalid_field"),
    "too many stamps": ("{me},,,,,,,,1001,,,", "stamps", "invalid_field"),
    "no such day": ("{me},,,,,,,5,,2025-02-30,,", "enrolled_at", "invalid_field"),
    "a time without a zone": ("{me},,,,,,,5,,,2025-01-01T10:00:00,", "last_activity_at", "invalid_field"),
    "before all shops": ("{me},,,,,,,5,,0026-01-01,,", "enrolled_at", "invalid_field"),
    "a day to come": ("{me},,,,,,,5,,2999-01-01,,", "enrolled_at", "in_the_future"),
    "an activity to come": ("{me},,,,,,,5,,,2999-01-01,", "last_activity_at", "in_the_future"),
    "an activity too early": ("{me},,,,,,,5,,2025-01-02,2025-01-01,", "last_activity_at", "before_enrolment"),
    "points that ended": ("{me},,,,,,,5,,,,2025-01-01", "points_expire_at", "expired_already"),
    "a customer twice": ("C-1,,,,,,,5,,,,", "customer_id", "repeated"),
    "a number twice": (f"{{me}},{card_number(1)},,,,,,5,,,,", "card_number", "repeated"),
    "a QR code twice": (f"{{me}},,{1:032x},,,,,5,,,,", "qr_code", "repeated"),
    "a column less": ("{me},,,,,,,5,,,", "", "wrong_columns"),
    "a column more": ("{me},,,,,,,5,,,,,", "", "wrong_columns"),
    "a quotation mark": ('{me},,,"Ada,,,,5,,,,', "", "invalid_csv"),
    "another encoding": ("{me},,,M\udcfcller,,,,5,,,,", "", "not_utf8"),
    "a NUL byte": ("{me},,,\0,,,,5,,,,", "", "nul_byte"),
    "an endless line": (f"{{me}},,,{'x' * 40_000},,,,5,,,,", "", "line_too_long"),
}


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Installation, Up]]:
    with installed() as place, place.up("--demo") as up:
        yield place, up


@pytest.fixture
def store(shop: tuple[Installation, Up]) -> Demo:
    """The store of a merchant of its own."""
    place, _ = shop
    path = place.folder / f"{uuid4()}.json"
    settings = running(with_secrets(Settings(data_dir=place.data), place.data))
    return with_parts(settings, lambda parts: demo(parts, path))


def written(place: Installation, *lines: dict[str, Any]) -> Path:
    path = place.folder / "customers.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def run(
    place: Installation, path: Path, store: Demo, *options: str | Path, source: str = SOURCE
) -> tuple[int, str, list[str]]:
    """The exit code, the summary and what was said of bad lines."""
    ran = place.run("import", "cards", path, "--store", store["store_code"], "--source", source, *options)
    return ran.returncode, ran.stdout.splitlines()[-1] if ran.stdout else "", ran.stderr.splitlines()


def summary(imported: int, points: int = 0, stamps: int = 0, *, onto: int = 0, known: int = 0, bad: int = 0) -> str:
    return (
        f"{imported} cards imported ({onto} of them onto cards that were here already)"
        f" with {points} points and {stamps} stamps; {known} imported before; {bad} bad lines."
    )


def card_of(up: Up, store: Demo, **name: str) -> dict[str, Any]:
    found = up.ask("POST", f"{STORE}/cards/lookup", name, token=store["terminal_key"])
    assert found.status_code == 200, found.text
    return dict(found.json())


def change_program(up: Up, store: Demo, **changes: Any) -> None:
    token = up.sign_in(store["manager_email"], store["manager_password"]).json()["access_token"]
    changed = up.ask("PATCH", f"{STORE}/program", changes, token=token, key=str(uuid4()))
    assert changed.status_code == 200, changed.text


# ---- good files ---------------------------------------------------------------------------------------------------


def test_a_killed_import_is_finished_by_the_next_run_and_another_changes_nothing(
    shop: tuple[Installation, Up], store: Demo, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(*shop, store, CARDS), capsys.readouterr().out


def test_a_customer_comes_with_all_that_the_other_system_knew(shop: tuple[Installation, Up], store: Demo) -> None:
    place, up = shop
    known = {"name": "Ada", "email": "ada@home.example", "phone": "+352 1", "locale": "fr-LU"}
    names = {"customer_id": "C-1", "card_number": card_number(5), "qr_code": "their old QR token"}
    times = {"enrolled_at": "2020-06-01", "last_activity_at": "2025-05-04T12:30:00+02:00"}
    path = written(place, names | known | times | {"points": 120, "stamps": 3})
    assert run(place, path, store) == (0, summary(1, 120, 3), [])
    card = card_of(up, store, qr_code="their old QR token")
    assert (card["customer_id"], card["card_number"]) == ("C-1", card_number(5))
    assert (card["points_balance"], card["stamp_count"]) == (120, 3)
    # A date is its first instant at the store, which is in Luxembourg.
    assert (card["enrolled_at"], card["last_activity_at"]) == ("2020-05-31T22:00:00Z", "2025-05-04T10:30:00Z")
    (event,) = [each for each in place.events("balance_imported") if str(each.stream) == card["id"]]
    assert event.recorded_at > event.occurred_at == datetime(2025, 5, 4, 10, 30, tzinfo=UTC)
    assert place.data_of("balance_imported")[-1]["source"] == SOURCE
    history = up.ask("GET", f"{STORE}/cards/{card['id']}/transactions", token=store["terminal_key"]).json()["items"]
    assert [(each["kind"], each["points"], each["stamps"]) for each in history] == [
        ("imported", 120, 3),
        ("enrolled", 0, 0),
    ]


def test_who_has_a_card_here_keeps_it_under_its_old_names_too(shop: tuple[Installation, Up], store: Demo) -> None:
    place, up = shop
    path = written(place, {"customer_id": "demo-customer", "card_number": card_number(6), "points": 5})
    said = run(place, path, store, "--dry-run")
    assert said == (0, f"Nothing was written; this would be: {summary(1, 5, onto=1)}", [])
    assert run(place, path, store) == (0, summary(1, 5, onto=1), [])
    card = card_of(up, store, card_number=card_number(6))
    assert (card["card_number"], card["points_balance"]) == (store["card_number"], 5)
    assert card["last_activity_at"] > card["enrolled_at"]


def test_each_source_brings_a_customer_once(shop: tuple[Installation, Up], store: Demo) -> None:
    place, up = shop
    path = written(place, {"customer_id": "C-1", "card_number": card_number(7), "points": 5})
    assert run(place, path, store, source="Paper cards")[1] == summary(1, 5)
    copy = path.rename(place.folder / "customers (1).jsonl")
    assert run(place, copy, store, source="Paper cards") == (0, summary(0, known=1), [])
    assert run(place, copy, store, source="The web shop")[1] == summary(1, 5, onto=1)
    assert card_of(up, store, card_number=card_number(7))["points_balance"] == 10


@pytest.mark.parametrize("change", [{"points": 6}, {"name": "Ada"}, {"last_activity_at": "2025-02-02"}], ids=str)
def test_a_customer_with_other_values_is_no_repetition(
    shop: tuple[Installation, Up], store: Demo, change: dict[str, Any]
) -> None:
    place, _ = shop
    line = {"customer_id": "C-1", "points": 5, "last_activity_at": "2025-01-01"}
    run(place, written(place, line), store)
    before = position(place)
    path = written(place, {"customer_id": "C-2"}, line | change)
    reason = "This customer came from this source before, with other values."
    for options, beginning in ((["--dry-run"], "Nothing was written; this would be: "), ([], "")):
        assert run(place, path, store, *options) == (
            1,
            f"{beginning}{summary(1, bad=1)}",
            [f"line 2: {reason} (idempotency_key_reused)"],
        )
        assert position(place) == before + (0 if options else 3)


def test_two_imports_of_one_file_at_once_bring_each_card_once(shop: tuple[Installation, Up], store: Demo) -> None:
    place, _ = shop
    path = made_up_file(place.folder / "twice.csv", 0, CARDS)
    before = len(place.events("balance_imported"))
    arguments = ("import", "cards", path, "--store", store["store_code"], "--source", SOURCE)
    with place.start(*arguments) as one, place.start(*arguments) as two:
        codes = one.wait(100), two.wait(100)
    said = [place.output(process.pid).read_text() for process in (one, two)]
    assert codes == (0, 0), said
    assert sum(int(words.splitlines()[-1].split()[0]) for words in said) == CARDS, said
    assert len(place.events("balance_imported")) == before + CARDS


# ---- bad lines ----------------------------------------------------------------------------------------------------


def bad_file(path: Path) -> tuple[int, list[tuple[str, str, str]]]:
    """Writes bad lines of all kinds among good ones; how many good ones, and what should be said of the bad ones."""
    kinds, expected = list(BAD.values()), []
    text, good = [",".join(COLUMNS), f"C-1,{card_number(1)},{1:032x},,,,,7,,,,"], 1
    for number in range(BAD_LINES):
        if number % GOOD_EVERY == 0:
            text.append(f"good-{number},,,,,,,7,,,,")
            good += 1
        template, name, code = kinds[number % len(kinds)]
        text.append(
            template.format(
                me=f"bad-{number}",
                number=card_number(1_000 + number),
                taken=card_number(FIRST_TAKEN + number),
                taken_qr=f"{FIRST_TAKEN + number:032x}",
                long="x" * 65,
            )
        )
        expected.append((str(len(text)), name, code))
    path.write_text("\n".join(text), encoding="utf-8", errors="surrogateescape")
    return good, expected


def test_every_bad_line_is_told_and_every_good_one_imported(shop: tuple[Installation, Up], store: Demo) -> None:
    place, up = shop
    change_program(up, store, expiry_policy="earned", points_expiration_days=365)
    assert run(place, made_up_file(place.folder / "taken.csv", FIRST_TAKEN, BAD_LINES), store)[0] == 0
    path, report = place.folder / "bad.csv", place.folder / "report.csv"
    good, expected = bad_file(path)
    assert len({line for line, _, _ in expected}) == BAD_LINES
    before = position(place)
    code, said, errors = run(place, path, store, "--report", report, "--dry-run")
    wanted = summary(good, 7 * good, bad=BAD_LINES)
    assert (code, said, errors) == (1, f"Nothing was written; this would be: {wanted}", [])
    assert position(place) == before
    assert [tuple(row[:3]) for row in rows_of(report)] == [("line", "field", "code"), *expected]
    foretold = report.read_text()
    assert run(place, path, store, "--report", report) == (1, wanted, [])
    assert report.read_text() == foretold
    assert position(place) == before + 3 * good
    code, said, errors = run(place, path, store)
    assert (code, said) == (1, summary(0, known=good, bad=BAD_LINES))
    assert [int(error.removeprefix("line ").partition(":")[0]) for error in errors] == [
        int(line) for line, _, _ in expected
    ]


def rows_of(report: Path) -> list[list[str]]:
    with report.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_what_the_program_does_not_collect_is_told_beforehand(shop: tuple[Installation, Up], store: Demo) -> None:
    place, up = shop
    change_program(up, store, type="stamps")
    path = written(place, {"customer_id": "C-1", "points": 1}, {"customer_id": "C-2", "stamps": 1})
    errors = ["line 1: points: The program collects stamps only. (points_not_offered)"]
    dry = run(place, path, store, "--dry-run")
    assert (dry[0], dry[2]) == (1, errors)
    assert run(place, path, store) == (1, summary(1, 0, 1, bad=1), errors)


def test_a_date_is_bad_where_points_end_by_none(shop: tuple[Installation, Up], store: Demo) -> None:
    place, _ = shop
    path = written(place, {"customer_id": "C-1", "points": 5, "points_expire_at": "2999-01-01"})
    code, _, errors = run(place, path, store)
    assert (code, len(errors)) == (1, 1)
    assert errors[0].startswith("line 1: points_expire_at: ")
    assert errors[0].endswith("(expiry_date_not_used)")


def test_a_bad_line_leaves_its_other_names_to_those_after_it(shop: tuple[Installation, Up], store: Demo) -> None:
    place, up = shop
    path = place.folder / "repeated.csv"
    one, two = card_number(8), card_number(9)
    path.write_text(f"customer_id,card_number\nc1,{one}\nc2,{one}\nc2,{two}\nc2,\n")
    assert run(place, path, store) == (
        1,
        summary(2, bad=2),
        [
            "line 3: card_number: Line 2 has the same. (repeated)",
            "line 5: customer_id: Line 4 has the same. (repeated)",
        ],
    )
    assert card_of(up, store, card_number=two)["customer_id"] == "c2"


# ---- files that are no such files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", b"", "Nothing was imported: the file is empty, without even a line of column names."),
        ("none.csv", b"customer_id,shoe_size,\xff\n1,2,3\n", "The first line must name the columns."),
        (
            "none.csv",
            b"customer_id,shoe_size,hat\n1,2,3\n",
            "It has 2 unknown of 3; known are customer_id, card_number, ",
        ),
        ("none.csv", b"customer_id;points;points\n1;2;3\n", "The first line names a column twice."),
        ("none.csv", b"points\n1\n", "There is no column customer_id."),
        ("none.txt", b"points\n1\n", "none.txt ends in none of .csv, .jsonl, .ndjson: say which it is with --format."),
    ],
)
def test_what_is_no_such_file_is_said_plainly(
    shop: tuple[Installation, Up], name: str, content: bytes, said: str
) -> None:
    place, up = shop
    path = place.folder / name
    path.write_bytes(content)
    before = position(place)
    code, _, errors = run(place, path, up.demo)
    assert code in (1, 2)
    assert said in " ".join(errors)
    assert position(place) == before


@pytest.mark.parametrize(
    ("name", "content"), [("none.csv", "customer_id,points\n"), ("none.csv", "customer_id"), ("none.jsonl", "")]
)
def test_a_file_of_nobody_is_no_failure(shop: tuple[Installation, Up], name: str, content: str) -> None:
    place, up = shop
    path = place.folder / name
    path.write_text(content)
    assert run(place, path, up.demo) == (0, summary(0), [])


def test_a_report_does_not_replace_the_file(shop: tuple[Installation, Up], store: Demo) -> None:
    place, _ = shop
    path = written(place, {"customer_id": "C-1"})
    content = path.read_text()
    code, _, errors = run(place, path, store, "--report", path)
    assert (code, errors[-1]) == (2, "Error: The report would replace the file that is to be imported.")
    assert path.read_text() == content


def test_without_a_line_of_names_nobodys_data_are_shown(shop: tuple[Installation, Up]) -> None:
    place, up = shop
    path = place.folder / "nameless.csv"
    path.write_text("C-77,Ada Lovelace,ada@home.example\n")
    code, said, errors = run(place, path, up.demo)
    assert code == 1
    assert "The first line must name the columns. It has 3 unknown of 3;" in errors[0]
    assert not any(word in " ".join([said, *errors]) for word in ("C-77", "Ada", "ada"))


@pytest.mark.parametrize("options", [[], ["--source", ""], ["--source", "x" * 101]], ids=["none", "empty", "long"])
def test_the_source_has_to_be_named(shop: tuple[Installation, Up], store: Demo, options: list[str]) -> None:
    place, _ = shop
    path = written(place, {"customer_id": "C-1"})
    before = position(place)
    ran = place.run("import", "cards", path, "--store", store["store_code"], *options)
    assert ran.returncode == 2
    assert "--source" in ran.stderr
    assert position(place) == before


def test_the_format_can_be_said(shop: tuple[Installation, Up], store: Demo) -> None:
    place, _ = shop
    path = place.folder / "export.txt"
    path.write_text('{"customer_id": "C-1"}')
    assert run(place, path, store, "--format", "jsonl") == (0, summary(1), [])
    assert run(place, path, {"store_code": "NOWHERE"}, "--format", "csv")[2] == ["Error: There is no store NOWHERE."]
