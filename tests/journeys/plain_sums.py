"""What a file of purchases comes to by plain Python, held against what the service tells of it."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.installed import STORE, Installation, Up, wait_until

ZONE = ZoneInfo("Europe/Luxembourg")
POINTS_PER_EURO = 10
INSTANTS = 50
DIFFERING_CARDS = """
    SELECT count(*) FROM projections.cards c
    WHERE (c.points_balance, c.stamp_count) IS DISTINCT FROM (
        SELECT (coalesce(sum(t.points), 0)::bigint, coalesce(sum(t.stamps), 0)::bigint)
        FROM projections.transactions t WHERE t.card_id = c.id
    )
"""


class Line(NamedTuple):
    """A purchase as it stands in a file."""

    customer: str
    day: date
    cents: int

    @property
    def points(self) -> int:
        """What it earns."""
        return self.cents * POINTS_PER_EURO // 100

    @property
    def moment(self) -> datetime:
        """When the importer says that it happened."""
        return datetime.combine(self.day, time_of_day(12), ZONE)


def lines_of(rows: Iterable[tuple[str, str, Any, Any]]) -> list[Line]:
    """Purchases as the importer takes them."""
    return [Line(customer, date.fromisoformat(day), int(cents)) for customer, day, _, cents in rows]


def lines_in(path: Path) -> list[Line]:
    """The purchases of a file."""
    with path.open(newline="") as file:
        _, *rows = csv.reader(file)
    return lines_of((customer, day, items, cents) for customer, day, items, cents in rows)


def summed(lines: list[Line]) -> dict[str, int]:
    """The figures of some purchases."""
    return {
        "purchases": len(lines),
        "purchase_amount_cents": sum(line.cents for line in lines),
        "points_earned": sum(line.points for line in lines),
        "active_cards": len({line.customer for line in lines}),
    }


def days_of(lines: list[Line]) -> list[dict[str, Any]]:
    """The figures of each day, and what all cards had at its end; a customer is enrolled with their first line."""
    by_day: defaultdict[date, list[Line]] = defaultdict(list)
    for line in lines:
        by_day[line.day].append(line)
    first = {line.customer: line.day for line in reversed(lines)}
    enrolled = Counter(first.values())
    days, outstanding = [], 0
    for day, theirs in sorted(by_day.items()):
        outstanding += sum(line.points for line in theirs)
        days.append(
            summed(theirs) | {"day": day.isoformat(), "enrolments": enrolled[day], "points_outstanding": outstanding}
        )
    return days


def differences(place: Installation, up: Up, demo: dict[str, Any], lines: list[Line], seed: int = 1) -> list[str]:
    """In what the service's figures differ from those of the file, which its merchant's store has imported.

    The merchant's own demo customer has a card too, enrolled today, on which nothing happened.
    """
    found: list[str] = []

    def compare(what: str, told: Any, counted: Any) -> None:
        if told != counted:
            found.append(f"{what}: {told} instead of {counted}")

    manager, admin, auditor = (
        str(up.sign_in(demo[f"{role}_email"], demo[f"{role}_password"]).json()["access_token"])
        for role in ("manager", "admin", "auditor")
    )
    ((head,),) = place.rows("SELECT max(notification_id) FROM events")
    wait_until(lambda: reached(up, manager) >= head, "everything was told", 600)
    last_day = max(line.day for line in lines)
    whole = summed(lines)
    customers = len({line.customer for line in lines})
    visited = Counter(customer for customer, _ in {(line.customer, line.day) for line in lines})
    whole |= {"points_outstanding": whole["points_earned"], "cards": customers + 1, "enrolments": customers + 1}
    whole |= {"returning_cards": sum(days > 1 for days in visited.values())}
    everything = asked(up, f"{STORE}/stats", manager)
    compare("all days", picked(everything, whole), whole)
    (store,) = everything["by_store"]
    in_store = summed(lines) | {"store_code": demo["store_code"], "enrolments": customers + 1}
    compare("the store", picked(store, in_store), in_store)
    imported = asked(up, f"{STORE}/stats?to={last_day.isoformat()}&store={demo['store_code']}", manager)
    days = days_of(lines)
    compare("days", len(imported["by_day"]), len(days))
    for told, counted in zip(imported["by_day"], days, strict=False):
        compare(counted["day"], picked(told, counted), counted)
    programs = f"/api/v1/admin/loyalty/merchants/{demo['merchant_id']}"
    program = asked(up, programs, admin)["program_id"]
    compare("the program", asked(up, f"/api/v1/admin/loyalty/programs/{program}/stats", admin), everything)
    compare("cards that are not the sum of their transactions", place.rows(DIFFERING_CARDS), [(0,)])
    chance = Random(seed)  # noqa: S311 the same instants each time
    for _ in range(INSTANTS):
        compare(*balance_at(up, manager, auditor, lines, chance))
    return found


def balance_at(up: Up, manager: str, auditor: str, lines: list[Line], chance: Random) -> tuple[str, int, int]:
    """Somebody's balance at some instant: as auditors are told, and as the lines add up to."""
    customer = chance.choice(lines).customer
    theirs = [line for line in lines if line.customer == customer]
    at = chance.choice(theirs).moment + timedelta(seconds=chance.choice([-1, 0, 1, chance.randrange(-(10**7), 10**7)]))
    text = at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    page = asked(up, f"{STORE}/cards?q={customer}&limit=200", manager)
    card = next(each["id"] for each in page["items"] if each["customer_id"] == customer)
    told = asked(up, f"/api/v1/audit/loyalty/cards/{card}/balance?as_of={text}", auditor)
    return f"{customer} at {text}", told["points_balance"], sum(line.points for line in theirs if line.moment <= at)


def reached(up: Up, token: str) -> int:
    """Up to which position the figures are told."""
    return int(up.ask("GET", f"{STORE}/stats?from=2999-01-01", token=token).headers.get("Loyalty-Position", 0))


def asked(up: Up, path: str, token: str) -> dict[str, Any]:
    """A good answer."""
    response = up.ask("GET", path, token=token)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def picked(answer: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Some members of an answer."""
    return {name: answer[name] for name in names}
