"""A hundred thousand customers of another system, imported for real and killed in the middle.

`python -m tests.journeys.existing_cards [CARDS]` starts `loyalty up --demo` on a folder of its own and imports two
files of made-up customers, one of a tenth of CARDS and one of CARDS. The second is checked first, killed half-way,
imported to its end, and once more, which must change nothing. It exits 1 unless the log and the API then hold exactly
what the files say, and prints how much memory each process took at most.
"""

import csv
import re
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from ledger.card_plans import luhn_digit
from loyalty.cards import COLUMNS
from tests.installed import STORE, Installation, Up, installed, wait_until

CARDS = 100_000
SOURCE = "The old system"
SECONDS_MAX = 1_800
LOOKED_UP = 50
SUMMARY = re.compile(r"(\d+) cards imported .* with (\d+) points and (\d+) stamps; (\d+) imported before; (\d+) bad")
PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


class Ran(NamedTuple):
    """What an import came to: its exit code, time, peak memory and the numbers of its summary."""

    code: int
    seconds: float
    peak_mb: float
    imported: int
    points: int
    stamps: int
    known: int
    bad: int


def card_number(number: int) -> str:
    """A valid card number for each whole number."""
    body = f"{number:011}"
    return body + luhn_digit(body)


def points_of(number: int) -> int:
    """What a made-up customer has."""
    return number * 37 % 5_000


def stamps_of(number: int) -> int:
    """What a made-up customer has."""
    return number % 10


def made_up_file(path: Path, first: int, count: int) -> Path:
    """Writes so many customers, no two of whom have anything alike."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for number in range(first, first + count):
            joined = date(2020, 1, 1) + timedelta(number % 1_000)
            rows.writerow(
                [
                    *(f"C-{number}", card_number(number), f"{number:032x}", f"Customer {number}"),
                    *(f"c{number}@home.example", f"+352 {number}", "fr", points_of(number), stamps_of(number)),
                    *(joined.isoformat(), f"{joined + timedelta(500)}T10:00:00+02:00", ""),
                ]
            )
    return path


def position(place: Installation) -> int:
    """Of the newest event."""
    ((head,),) = place.rows("SELECT max(notification_id) FROM events")
    return int(head)


def peak_mb_of(importer: subprocess.Popen[bytes]) -> float:
    """The most memory that a process has taken so far; 0 for one that has ended."""
    found = PEAK.search(Path(f"/proc/{importer.pid}/status").read_text())
    return int(found[1]) / 1_024 if found else 0


def import_cards(place: Installation, path: Path, store: str, *options: str) -> Ran:
    """Imports a file to its end."""
    began, peak_mb = time.monotonic(), 0.0
    with place.start("import", "cards", path, "--store", store, "--source", SOURCE, *options) as importer:
        while importer.poll() is None:
            peak_mb = max(peak_mb, peak_mb_of(importer))
            time.sleep(0.02)
            assert time.monotonic() - began < SECONDS_MAX, "an import takes a limited time"
        words = place.output(importer.pid).read_text()
        numbers = SUMMARY.search(words)
        assert numbers is not None, words
        return Ran(importer.returncode, time.monotonic() - began, peak_mb, *(int(each) for each in numbers.groups()))


def import_until_killed(place: Installation, path: Path, store: str, events: int) -> None:
    """Imports a file until the log has so many more events, and kills it with no warning."""
    goal = position(place) + events
    with place.start("import", "cards", path, "--store", store, "--source", SOURCE) as importer:
        wait_until(lambda: position(place) >= goal or importer.poll() is not None, "it had come far", SECONDS_MAX)
        assert importer.poll() is None, place.output(importer.pid).read_text()
        importer.kill()
        importer.wait()


def holds(place: Installation, store_id: str) -> tuple[int, int, int]:
    """The cards, points and stamps that the log says were brought to a store."""
    brought = [
        data
        for event, data in zip(place.events("balance_imported"), place.data_of("balance_imported"), strict=True)
        if str(event.actor.store_id) == store_id
    ]
    points, stamps = (sum(data.get(what, 0) for data in brought) for what in ("points", "stamps"))
    return len(brought), points, stamps


def answers(up: Up, terminal_key: str, number: int) -> bool:
    """Whether the API knows a made-up customer by their number and by their QR code, with what they had."""
    found = [
        up.ask("POST", f"{STORE}/cards/lookup", name, token=terminal_key).json()
        for name in ({"card_number": card_number(number)}, {"qr_code": f"{number:032x}"})
    ]
    wanted = (f"C-{number}", points_of(number), stamps_of(number))
    return all((card["customer_id"], card["points_balance"], card["stamp_count"]) == wanted for card in found)


def report(what: str, ran: Ran) -> None:
    """Prints what an import came to."""
    lines = ran.imported + ran.known + ran.bad
    print(f"{what}: {lines} lines in {ran.seconds:.1f} s, {lines / ran.seconds:.0f} a second; {ran.peak_mb:.0f} MB")
    print(f"  {ran.imported} imported, {ran.known} known, {ran.bad} bad, {ran.points} points, {ran.stamps} stamps")


def check(place: Installation, up: Up, store: dict[str, str], cards: int) -> bool:
    """Imports the files and prints what came of it."""
    fewer = made_up_file(place.folder / "fewer.csv", cards, cards // 10)
    more = made_up_file(place.folder / "more.csv", 0, cards)
    code = store["store_code"]
    few = import_cards(place, fewer, code)
    report("a tenth", few)
    before = position(place)
    dry = import_cards(place, more, code, "--dry-run")
    report("dry run", dry)
    quiet = position(place) == before
    import_until_killed(place, more, code, cards * 3 // 2)
    at_kill = holds(place, store["store_id"])[0] - cards // 10
    print(f"killed: {at_kill} imported")
    rest = import_cards(place, more, code)
    report("the rest", rest)
    head = position(place)
    again = import_cards(place, more, code)
    report("once more", again)
    everyone = range(cards + cards // 10)
    wanted = (len(everyone), sum(map(points_of, everyone)), sum(map(stamps_of, everyone)))
    found = holds(place, store["store_id"])
    print(f"{found[0]} cards, {found[1]} points, {found[2]} stamps in the log; wanted {wanted}")
    return (
        quiet
        and (dry.imported, few.imported) == (cards, cards // 10)
        and (rest.imported, rest.known) == (cards - at_kill, at_kill)
        and (again.imported, again.known) == (0, cards)
        and position(place) == head
        and {ran.code for ran in (few, dry, rest, again)} == {0}
        and found == wanted
        and all(answers(up, store["terminal_key"], number) for number in range(0, cards, cards // LOOKED_UP))
    )


def main() -> None:
    """Runs the check."""
    cards = int(sys.argv[1]) if len(sys.argv) > 1 else CARDS
    with installed() as place, place.up("--demo") as up:
        good = check(place, up, up.demo, cards)
    print("as it must be" if good else "not as it must be")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
