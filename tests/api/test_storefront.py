"""What customers see: a shop's program before they have a card, their own card, and what happened to it."""

from typing import Any

import pytest

from ledger.merchant import MerchantSettings
from tests.served import OWN_CARD, Served, ServedShop, answer_of, refusal

OWN_TRANSACTIONS = "/api/v1/storefront/loyalty/transactions"
PROGRAMS = "/api/v1/loyalty/programs"


def code_of(shop: ServedShop) -> str:
    """The code of the shop's store."""
    shop.enrol()
    return str(answer_of(shop.manager.get("transactions?limit=1"))["items"][0]["store_code"])


# ---- the program ----------------------------------------------------------------------------------------------


def test_anybody_reads_a_stores_program(served: Served) -> None:
    shop = served.shop(terms="Be nice.", welcome_bonus_points=20)
    rewards = [
        {"id": "coffee", "name": "Coffee", "points_cost": 100},
        {"id": "old", "name": "Tea", "points_cost": 50, "active": False},
    ]
    assert shop.manager.patch("program", {"rewards": rewards}).status_code == 200
    code = code_of(shop)
    assert answer_of(served.client().get(f"{PROGRAMS}/{code}")) == {
        "store_code": code,
        "store_name": "Main street",
        "merchant_name": "Corner shop",
        "locale": "en",
        "currency": "EUR",
        "active": True,
        "self_enrollment": True,
        "type": "hybrid",
        "stamps_target": 10,
        "stamps_reward_description": "A free coffee",
        "points_per_euro": 10,
        "minimum_purchase_cents": 0,
        "welcome_bonus_points": 20,
        "rewards": [{"name": "Coffee", "points_cost": 100}],
        "points_expiration_days": None,
        "expiry_policy": "inactivity",
        "branding": {
            "card_name": "Loyalty Card",
            "card_color": "#1f4f82",
            "logo_url": None,
            "hero_image_url": None,
        },
        "terms": "Be nice.",
    }


def test_a_program_that_is_switched_off_is_shown_as_such(served: Served) -> None:
    shop = served.shop()
    code = code_of(shop)
    assert shop.manager.patch("program", {"active": False}).status_code == 200
    found = answer_of(served.client().get(f"{PROGRAMS}/{code}"))
    assert (found["active"], found["self_enrollment"]) == (False, False)


def test_whether_customers_enrol_themselves_is_the_merchants_choice(served: Served) -> None:
    shop = served.shop(settings=MerchantSettings(allow_self_enrollment=False))
    found = answer_of(served.client().get(f"{PROGRAMS}/{code_of(shop)}"))
    assert (found["active"], found["self_enrollment"]) == (True, False)


@pytest.mark.parametrize("code", ["NO-SUCH-STORE", "x", "%20", "%00", "S%00", "\u00e9", "a" * 500, "..", "*"])
def test_a_code_that_no_store_has_is_not_found(served: Served, code: str) -> None:
    response = served.client().get(f"{PROGRAMS}/{code}")
    assert response.status_code == 404
    assert answer_of(response)["code"] in ("store_not_found", "not_found")


def test_a_position_is_waited_for_also_by_strangers(shop: ServedShop) -> None:
    path = f"{PROGRAMS}/{code_of(shop)}"
    stranger = shop.served.client()
    refusal(stranger.get(path, headers={"Loyalty-Position": "x"}), 400, "invalid_position")
    refusal(stranger.get(path, headers={"Loyalty-Position": "9" * 18}), 503, "behind")


# ---- one's own card -------------------------------------------------------------------------------------------


def items_of(shop: ServedShop, customer_id: str, **params: Any) -> list[dict[str, Any]]:
    """The transactions that a customer sees."""
    found: list[dict[str, Any]] = answer_of(shop.customer(customer_id).get(OWN_TRANSACTIONS, params=params))["items"]
    return found


def test_customers_read_what_happened_but_not_who_served_them(shop: ServedShop) -> None:
    card = shop.enrol("C-1")
    shop.earn(card, 2_500, order_reference="ORD-1")
    seen = items_of(shop, "C-1")
    told = answer_of(shop.till.get(f"cards/{card['id']}/transactions"))["items"]
    assert [each["staff_name"] for each in told] == ["Alex", None]
    assert all(each["terminal_id"] for each in told)
    nobody = {"staff_id": None, "staff_name": None, "terminal_id": None}
    assert seen == [each | nobody for each in told]
    assert seen[0]["order_reference"] == "ORD-1"
    assert [each["kind"] for each in items_of(shop, "C-1", kind="points_earned")] == ["points_earned"]
    for file_format in ("csv", "jsonl"):
        text = shop.customer("C-1").get(f"{OWN_TRANSACTIONS}?format={file_format}").text
        assert "ORD-1" in text
        assert "Alex" not in text
        assert str(shop.shop.staff_id) not in text
        assert str(shop.shop.till.id) not in text


def test_a_card_link_reads_the_same_page_by_page(shop: ServedShop) -> None:
    card = shop.enrol("C-1")
    for cents in (100, 200):
        shop.earn(card, cents)
    link, nobody = shop.card_link("C-1"), shop.served.client()
    first = answer_of(nobody.get(OWN_TRANSACTIONS, params={"link": link, "limit": 2}))
    rest = answer_of(nobody.get(OWN_TRANSACTIONS, params={"link": link, "cursor": first["next_cursor"]}))
    assert first["items"] + rest["items"] == items_of(shop, "C-1")
    assert rest["next_cursor"] is None
    refusal(nobody.get(OWN_TRANSACTIONS, params={"link": f"{link}x"}), 401, "invalid_credentials")


def test_after_a_merge_both_histories_are_the_customers(shop: ServedShop) -> None:
    gone, left = shop.enrol("C-1"), shop.enrol("C-2")
    shop.earn(gone, 1_000)
    shop.earn(left, 2_000)
    merged = shop.manager.command(f"cards/{gone['id']}/merge", {"into_card_id": left["id"]})
    assert merged.status_code == 200
    assert answer_of(shop.customer("C-1").get(OWN_CARD))["id"] == left["id"]
    assert items_of(shop, "C-1") == items_of(shop, "C-2")
    amounts = [each["purchase_amount_cents"] for each in items_of(shop, "C-1", kind="points_earned")]
    assert amounts == [2_000, 1_000]


def test_a_customer_sees_nobody_elses(served: Served, shop: ServedShop) -> None:
    shop.earn(shop.enrol("C-1"), 1_000)
    shop.enrol("C-2")
    assert [each["kind"] for each in items_of(shop, "C-2")] == ["enrolled"]
    for stranger in (shop.customer("C-3"), served.shop().customer("C-1")):
        refusal(stranger.get(OWN_TRANSACTIONS), 404, "card_not_found")
    refusal(shop.manager.get(OWN_TRANSACTIONS), 403, "not_allowed")
    refusal(served.client().get(OWN_TRANSACTIONS), 401, "invalid_credentials")
