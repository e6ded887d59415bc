"""Lists and transactions: every item once, in order, page by page; signed changes and the balances after them."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from httpx import Response

from ledger.actor import Caller, Role
from ledger.card import EarnPoints
from ledger.commands import OnCard, StaffEntry, WhichCard
from tests.served import Client, Served, ServedShop, answer_of, refusal
from tests.shop import PIN

TRANSACTION = {
    "id",
    "kind",
    "occurred_at",
    "recorded_at",
    "store_code",
    "terminal_id",
    "staff_id",
    "staff_name",
    "order_reference",
    "purchase_amount_cents",
    "points",
    "stamps",
    "points_balance",
    "stamp_count",
    "reverses",
    "position",
}


AUDIT, ADMIN = "/api/v1/audit/loyalty", "/api/v1/admin/loyalty"
LISTS = ("cards", "pins", "cards/{card}/transactions")


def as_enrolled(card: dict[str, Any]) -> dict[str, Any]:
    """A card of a list as its enrolment answered it: at a till, with nobody's name."""
    assert card["person"] is None
    return {name: value for name, value in card.items() if name != "person"}


def pages(client: Client, path: str, limit: int) -> list[list[dict[str, Any]]]:
    """All pages of a list, following its cursors."""
    found: list[list[dict[str, Any]]] = []
    cursor = None
    while True:
        page = answer_of(client.get(path, params={"limit": limit} | ({"cursor": cursor} if cursor else {})))
        assert page.keys() == {"items", "next_cursor"}
        assert len(page["items"]) <= limit
        found.append(page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 8, 200])
def test_pages_hold_every_card_once_newest_first(shop: ServedShop, limit: int) -> None:
    cards = [shop.enrol() for _ in range(7)]
    found = pages(shop.till, "cards", limit)
    assert [as_enrolled(card) for page in found for card in page] == cards[::-1]
    assert len(found) == -(-7 // limit)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 200])
def test_pages_hold_every_pin_once_oldest_first(shop: ServedShop, limit: int) -> None:
    for number in range(3):
        assert shop.manager.post("pins", {"name": f"N{number}", "pin": f"500{number}"}).status_code == 201
    found = pages(shop.manager, "pins", limit)
    assert [pin["name"] for page in found for pin in page] == ["Alex", "N0", "N1", "N2"]
    assert len(found) == -(-4 // limit)


@pytest.mark.parametrize("limit", [1, 2, 4, 5, 6, 200])
def test_pages_hold_every_transaction_once_newest_first(shop: ServedShop, limit: int) -> None:
    card = shop.enrol()
    for cents in (100, 200, 300, 400):
        shop.earn(card, cents)
    found = pages(shop.till, f"cards/{card['id']}/transactions", limit)
    assert [item["points_balance"] for page in found for item in page] == [100, 60, 30, 10, 0]
    positions = [item["position"] for page in found for item in page]
    assert positions == sorted(set(positions), reverse=True)
    assert len(found) == -(-5 // limit)


def test_what_is_added_while_pages_are_read_moves_nothing(shop: ServedShop) -> None:
    cards = [shop.enrol() for _ in range(4)]
    first = answer_of(shop.till.get("cards?limit=2"))
    shop.enrol()
    second = answer_of(shop.till.get("cards", params={"limit": 2, "cursor": first["next_cursor"]}))
    assert [as_enrolled(card) for card in first["items"] + second["items"]] == cards[::-1]


def test_lists_hold_the_merchants_own_only(served: Served) -> None:
    here, there = served.shop(), served.shop()
    card = here.enrol()
    there.enrol()
    assert [as_enrolled(each) for each in answer_of(here.till.get("cards"))["items"]] == [card]
    assert len(answer_of(here.manager.get("pins"))["items"]) == 1


@pytest.mark.parametrize("path", LISTS)
def test_a_limit_is_from_1_to_200(shop: ServedShop, path: str) -> None:
    path = path.format(card=shop.enrol()["id"])
    for limit in ("0", "-1", "201", "99999999999999999999", "1.5", "x", "", "0x10", "null"):
        refusal(shop.manager.get(path, params={"limit": limit}), 400, "invalid_request")
    for limit in ("1", "200"):
        assert shop.manager.get(path, params={"limit": limit}).status_code == 200


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_is_one_that_was_given(shop: ServedShop, path: str) -> None:
    path = path.format(card=shop.enrol()["id"])
    for cursor in ("", "x", "p", "p-1", "p1.5", "p" + "9" * 19, "P1", "1", "p1 ", "p1\n", "p\u0661", "\x00"):
        refusal(shop.manager.get(path, params={"cursor": cursor}), 400, "invalid_cursor")


PAGED = {
    "cards": 1,
    "cards?status=active": 1,
    "cards?sort=activity": 2,
    "cards?q=li": 1,
    "cards/{card}/transactions": 1,
    "transactions": 2,
    "pins": 1,
    f"{AUDIT}/events": 1,
    f"{AUDIT}/cards/{{card}}/events": 1,
    f"{AUDIT}/cards/{{card}}/events?order=newest": 1,
    f"{ADMIN}/programs": 1,
    f"{ADMIN}/merchants": 1,
    f"{ADMIN}/merchants/{{merchant}}/stores": 1,
    f"{ADMIN}/stores/{{store}}/terminals": 1,
}
"""Every list, with how many numbers stand in its cursors."""


def test_no_cursor_of_another_list_and_no_large_number_is_a_defect(shop: ServedShop) -> None:
    held = [shop.enrol(customer_id) for customer_id in ("li-1", "li-2")]
    shop.earn(held[0], 100)
    which = {"card": held[0]["id"], "merchant": shop.merchant_id, "store": shop.shop.store_id}
    assert shop.manager.post("pins", {"name": "Kim", "pin": "5678"}).status_code == 201
    shop.served.shop()

    def read(path: str, **asked: Any) -> Response:
        client = shop.manager
        if path.startswith((AUDIT, ADMIN)):
            client = shop.caller(Role.AUDITOR if path.startswith(AUDIT) else Role.ADMIN)
        path, _, query = path.format(**which).partition("?")
        return client.get(path, params=dict(parse_qsl(query)) | asked)

    given = {path: answer_of(read(path, limit=1))["next_cursor"] for path in PAGED}
    few = {f"{ADMIN}/merchants/{{merchant}}/stores", f"{ADMIN}/stores/{{store}}/terminals"}
    assert {path for path, cursor in given.items() if cursor is None} == few
    for path, numbers in PAGED.items():
        for other, cursor in given.items():
            if cursor is not None and PAGED[other] != numbers:
                refusal(read(path, cursor=cursor), 400, "invalid_cursor")
            elif cursor is not None and (response := read(path, cursor=cursor)).status_code != 200:
                assert path != other
                refusal(response, 400, "invalid_cursor")
        for large in ("9" * 39, "9" * 5_000, 2**128, 2**128 - 1, 2**64, 2**63):
            for cursor in (f"p{large}", f"p{large}.1", f"p1.{large}", f"p{large}.{large}", f"p1.1.{large}"):
                refusal(read(path, cursor=cursor), 400, "invalid_cursor")
        for edge in (0, 2**62):
            response = read(path, cursor="p" + ".".join(["0", str(edge)][-numbers:]))
            if path != "cards?q=li":
                assert response.status_code == 200, response.text


def test_a_cursor_past_the_end_gives_an_empty_page(shop: ServedShop) -> None:
    shop.enrol()
    assert answer_of(shop.till.get("cards?cursor=p0")) == {"items": [], "next_cursor": None}
    assert answer_of(shop.manager.get("pins?cursor=p" + "9" * 18)) == {"items": [], "next_cursor": None}


# ---- transactions ---------------------------------------------------------------------------------------------


def test_a_cards_history_tells_each_change_and_the_balance_after_it(served: Served) -> None:
    shop = served.shop(stamps_target=1, welcome_bonus_points=20)
    card = shop.enrol()
    shop.earn(card, 1_000, order_reference="ORD-1")
    assert shop.stamp(card).status_code == 200
    body = {"card_id": card["id"], "staff_pin": PIN}
    assert shop.till.command("stamp/redeem", body).status_code == 200
    assert shop.till.command("points/redeem", body | {"reward_id": "coffee"}).status_code == 200
    items = answer_of(shop.till.get(f"cards/{card['id']}/transactions"))["items"]
    told = [
        (item["kind"], item["points"], item["stamps"], item["points_balance"], item["stamp_count"]) for item in items
    ]
    assert told == [
        ("points_redeemed", -100, 0, 20, 0),
        ("stamps_redeemed", 0, -1, 120, 0),
        ("stamp_added", 0, 1, 120, 1),
        ("points_earned", 100, 0, 120, 0),
        ("points_earned", 20, 0, 20, 0),
        ("enrolled", 0, 0, 0, 0),
    ]
    for number in ("points", "stamps"):
        assert (
            sum(item[number] for item in items) == items[0]["points_balance" if number == "points" else "stamp_count"]
        )


def test_a_transaction_tells_when_where_who_and_what(shop: ServedShop) -> None:
    card = shop.enrol()
    earned = shop.earn(card, 2_500, order_reference="ORD-12345")
    response = shop.till.get(f"cards/{card['id']}/transactions")
    newest, enrolled = answer_of(response)["items"]
    assert newest.keys() == TRANSACTION
    assert newest["id"] == earned["transaction_id"]
    assert newest["terminal_id"] == str(shop.shop.till.id)
    assert (newest["staff_id"], newest["staff_name"]) == (str(shop.shop.staff_id), "Alex")
    assert (newest["order_reference"], newest["purchase_amount_cents"]) == ("ORD-12345", 2_500)
    assert newest["store_code"] == enrolled["store_code"]
    assert newest["store_code"].startswith("S")
    assert newest["reverses"] is None
    assert newest["occurred_at"] == newest["recorded_at"]
    assert newest["position"] == int(response.headers["loyalty-position"])
    assert (enrolled["staff_id"], enrolled["order_reference"], enrolled["purchase_amount_cents"]) == (None, None, None)


def test_a_managers_transaction_names_no_terminal(shop: ServedShop) -> None:
    card = shop.enrol()
    body = {"card_id": card["id"], "purchase_amount_cents": 100}
    assert shop.manager.command("points", body).status_code == 200
    newest = answer_of(shop.till.get(f"cards/{card['id']}/transactions"))["items"][0]
    assert (newest["terminal_id"], newest["staff_id"], newest["staff_name"]) == (None, None, None)


def test_what_happened_earlier_is_dated_when_it_happened(shop: ServedShop) -> None:
    card = shop.enrol()
    ledger, till = shop.served.parts.ledger, shop.shop.till
    then = shop.served.parts.clock.now() - timedelta(days=3)
    late = OnCard(
        which=WhichCard(qr_code=card["qr_code"]), staff=StaffEntry(staff_pin=PIN), command=EarnPoints(100, None)
    )
    assert isinstance(till, Caller)
    handled = shop.served.run(ledger.handle(late, till, occurred_at=then))
    shop.served.seen.at(handled.position)
    newest = answer_of(shop.till.get(f"cards/{card['id']}/transactions"))["items"][0]
    assert datetime.fromisoformat(newest["occurred_at"]) == then
    assert datetime.fromisoformat(newest["recorded_at"]) - then > timedelta(days=2)


# ---- reading what was written ---------------------------------------------------------------------------------

READS = ("cards", "cards/{card}", "cards/{card}/transactions", "program", "pins")


def test_a_read_reflects_the_position_of_any_earlier_command(shop: ServedShop) -> None:
    card = shop.enrol()
    response = shop.till.command("points", {"card_id": card["id"], "staff_pin": PIN, "purchase_amount_cents": 100})
    position = response.headers["loyalty-position"]
    for path in READS:
        read = shop.manager.get(path.format(card=card["id"]), headers={"Loyalty-Position": position})
        assert read.status_code == 200
        assert int(read.headers["loyalty-position"]) >= int(position)
    found = shop.till.post("cards/lookup", {"card_id": card["id"]}, headers={"Loyalty-Position": position})
    assert answer_of(found)["points_balance"] == 10


@pytest.mark.parametrize("path", READS)
def test_a_position_is_an_integer_that_was_given(shop: ServedShop, path: str) -> None:
    path = path.format(card=shop.enrol()["id"])
    for position in ("", "x", "-1", "1.5", "0x1", "1 2", "9" * 19, "\u00b2", "+1"):
        response = shop.manager.get(path, headers={"Loyalty-Position": position.encode("latin-1")})
        refusal(response, 400, "invalid_position")


@pytest.mark.parametrize("path", READS)
def test_a_position_that_the_log_has_not_reached_is_answered_503_with_retry_after(shop: ServedShop, path: str) -> None:
    card = shop.enrol()
    response = shop.manager.get(path.format(card=card["id"]), headers={"Loyalty-Position": "9" * 18})
    facts = refusal(response, 503, "behind")
    assert int(response.headers["retry-after"]) >= 1
    assert facts["position"] > 0
