"""`loyalty up` through what happens to it on somebody's machine: started, used, stopped, killed, started again."""

import base64
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from api.parts import Parts
from ledger.errors import Unavailable
from ledger.settings import Settings
from loyalty.cli import main, with_parts
from loyalty.installation import with_secrets
from tests.installed import ROOT, STORE, Installation, Up, installed, wait_until

pytestmark = pytest.mark.slow

NOBODY = 65534
AS_ROOT = os.geteuid() == 0
LETTERS = "a1B2" * 8
MERCHANT = "--merchant=00000000-0000-0000-0000-000000000001"
NAMED = {"base_url", "merchant_id", "store_id", "store_code", "terminal_key", "staff_id", "staff_pin"}
NAMED |= {f"{role}_{what}" for role in ("manager", "admin", "auditor") for what in ("email", "password")}
NAMED |= {"customer_token", "customer_link"}
RENEWED = {"base_url", "customer_token", "customer_link"}
CARD = "/api/v1/storefront/loyalty/card"


@pytest.fixture
def place() -> Iterator[Installation]:
    with installed() as installation:
        yield installation


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Installation, Up]]:
    """One `loyalty up --demo` for all that does it no harm."""
    with installed() as installation, installation.up("--demo") as up:
        yield installation, up


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def assert_the_demo_works(up: Up) -> None:
    """Every credential of demo.json does what it is for."""
    demo = up.demo
    before = up.ask("GET", CARD, token=demo["customer_token"]).json()["points_balance"]
    earned = up.earn(2_500, staff_id=demo["staff_id"])
    assert (earned.status_code, earned.json()["points_earned"]) == (200, 250), earned.text
    for role in ("manager", "admin", "auditor"):
        signed_in = up.sign_in(demo[f"{role}_email"], demo[f"{role}_password"])
        assert (signed_in.status_code, signed_in.json()["token_type"]) == (200, "Bearer")
        assert up.sign_in(demo[f"{role}_email"], "another password").status_code == 401
    pins = up.ask("GET", f"{STORE}/pins", token=up.manager()).json()["items"]
    assert [pin["id"] for pin in pins] == [demo["staff_id"]]
    mine = up.ask("GET", CARD, token=demo["customer_token"]).json()
    assert (mine["customer_id"], mine["points_balance"]) == ("demo-customer", before + 250)
    assert demo["customer_link"].startswith(up.base_url + "/")
    assert up.ask("GET", demo["customer_link"].removeprefix(up.base_url), token="").json() == mine


def good_for_seconds(token: str) -> int:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return int(claims["exp"] - claims["iat"])


# ---- the first start ----------------------------------------------------------------------------------------------


def test_demo_credentials_are_written_printed_and_good(shared: tuple[Installation, Up]) -> None:
    place, up = shared
    demo = up.demo
    assert set(demo) >= NAMED
    assert demo["base_url"] == up.base_url
    assert not up.base_url.endswith(":0")
    for name, value in demo.items():
        assert f"  {name:<18} {value}\n" in up.printed
    assert str(place.data / "demo.json") in up.printed
    assert_the_demo_works(up)


def test_a_demo_customers_token_outlasts_a_day_of_trying_things(shared: tuple[Installation, Up]) -> None:
    assert good_for_seconds(shared[1].demo["customer_token"]) > 24 * 60 * 60


def test_the_demo_program_has_the_products_defaults(shared: tuple[Installation, Up]) -> None:
    program = shared[1].ask("GET", f"{STORE}/program").json()
    shown = {name: program[name] for name in ("type", "stamps_target", "points_per_euro", "cooldown_minutes")}
    assert shown == {"type": "hybrid", "stamps_target": 10, "points_per_euro": 10, "cooldown_minutes": 15}
    assert program["max_daily_stamps"] == 5
    assert program["rewards"]


def test_secrets_are_for_their_owners_eyes_only(shared: tuple[Installation, Up]) -> None:
    data = shared[0].data
    assert {name: mode(data / name) for name in ("secrets.json", "demo.json")} == {
        "secrets.json": 0o600,
        "demo.json": 0o600,
    }
    assert mode(data) & stat.S_IRWXO == 0
    assert sorted(path.name for path in data.glob("*.json")) == ["demo.json", "secrets.json"]
    assert list(data.glob("*.[0-9]*")) == []


def test_whoever_starts_it_is_whose_data_it_is() -> None:
    with installed(NOBODY if AS_ROOT else None) as place, place.up("--demo") as up:
        assert_the_demo_works(up)
        owner = NOBODY if AS_ROOT else os.geteuid()
        assert {path.stat().st_uid for path in place.data.rglob("*")} == {owner}
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in place.processes()} == {owner}
        assert up.signal_all(signal.SIGINT) == 0
        assert place.processes() == []


# ---- the end ------------------------------------------------------------------------------------------------------


def assert_it_stops(place: Installation, up: Up, number: signal.Signals) -> None:
    asked = time.monotonic()
    assert up.signal_all(number) == 0
    assert time.monotonic() - asked < 8
    assert place.processes() == []
    assert "Traceback" not in up.printed


def test_ctrl_c_and_sigterm_stop_everything_and_the_next_start_goes_on(place: Installation) -> None:
    with place.up("--demo") as up:
        demo, first = up.demo, up.earn(2_500, key="before the end")
        assert_it_stops(place, up, signal.SIGINT)
    with place.up("--demo") as up:
        assert {name: value for name, value in up.demo.items() if name not in RENEWED} == {
            name: value for name, value in demo.items() if name not in RENEWED
        }
        again = up.earn(2_500, key="before the end")
        assert (again.content, again.headers["Idempotency-Replayed"]) == (first.content, "true")
        assert up.ask("GET", CARD, token=demo["customer_token"]).json()["points_balance"] == 250
        assert_the_demo_works(up)
        assert_it_stops(place, up, signal.SIGTERM)


def test_ctrl_c_during_the_start_leaves_nothing_behind(place: Installation) -> None:
    with place.up("--demo", wait=False) as up:
        wait_until(lambda: (place.data / "postgres").exists() or up.process.poll(), "the database was there")
        assert up.signal_all(signal.SIGINT) == 1
        assert place.processes() == []
        assert "Traceback" not in up.printed


def test_when_it_is_killed_the_servers_stay_and_the_next_start_adopts_them(place: Installation) -> None:
    with place.up("--demo", wait=False) as up:
        wait_until(lambda: is_half_made(place) or up.process.poll(), "the demo was half made")
        up.kill()
        assert not (place.data / "demo.json").exists()
        servers = place.processes()
        assert servers
    with place.up("--demo") as up:
        assert set(servers) & set(place.processes())
        assert_the_demo_works(up)
        demo, first = up.demo, up.earn(2_500, key="before the kill")
        up.kill()
        wait_until(lambda: not place.api(), "the API was gone", 8)
    assert place.run("migrate").stdout == "Nothing to do.\n"
    with place.up("--demo") as up:
        assert up.demo["terminal_key"] == demo["terminal_key"]
        assert up.earn(2_500, key="before the kill").content == first.content
        assert set(servers) & set(place.processes())
        assert up.signal_all(signal.SIGINT) == 0
    assert place.processes() == []


def is_half_made(place: Installation) -> bool:
    try:
        return bool(place.rows("SELECT FROM events WHERE topic LIKE 'store_added.%%'"))
    except Exception:  # There is no such server, database or table yet.
        return False


# ---- beside it ----------------------------------------------------------------------------------------------------


def test_a_second_one_on_the_same_data_is_refused(shared: tuple[Installation, Up]) -> None:
    place, up = shared
    second = place.run("up", "--demo")
    assert second.returncode == 1
    assert second.stderr == (
        f"Error: The data folder {place.data} is in use by another loyalty command (process {up.process.pid}). "
        "Stop that one, or set LOYALTY_DATA_DIR to another folder.\n"
    )
    assert up.is_ready()


def test_an_added_user_signs_in(shared: tuple[Installation, Up]) -> None:
    place, up = shared
    add = ("user", "add", "--email", "Ada@example.com", "--role")
    merchant = ("--merchant", up.demo["merchant_id"])
    added = place.run(*add, "manager", *merchant, stdin="a long password\na long password\n")
    assert (added.returncode, added.stdout.splitlines()[-1]) == (0, "Ada@example.com is manager now.")
    assert up.sign_in("ada@example.com", "a long password").status_code == 200
    assert up.sign_in("ada@example.com", "another password").status_code == 401
    again = place.run(*add, "manager", *merchant, "--password", "a long password")
    assert (again.returncode, again.stderr) == (1, "Error: Refused: email_taken\n")


@pytest.mark.parametrize(
    ("role", "merchant", "password"),
    [("manager", [], "a long password"), ("admin", [MERCHANT], "a long password"), ("manager", [MERCHANT], "short")],
)
def test_an_account_that_makes_no_sense_is_refused(role: str, merchant: list[str], password: str) -> None:
    arguments = ["user", "add", "--email", "a@b.c", "--role", role, "--password", password, *merchant]
    refused = CliRunner().invoke(main, arguments)
    assert (refused.exit_code, password in refused.output) == (2, False)


def test_demo_credentials_are_given_to_a_shell(shared: tuple[Installation, Up]) -> None:
    place, up = shared
    shell = 'set -e; printed=$("$1" -m loyalty demo-credentials); eval "$printed"; echo "$TERMINAL_KEY $STORE_CODE"'
    command = ["sh", "-c", shell, "sh", sys.executable]
    ran = subprocess.run(
        command, cwd=ROOT, env=place.environment({}), capture_output=True, text=True, timeout=30, check=True
    )
    assert ran.stdout == f"{up.demo['terminal_key']} {up.demo['store_code']}\n"


def test_one_more_api_serves_beside_it(shared: tuple[Installation, Up]) -> None:
    place, up = shared
    with place.up(command="serve") as other:
        assert other.base_url != up.base_url
        position = up.earn(2_500).headers["Loyalty-Position"]
        balances = {server.ask("GET", CARD, token=up.demo["customer_token"]).text for server in (up, other)}
        assert len(balances) == 1
        assert int(other.earn(2_500).headers["Loyalty-Position"]) == int(position) + 1
        other.process.terminate()
        other.process.wait(10)
    assert up.is_ready()


def test_a_command_without_servers_says_what_to_start(place: Installation) -> None:
    for command in ("migrate", "serve"):
        ran = CliRunner(env=place.environment({})).invoke(main, [command])
        assert (ran.exit_code, ran.output) == (
            1,
            f"Error: No servers run on {place.data}. Start `loyalty up`, or set LOYALTY_DATABASE_URL.\n",
        )
    ran = CliRunner(env=place.environment({})).invoke(main, ["demo-credentials"])
    assert (ran.exit_code, ran.output) == (
        1,
        f"Error: There is no {place.data}/demo.json. Run `loyalty up --demo` first.\n",
    )


def test_a_database_that_does_not_answer_is_said_plainly(place: Installation) -> None:
    async def ask(_: Parts) -> None:
        raise Unavailable("nobody answers")

    nowhere = f"postgresql://nobody@/nothing?host={place.folder}"
    settings = with_secrets(Settings(data_dir=place.data, database_url=nowhere), place.data)
    with pytest.raises(click.ClickException, match=r"^The database cannot be reached: "):
        with_parts(settings, ask)


# ---- several processes --------------------------------------------------------------------------------------------


def test_two_workers_share_the_port_and_a_killed_one_comes_back(place: Installation) -> None:
    with place.up("--demo", LOYALTY_WORKERS="2") as up:
        victim, survivor = place.api()
        os.kill(victim, signal.SIGKILL)

        def is_back() -> bool:
            # The other one answers all the while.
            assert up.earn(100).status_code == 200
            return len(set(place.api()) - {victim}) == 2

        wait_until(is_back, "it was back", 8)
        assert survivor in place.api()
        assert "ended (SIGKILL), starting it again" in up.printed
        assert_the_demo_works(up)
        assert up.signal_all(signal.SIGINT) == 0
    assert place.processes() == []


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said_plainly(place: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = place.run("up", LOYALTY_PORT=str(port))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Error: Cannot listen on 127.0.0.1:{port}: Address already in use")
    assert refused.stderr.endswith(" Set LOYALTY_PORT to another port.\n")
    assert place.processes() == []


def test_a_data_folder_that_cannot_be_is_said_plainly(place: Installation) -> None:
    place.data.touch()
    refused = place.run("up")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Error: The data folder {place.data} cannot be used: ")
    assert "LOYALTY_DATA_DIR" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_production_says_everything_that_is_missing_at_once(place: Installation) -> None:
    environment = place.environment({"LOYALTY_ENVIRONMENT": "production", "LOYALTY_BCRYPT_ROUNDS": "4"})
    for arguments in (["up"], ["up", "--demo"], ["serve"], ["migrate"]):
        refused = CliRunner(env=environment).invoke(main, arguments)
        assert refused.exit_code == 1
        named = [line.partition(":")[0] for line in refused.output.splitlines() if line.startswith("LOYALTY_")]
        assert named == [
            *("LOYALTY_BCRYPT_ROUNDS", "LOYALTY_DATABASE_URL", "LOYALTY_MASTER_KEY", "LOYALTY_PEPPER"),
            *("LOYALTY_PUBLIC_BASE_URL", "LOYALTY_REDIS_URL", "LOYALTY_TOKEN_SECRET"),
        ]
    assert not place.data.exists()


def test_production_has_no_demo(shared: tuple[Installation, Up]) -> None:
    place, up = shared
    production = {name: f"{name} {LETTERS}" for name in ("PEPPER", "MASTER_KEY", "TOKEN_SECRET")}
    production |= {"ENVIRONMENT": "production", "DATABASE_URL": place.database_url, "REDIS_URL": "redis://nowhere"}
    production |= {"PUBLIC_BASE_URL": "https://loyalty.example"}
    refused = place.run("up", "--demo", **{f"LOYALTY_{name}": value for name, value in production.items()})
    assert (refused.returncode, refused.stderr) == (1, "Error: There is no demo in production.\n")
    assert up.is_ready()


def test_bad_and_misspelt_settings_are_named_together_and_never_shown(place: Installation) -> None:
    bad = {"LOYALTY_PORT": "80OO", "LOYALTY_WORKERS": "-7", "LOYALTY_PEPPER": "tooshort", "LOYALTY_PEPER": "misspelt"}
    refused = place.run("up", **bad)
    assert refused.returncode == 1
    first, *lines = refused.stderr.splitlines()
    assert first == "Error: These settings cannot be used:"
    assert [line.partition(":")[0] for line in lines] == sorted(bad)
    assert [value for value in bad.values() if value in refused.stderr] == []
    assert not place.data.exists()
