"""Statistics over HTTP: whose they are, of which days, as JSON and as a file; and how PINs were used."""

import csv
import io
from datetime import date, timedelta
from uuid import uuid4

import pytest

from tests.served import Client, Served, ServedShop, answer_of, refusal
from tests.shop import PIN

SUMS = {
    *("active_cards", "enrolments", "closures", "purchases", "purchase_amount_cents", "refunded_amount_cents"),
    *("redemptions", "stamps_added", "stamps_redeemed", "stamps_reversed", "stamps_adjusted", "stamps_imported"),
    *("points_earned", "points_redeemed", "points_expired", "points_reversed", "points_adjusted", "points_imported"),
    *("points_forfeited", "stamps_forfeited"),
}
OUTSTANDING = {"points_outstanding", "stamps_outstanding"}


def test_a_manager_reads_what_the_shop_came_to(served: Served) -> None:
    shop = served.shop(welcome_bonus_points=20)
    card, other = shop.enrol(), shop.enrol()
    earned = shop.earn(card, 2_500)
    assert shop.stamp(other).status_code == 200
    body = {"card_id": card["id"], "staff_pin": PIN}
    assert shop.till.command("points/redeem", body | {"reward_id": "coffee"}).status_code == 200
    back = shop.till.command(
        f"transactions/{earned['transaction_id']}/reverse", {"staff_pin": PIN, "purchase_amount_cents": 500}
    )
    assert back.status_code == 200
    assert shop.manager.command(f"cards/{other['id']}/adjust", {"points": -3, "reason": "Mistake"}).status_code == 200
    assert shop.manager.post(f"cards/{other['id']}/close", {}).status_code == 200
    found = answer_of(shop.manager.get("stats"))
    assert found.keys() == SUMS | OUTSTANDING | {
        *("from", "to", "cards", "returning_cards", "redemption_rate", "by_day", "by_store", "by_staff")
    }
    expected = {
        "cards": 1,
        "active_cards": 2,
        "returning_cards": 0,
        "enrolments": 2,
        "closures": 1,
        "purchases": 1,
        "purchase_amount_cents": 2_500,
        "refunded_amount_cents": 500,
        "redemptions": 1,
        "stamps_added": 1,
        "points_earned": 250 + 2 * 20,
        "points_redeemed": 100,
        "points_reversed": 50,
        "points_adjusted": -3,
        "points_forfeited": 20 - 3,
        "stamps_forfeited": 1,
        "points_outstanding": 250 + 20 - 100 - 50,
        "stamps_outstanding": 0,
        "redemption_rate": round(100 / 290, 4),
    }
    assert {name: found[name] for name in expected} == expected
    (day,) = found["by_day"]
    assert day.keys() == SUMS | OUTSTANDING | {"day"}
    assert (found["from"], found["to"]) == (day["day"], day["day"])
    (store,) = found["by_store"]
    assert store.keys() == SUMS | {"store_code"}
    alex, nobody = found["by_staff"]
    assert alex.keys() == SUMS | {"staff_id", "staff_name"}
    assert (alex["staff_id"], alex["staff_name"], alex["points_earned"]) == (str(shop.shop.staff_id), "Alex", 250)
    assert (nobody["staff_id"], nobody["staff_name"], nobody["enrolments"]) == (None, None, 2)
    for name in SUMS - {"active_cards"}:
        assert found[name] == day[name] == store[name] == alex[name] + nobody[name], name


def test_the_days_are_those_that_were_asked_for(shop: ServedShop) -> None:
    shop.earn(shop.enrol(), 100)
    today = answer_of(shop.manager.get("stats"))["to"]
    tomorrow = (date.fromisoformat(today) + timedelta(1)).isoformat()
    yesterday = (date.fromisoformat(today) - timedelta(1)).isoformat()
    for first, last, purchases, outstanding in (
        (yesterday, yesterday, 0, 0),
        (yesterday, today, 1, 10),
        (today, today, 1, 10),
        (tomorrow, tomorrow, 0, 10),
    ):
        found = answer_of(shop.manager.get(f"stats?from={first}&to={last}"))
        assert (found["from"], found["to"], found["purchases"]) == (first, last, purchases)
        assert (found["points_outstanding"], len(found["by_day"])) == (outstanding, purchases)
    assert answer_of(shop.manager.get(f"stats?from={tomorrow}"))["to"] == tomorrow


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ("from=yesterday", "invalid_day"),
        ("to=2026-02-30", "invalid_day"),
        ("from=20260101", "invalid_day"),
        ("from=2026-W05-6", "invalid_day"),
        ("from=2026-01-02T00:00:00", "invalid_day"),
        ("from=2026-01-02&to=2026-01-01", "invalid_days"),
        ("staff_id=1", "invalid_request"),
        ("format=jsonl", "invalid_request"),
        ("format=pdf", "invalid_request"),
    ],
)
def test_what_is_no_day_or_no_format_is_refused(shop: ServedShop, asked: str, code: str) -> None:
    refusal(shop.manager.get(f"stats?{asked}"), 400, code)


def test_a_store_or_staff_member_of_another_merchant_is_none(served: Served, shop: ServedShop) -> None:
    other = served.shop()
    other.earn(other.enrol(), 1_000)
    theirs = answer_of(other.manager.get("stats"))
    code = theirs["by_store"][0]["store_code"]
    refusal(shop.manager.get(f"stats?store={code}"), 404, "store_not_found")
    refusal(shop.manager.get("stats?store=NO-SUCH"), 404, "store_not_found")
    foreign, unknown = (
        answer_of(shop.manager.get(f"stats?staff_id={staff_id}")) for staff_id in (other.shop.staff_id, uuid4())
    )
    assert foreign == unknown
    assert foreign["points_earned"] == 0
    assert answer_of(shop.manager.get("stats"))["points_earned"] == 0
    of_store = answer_of(other.manager.get(f"stats?store={code}"))
    assert of_store == theirs


def test_statistics_are_a_managers(shop: ServedShop) -> None:
    for path in ("stats", "pins/use"):
        refusal(shop.till.get(path), 403, "not_allowed")


def test_days_as_a_file(shop: ServedShop) -> None:
    shop.earn(shop.enrol(), 100)
    (day,) = answer_of(shop.manager.get("stats"))["by_day"]
    response = shop.manager.get("stats?format=csv")
    assert response.headers["content-type"].startswith("text/csv")
    assert response.headers["content-disposition"] == 'attachment; filename="statistics.csv"'
    (line,) = csv.DictReader(io.StringIO(response.text))
    assert line == {name: str(value) for name, value in day.items()}


# ---- staff PINs -----------------------------------------------------------------------------------------------


def use_of(manager: Client) -> tuple[dict[str, dict[str, object]], dict[str, dict[str, object]]]:
    """How PINs were used, by name."""
    found = answer_of(manager.get("pins/use"))
    staff, terminals = ({each["name"]: each for each in found[name]} for name in ("staff", "terminals"))
    return staff, terminals


def test_the_use_of_each_pin_is_told(shop: ServedShop) -> None:
    assert shop.manager.post("pins", {"name": "Kim", "pin": "5678"}).status_code == 201
    card = shop.enrol()
    shop.earn(card, 100)
    shop.earn(card, 200)
    wrong = {"card_id": card["id"], "purchase_amount_cents": 100, "staff_pin": "9999"}
    refusal(shop.till.command("points", wrong), 403, "pin_invalid")
    for _ in range(5):
        shop.till.command("points", wrong | {"staff_id": str(shop.shop.staff_id)})
    # A refusal tells no position to wait for.
    shop.served.seen.at(shop.served.run(shop.served.parts.ledger.log.head()))
    staff, terminals = use_of(shop.manager)
    assert staff.keys() == {"Alex", "Kim"}
    assert terminals.keys() == {"Till 1"}
    alex, till, kim = staff["Alex"], terminals["Till 1"], staff["Kim"]
    assert alex["id"] == str(shop.shop.staff_id)
    assert (alex["transactions"], alex["failures"], alex["lockouts"], alex["active"]) == (2, 5, 1, True)
    assert (till["transactions"], till["failures"], till["lockouts"]) == (2, 1, 0)
    assert None not in (alex["last_used_at"], alex["last_failed_at"], till["last_used_at"], till["last_failed_at"])
    assert (kim["transactions"], kim["last_used_at"], kim["failures"], kim["last_failed_at"]) == (0, None, 0, None)
    assert shop.manager.delete(f"pins/{kim['id']}").status_code == 200
    assert use_of(shop.manager)[0]["Kim"]["active"] is False
