"""`loyalty import purchases` with a small file: interrupted anywhere, run again, run twice at once, badly written."""

import csv
import io
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import click
import pytest

from ledger.actor import OPERATOR, Caller, Role
from ledger.commands import OpenStore
from ledger.settings import Settings
from loyalty.cli import with_parts
from loyalty.demo import demo
from loyalty.installation import running, with_secrets
from loyalty.purchases import purchases_in, refuse_bad_lines
from tests.installed import STORE, Installation, Up, installed, wait_until
from tests.journeys.plain_sums import differences, lines_of

pytestmark = pytest.mark.slow

LINES = 1_300
CUSTOMERS = 150
KILLS = 3
HEADER = "customer_id,date,items,amount_cents"
ZONE = ZoneInfo("Europe/Luxembourg")
Lines = list[tuple[str, str, int, int]]
Demo = dict[str, Any]


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Installation, Up]]:
    with installed() as place, place.up("--demo") as up:
        yield place, up


@pytest.fixture
def store(shop: tuple[Installation, Up]) -> Demo:
    """The store of a merchant of its own."""
    place, _ = shop
    path = place.folder / f"{uuid4()}.json"
    return with_parts(settings_of(place), lambda parts: demo(parts, path))


def settings_of(place: Installation) -> Settings:
    return running(with_secrets(Settings(data_dir=place.data), place.data))


def made_up_lines(seed: int) -> Lines:
    """Purchases of nothing, the same customer twice on a day, and lines that are equal, all in one file."""
    chance = random.Random(seed)  # noqa: S311 the same file each time
    day = datetime(1997, 1, 1, tzinfo=UTC)
    lines: Lines = []
    for _ in range(LINES // 2):
        customer, when = f"{chance.randrange(CUSTOMERS):05}", (day + timedelta(chance.randrange(540))).date()
        amount = chance.choice([0, 1, 9, 10, 99, chance.randrange(100_000)])
        line = (customer, when.isoformat(), chance.randrange(1, 9), amount)
        lines += [line, chance.choice([line, (*line[:3], chance.randrange(10_000))])]
    return sorted(lines)


def written(folder: Path, lines: Lines) -> Path:
    path = folder / "purchases.csv"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER.split(","), *lines])
    path.write_text(text.getvalue())
    return path


def run(place: Installation, path: Path, store: Demo) -> subprocess.CompletedProcess[str]:
    return place.run("import", "purchases", path, "--store", store["store_code"])


def earned(place: Installation, store: Demo) -> list[tuple[int, int]]:
    """What the log says was earned in a store, in cents and points."""
    found = zip(place.events("points_earned"), place.data_of("points_earned"), strict=True)
    return [
        (data["purchase_amount_cents"], data["points"])
        for event, data in found
        if str(event.actor.store_id) == store["store_id"]
    ]


def cards(place: Installation, store: Demo) -> int:
    return sum(event["store_id"] == store["store_id"] for event in place.data_of("card_enrolled"))


def assert_each_line_counts_once(place: Installation, store: Demo, lines: Lines) -> None:
    amounts = Counter(amount for *_, amount in lines)
    found = earned(place, store)
    assert Counter(cents for cents, _ in found) == amounts
    assert sum(points for _, points in found) == sum(amount * 10 // 100 for *_, amount in lines)
    # The demo's own customer has a card too.
    assert cards(place, store) == len({customer for customer, *_ in lines}) + 1


# ---- good files ---------------------------------------------------------------------------------------------------


def test_totals_are_right_and_a_second_run_changes_nothing(shop: tuple[Installation, Up], store: Demo) -> None:
    place, _ = shop
    lines = made_up_lines(1)
    path = written(place.folder, lines)
    first = run(place, path, store)
    customers, points = len({customer for customer, *_ in lines}), sum(amount // 10 for *_, amount in lines)
    assert first.returncode == 0, first.stderr
    *_, progress, summary = first.stdout.splitlines()
    assert summary == (f"{customers} cards, {LINES} earnings, {points} points; 0 purchases were there already.")
    assert progress.startswith("Importing purchases.csv ")
    assert f"{LINES}/{LINES}" in progress
    assert_each_line_counts_once(place, store, lines)
    before = place.rows("SELECT max(notification_id) FROM events")
    second = run(place, path, store)
    assert (second.returncode, second.stdout.splitlines()[-1]) == (
        0,
        f"0 cards, 0 earnings, 0 points; {LINES} purchases were there already.",
    )
    assert place.rows("SELECT max(notification_id) FROM events") == before


def test_statistics_cards_and_balances_of_the_past_are_the_sums_of_the_file(
    shop: tuple[Installation, Up], store: Demo
) -> None:
    place, up = shop
    lines = made_up_lines(4)
    assert run(place, written(place.folder, lines), store).returncode == 0
    assert differences(place, up, store, lines_of(lines)) == []


def test_a_purchase_happened_on_its_date_and_is_recorded_now(shop: tuple[Installation, Up], store: Demo) -> None:
    place, up = shop
    began = datetime.now(UTC)
    lines: Lines = [("somebody", "1997-03-30", 1, 1_999), ("somebody", "1997-12-31", 1, 2_500)]
    today = datetime.now(ZONE).date().isoformat()
    assert run(place, written(place.folder, [*lines, ("somebody", today, 1, 0)]), store).returncode == 0
    enrolled, first, second, third = place.events("card_enrolled")[-1:] + place.events("points_earned")[-3:]
    moments = (enrolled.occurred_at, first.occurred_at, second.occurred_at)
    assert [moment.astimezone(ZONE).date().isoformat() for moment in moments] == [
        "1997-03-30",
        "1997-03-30",
        "1997-12-31",
    ]
    assert third.occurred_at.astimezone(ZONE).date().isoformat() == today
    assert third.occurred_at <= third.recorded_at
    assert began < enrolled.recorded_at <= first.recorded_at <= second.recorded_at <= datetime.now(UTC)
    found = up.ask("GET", f"{STORE}/cards/{enrolled.stream}", token=store["terminal_key"]).json()
    assert (found["customer_id"], found["points_balance"]) == ("somebody", 199 + 250)
    history = up.ask("GET", f"{STORE}/cards/{enrolled.stream}/transactions", token=store["terminal_key"]).json()
    assert [(item["kind"], item["points"], item["store_code"]) for item in history["items"]][1:] == [
        ("points_earned", 250, store["store_code"]),
        ("points_earned", 199, store["store_code"]),
        ("enrolled", 0, store["store_code"]),
    ]


def test_a_file_is_read_however_it_was_saved(tmp_path: Path) -> None:
    twice = ("Müller, Anna", "2001-02-03", 1, 100)
    lines: Lines = [twice, twice, ("2", "2001-02-03", 1, 55)]
    path = written(tmp_path, lines)
    plain = path.read_text()
    read = [purchase[1:] for purchase in purchases_in(path, UUID(int=1))]
    assert [(customer, day.isoformat(), cents) for customer, day, cents, _ in read] == [
        (customer, day, cents) for customer, day, _, cents in lines
    ]
    assert len({key for *_, key in read}) == 3
    same = {
        "a byte order mark": b"\xef\xbb\xbf" + plain.encode(),
        "other line ends": plain.replace("\n", "\r\n").encode(),
        "quoted fields": quoted(plain).encode(),
        "blank lines": (plain + "\n\n,,,\n  \n").encode(),
        "no last line end": plain.rstrip("\n").encode(),
    }
    for how, content in same.items():
        path.write_bytes(content)
        assert refuse_bad_lines(path, date(2026, 1, 1)) == 3, how
        assert [purchase[1:] for purchase in purchases_in(path, UUID(int=1))] == read, how


def quoted(plain: str) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(csv.reader(io.StringIO(plain)))
    return text.getvalue()


def test_equal_lines_of_two_stores_are_two_purchases(shop: tuple[Installation, Up], store: Demo) -> None:
    place, _ = shop
    code = f"OTHER{store['store_code'].removeprefix('DEMO')}"
    opening = OpenStore(code=code, name="Other", time_zone="Europe/Luxembourg", currency="EUR", locale="en")
    admin = Caller(role=Role.OPERATOR, id=OPERATOR, merchant_id=UUID(store["merchant_id"]))
    with_parts(settings_of(place), lambda parts: parts.ledger.handle(opening, admin))
    path = written(place.folder, [("somebody", "2001-02-03", 1, 1_000)])
    assert "1 cards, 1 earnings, 100 points" in run(place, path, store).stdout
    assert "0 cards, 1 earnings, 100 points" in run(place, path, {"store_code": code}).stdout


# ---- interrupted, and at once -------------------------------------------------------------------------------------


def test_a_killed_import_is_finished_by_the_next_run(shop: tuple[Installation, Up], store: Demo) -> None:
    place, _ = shop
    lines = made_up_lines(2)
    path = written(place.folder, lines)
    ((before,),) = place.rows("SELECT max(notification_id) FROM events")
    chance = random.Random()  # noqa: S311 other moments each time
    # The first is killed before it can have been through; where the others are killed is left to chance.
    moments = sorted([chance.randrange(1, 600), *(chance.randrange(1, LINES) for _ in range(KILLS - 1))])
    done = []
    for moment in moments:
        with place.start("import", "purchases", path, "--store", store["store_code"]) as importer:

            def has_come_far(importer: subprocess.Popen[bytes] = importer, moment: int = moment) -> bool:
                ((now,),) = place.rows("SELECT max(notification_id) FROM events")
                return bool(now - before >= moment) or importer.poll() is not None

            wait_until(has_come_far, "it had come far enough")
            importer.send_signal(signal.SIGKILL)
        done.append(len(earned(place, store)))
    assert done[0] < LINES, (moments, done)
    last = run(place, path, store)
    assert last.returncode == 0, last.stderr
    assert f"{LINES - done[-1]} earnings" in last.stdout, (moments, done, last.stdout)
    assert_each_line_counts_once(place, store, lines)


def test_two_imports_of_one_file_at_once_take_each_line_once(shop: tuple[Installation, Up], store: Demo) -> None:
    place, _ = shop
    lines = made_up_lines(3)
    path = written(place.folder, lines)
    arguments = ("import", "purchases", path, "--store", store["store_code"])
    with place.start(*arguments) as one, place.start(*arguments) as two:
        assert (one.wait(60), two.wait(60)) == (0, 0)
    summaries = [place.output(process.pid).read_text().splitlines()[-1] for process in (one, two)]
    assert sum(int(summary.split(" cards, ")[1].split()[0]) for summary in summaries) == LINES, summaries
    assert_each_line_counts_once(place, store, lines)


# ---- bad files ----------------------------------------------------------------------------------------------------


def test_bad_lines_are_all_named_and_nothing_is_imported(shop: tuple[Installation, Up]) -> None:
    place, up = shop
    before = place.rows("SELECT max(notification_id) FROM events")
    tomorrow = (datetime.now(ZONE) + timedelta(1)).date().isoformat()
    bad = [
        *("1,1997-01-01,1", "1,1997-01-01,1,2,3", ",1997-01-01,1,100", f"{'x' * 65},1997-01-01,1,100"),
        *(" 1,1997-01-01,1,100", "1,1997-02-29,1,100", "1,19970101,1,100", "1,01.01.1997,1,100"),
        *(f"1,{tomorrow},1,100", "1,0097-01-01,1,100", "1,1997-01-01,1,", "1,1997-01-01,1,12.50"),
        *("1,1997-01-01,1,-1", "1,1997-01-01,1,100000001", f"1,1997-01-01,1,{'9' * 5_000}", "1,1997-01-01,1,\u0661"),
        '"1\n2",1997-01-01,1,100',
    ]
    path = place.folder / "bad.csv"
    path.write_text("\n".join([HEADER, "1,1997-01-01,1,100", *bad, "1,1997-01-01,1,100", ""]))
    refused = run(place, path, up.demo)
    assert refused.returncode == 1
    first, *named = refused.stderr.splitlines()
    assert first == "Error: Nothing was imported."
    # What is counted is the line where an entry ends: the last entry has two.
    assert [line.partition(":")[0] for line in named] == [
        f"line {3 + index + (index == len(bad) - 1)}" for index in range(len(bad))
    ]
    assert place.rows("SELECT max(notification_id) FROM events") == before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "The first line must be: customer_id,date,items,amount_cents"),
        (b"customer_id;date;items;amount_cents\n1;1997-01-01;1;100\n", "The first line must be"),
        (b"1,1997-01-01,1,100\n", "The first line must be"),
        (f"{HEADER}\nMüller,1997-01-01,1,100\n".encode("latin-1"), "is not text in UTF-8"),
        (f'{HEADER}\n1,1997-01-01,1,100\n"1,1997-01-01,1,100\n'.encode(), "line "),
        (f"{HEADER}\n1,1997-01-01,1,100\n\0\n".encode(), "line "),
    ],
    ids=["empty", "semicolons", "no header", "another encoding", "an open quote", "a zero byte"],
)
def test_what_is_no_such_file_is_said_plainly(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes(content)
    with pytest.raises(click.ClickException, match=f"(?s)^Nothing was imported.*{re.escape(said)}"):
        refuse_bad_lines(path, date(2026, 1, 1))


def test_a_file_of_no_purchases_is_no_failure(shop: tuple[Installation, Up]) -> None:
    place, up = shop
    ran = run(place, written(place.folder, []), up.demo)
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (
        0,
        "0 cards, 0 earnings, 0 points; 0 purchases were there already.",
    )


def test_an_unknown_store_is_said_plainly(shop: tuple[Installation, Up]) -> None:
    refused = run(shop[0], written(shop[0].folder, []), {"store_code": "NOWHERE"})
    assert (refused.returncode, refused.stderr) == (1, "Error: There is no store NOWHERE.\n")
