"""`loyalty expire` beside a running service: counted first, taken once, and to be seen by everyone afterwards."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger.program import ExpiryPolicy
from loyalty.cli import with_parts
from tests.installed import STORE, Installation, Up, installed
from tests.journeys.test_import_purchases import settings_of
from tests.shop import open_shop

pytestmark = pytest.mark.slow

TODAY = datetime.now(UTC).date()


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Installation, Up]]:
    with installed() as place, place.up("--demo") as up:
        yield place, up


def purchases(folder: Path) -> Path:
    """A purchase of 10.00 long ago, one lately, and one of yesterday, of each of 30 customers.

    Of yesterday and not of today: what comes after the program began, as today's noon may, takes what was due by then.
    """
    path = folder / "purchases.csv"
    days = [TODAY - timedelta(days=400), TODAY - timedelta(days=40), TODAY - timedelta(days=1)]
    lines = [f"{customer:03},{day.isoformat()},1,1000" for day in days for customer in range(30)]
    path.write_text("\n".join(["customer_id,date,items,amount_cents", *lines, ""]))
    return path


def expire(place: Installation, *options: str) -> str:
    ran = place.run("expire", *options)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip().splitlines()[-1]


def test_points_expire_once_and_everyone_sees_it(shop: tuple[Installation, Up]) -> None:
    place, up = shop
    rules: dict[str, Any] = {"expiry_policy": ExpiryPolicy.EARNED, "points_expiration_days": 365}
    opened = with_parts(
        settings_of(place), lambda parts: open_shop(parts.ledger, parts.clock, code="OLD-TOWN", **rules)
    )
    token = opened.terminal_key
    assert place.run("import", "purchases", purchases(place.folder), "--store", "OLD-TOWN").returncode == 0

    assert expire(place, "--dry-run") == "30 of 30 cards would lose 3000 points."
    later = (TODAY + timedelta(days=340)).isoformat()
    assert expire(place, "--date", later, "--dry-run") == "30 of 30 cards would lose 6000 points."
    assert expire(place) == "30 of 30 cards lost 3000 points."
    assert expire(place) == "0 of 30 cards lost 0 points."

    cards = up.ask("GET", f"{STORE}/cards?limit=200", token=token).json()["items"]
    assert {card["points_balance"] for card in cards} == {200}
    assert {card["next_expiry"]["points"] for card in cards} == {100}
    history = up.ask("GET", f"{STORE}/cards/{cards[0]['id']}/transactions", token=token).json()["items"]
    expired = [each for each in history if each["kind"] == "points_expired"]
    assert [(each["points"], each["staff_id"], each["terminal_id"]) for each in expired] == [(-100, None, None)]


def test_points_do_not_expire_before_their_time(shop: tuple[Installation, Up]) -> None:
    place, _ = shop
    ran = place.run("expire", "--date", date(TODAY.year + 1, 1, 1).isoformat())
    assert ran.returncode == 2
    assert "before their time" in ran.stderr
