"""The whole history of the CDNOW customers, imported for real and killed in the middle.

`python -m tests.journeys.cdnow FILE` starts `loyalty up --demo` on a folder of its own, imports FILE, which is killed
half-way, again to its end, and once more, which must change nothing. It exits 1 unless the log then holds exactly
what the file says, and statistics, cards and balances of the past are the sums that plain Python makes of it.
"""

import sys
import time
from pathlib import Path

from tests.installed import Installation, Up, installed, wait_until
from tests.journeys.plain_sums import differences, lines_in

CARDS = 23_570
EARNINGS = 69_659
POINTS = 24_960_913
DIFFERENCES_SHOWN = 20


def totals(place: Installation) -> tuple[int, int, int]:
    """Cards, earnings and points of the log itself, without the demo's own card."""
    points = [data["points"] for data in place.data_of("points_earned")]
    return len(place.events("card_enrolled")) - 1, len(points), sum(points)


def import_until_killed(place: Installation, path: Path, store: str) -> float:
    """Imports until half of the purchases are there and kills it; answers how long that took."""
    began = time.monotonic()
    with place.start("import", "purchases", path, "--store", store) as importer:
        wait_until(
            lambda: position(place) > (CARDS + EARNINGS) // 2 or importer.poll() is not None, "half was there", 600
        )
        assert importer.poll() is None, place.output(importer.pid).read_text()
        importer.kill()
        importer.wait()
    return time.monotonic() - began


def position(place: Installation) -> int:
    """Of the newest event."""
    ((head,),) = place.rows("SELECT max(notification_id) FROM events")
    return int(head)


def import_to_the_end(place: Installation, path: Path, store: str) -> tuple[float, str]:
    """Imports; answers how long that took and the summary."""
    began = time.monotonic()
    with place.start("import", "purchases", path, "--store", store) as importer:
        code = importer.wait(600)
        summary = place.output(importer.pid).read_text().splitlines()[-1]
        assert code == 0, summary
    return time.monotonic() - began, summary


def check(place: Installation, up: Up, path: Path) -> bool:
    """Imports three times and prints what came of it."""
    store = up.demo["store_code"]
    until_killed = import_until_killed(place, path, store)
    cards, earnings, points = totals(place)
    print(f"killed after {until_killed:.1f} s: {cards} cards, {earnings} earnings, {points} points")
    rest, summary = import_to_the_end(place, path, store)
    print(f"the rest took {rest:.1f} s: {summary}")
    head = position(place)
    again, summary = import_to_the_end(place, path, store)
    print(f"once more took {again:.1f} s: {summary}")
    cards, earnings, points = totals(place)
    seconds = until_killed + rest
    print(f"{cards} cards, {earnings} earnings, {points} points in the log")
    print(f"{seconds:.1f} s, {earnings / seconds:.0f} purchases a second")
    began = time.monotonic()
    differing = differences(place, up, up.demo, lines_in(path))
    print(f"{len(differing)} figures differ from the file, compared in {time.monotonic() - began:.1f} s")
    print(*differing[:DIFFERENCES_SHOWN], sep="\n", end="\n" if differing else "")
    return (cards, earnings, points) == (CARDS, EARNINGS, POINTS) and position(place) == head and not differing


def main() -> None:
    """Runs the check."""
    with installed() as place, place.up("--demo") as up:
        good = check(place, up, Path(sys.argv[1]).resolve())
    print("as it must be" if good else f"not {CARDS} cards, {EARNINGS} earnings, {POINTS} points")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
