"""What a command would come to: its own answer, or its own refusal, and nothing written."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ledger.commands import OnMerchant, OnProgram
from ledger.merchant import ChangeSettings, MerchantSettings
from ledger.program import ChangeProgram, ExpiryPolicy, ProgramType
from tests.served import Served, ServedShop, answer_of, refusal
from tests.shop import PIN

WRONG_PIN = "9999"
MOVING = {"last_activity_at", "next_expiry"}
"""What of a card goes by the time at which a command is sent."""


def foretold(response: httpx.Response) -> dict[str, Any]:
    """A preview as it was answered."""
    assert response.status_code == 200, response.text
    assert int(response.headers["loyalty-position"]) > 0
    assert "idempotency-replayed" not in response.headers
    return answer_of(response)


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what goes by the time at which it was given, and without what only a transaction has."""
    card = {name: value for name, value in answer["card"].items() if name not in MOVING}
    assert datetime.fromisoformat(answer["card"]["last_activity_at"]) <= datetime.now(UTC)
    expiry = answer["card"]["next_expiry"]
    card["next_expiry"] = expiry and expiry["points"]
    return {name: value for name, value in answer.items() if name != "transaction_id"} | {"card": card}


def head(shop: ServedShop) -> int:
    return shop.served.run(shop.served.parts.ledger.log.head())


def with_purchase(shop: ServedShop) -> tuple[dict[str, Any], str]:
    """A card with a purchase of 25 euros, and that purchase."""
    card = shop.enrol()
    return card, shop.earn(card, 2_500)["transaction_id"]


# ---- as the command -------------------------------------------------------------------------------------------

Ask = Callable[[ServedShop, dict[str, Any], str], tuple[str, str, dict[str, Any]]]
"""From a shop, a card and a purchase to the address of a preview, that of the command, and the body of both."""

ASKED: dict[str, Ask] = {
    "earning": lambda _, card, __: (
        "points/preview",
        "points",
        {"card_id": card["id"], "purchase_amount_cents": 1_999, "order_reference": "O-1"},
    ),
    "earning by number": lambda _, card, __: (
        "points/preview",
        "points",
        {"card_number": card["card_number"], "purchase_amount_cents": 0},
    ),
    "redeeming": lambda _, card, __: (
        "points/preview",
        "points/redeem",
        {"qr_code": card["qr_code"], "reward_id": "coffee"},
    ),
    "reversing": lambda _, __, purchase: (
        f"transactions/{purchase}/reverse/preview",
        f"transactions/{purchase}/reverse",
        {"reason": "Broken"},
    ),
    "refunding": lambda _, __, purchase: (
        f"transactions/{purchase}/reverse/preview",
        f"transactions/{purchase}/reverse",
        {"purchase_amount_cents": 333},
    ),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_preview_answers_as_the_command_that_follows_and_writes_nothing(served: Served, asked: Ask) -> None:
    shop = served.shop(points_expiration_days=30, expiry_policy=ExpiryPolicy.EARNED)
    card, purchase = with_purchase(shop)
    preview, command, body = asked(shop, card, purchase)
    before = head(shop)
    told, managers = (foretold(caller.post(preview, body)) for caller in (shop.till, shop.manager))
    assert timeless(told) == timeless(managers)
    assert answer_of(shop.till.get(f"cards/{card['id']}")) | told["card"] == told["card"]
    assert head(shop) == before
    answer = answer_of(shop.till.command(command, body | {"staff_pin": PIN}))
    assert answer.keys() - told.keys() == {"transaction_id"}
    assert timeless(told) == timeless(answer)


def test_a_preview_asks_nobody_who_they_are_and_counts_no_wrong_pin(served: Served) -> None:
    shop = served.shop(settings=MerchantSettings(reversals_need_manager=True))
    card, purchase = with_purchase(shop)
    before = head(shop)
    for more in ({}, {"staff_pin": WRONG_PIN}, {"staff_pin": WRONG_PIN, "staff_id": str(shop.shop.staff_id)}):
        for _ in range(6):
            foretold(shop.till.post("points/preview", {"card_id": card["id"], "purchase_amount_cents": 1} | more))
            foretold(shop.till.post(f"transactions/{purchase}/reverse/preview", more))
    assert head(shop) == before
    assert shop.manager.get(f"pins/{shop.shop.staff_id}").json()["failed_attempts"] == 0


def test_a_locked_till_may_still_look(shop: ServedShop) -> None:
    card, _ = with_purchase(shop)
    for _ in range(5):
        refusal(shop.till.post("pins/verify", {"staff_pin": WRONG_PIN}), 403, "pin_invalid")
    foretold(shop.till.post("points/preview", {"card_id": card["id"], "purchase_amount_cents": 1}))


# ---- refusals -------------------------------------------------------------------------------------------------


def same_refusal(
    shop: ServedShop, preview: str, command: str, body: dict[str, Any], *, recorded: bool = True
) -> dict[str, Any]:
    """The problem that both answer, byte for byte; of the command it is `recorded`, of the preview never."""
    before = head(shop)
    told = shop.till.post(preview, body)
    assert told.status_code >= 400, told.text
    assert head(shop) == before
    done = shop.till.command(command, body | {"staff_pin": PIN})
    assert (told.status_code, told.content) == (done.status_code, done.content)
    assert head(shop) == before + recorded
    return answer_of(told)


def test_what_a_command_refuses_its_preview_refuses_alike(served: Served) -> None:
    shop = served.shop(minimum_purchase_cents=500)
    card, purchase = with_purchase(shop)
    which = {"card_id": card["id"]}
    for body, code, recorded in (
        (which | {"purchase_amount_cents": 499}, "purchase_below_minimum", True),
        ({"card_id": str(uuid4()), "purchase_amount_cents": 500}, "card_not_found", False),
        ({"purchase_amount_cents": 500}, "one_card_name", False),
    ):
        assert same_refusal(shop, "points/preview", "points", body, recorded=recorded)["code"] == code
    spent = which | {"reward_id": "coffee"}
    for _ in range(2):
        assert shop.till.command("points/redeem", spent | {"staff_pin": PIN}).status_code == 200
    facts = same_refusal(shop, "points/preview", "points/redeem", spent)
    assert (facts["code"], facts["points_missing"]) == ("not_enough_points", 50)
    unknown = which | {"reward_id": "yacht"}
    assert same_refusal(shop, "points/preview", "points/redeem", unknown)["code"] == "reward_not_found"
    reverse = f"transactions/{purchase}/reverse"
    for body, code in (
        ({}, "points_already_spent"),
        ({"purchase_amount_cents": 2_501}, "more_than_is_left"),
        ({"purchase_amount_cents": 0}, "invalid_amount"),
    ):
        assert same_refusal(shop, f"{reverse}/preview", reverse, body)["code"] == code
    nothing = f"transactions/{uuid4()}-2/reverse"
    refused = same_refusal(shop, f"{nothing}/preview", nothing, {}, recorded=False)
    assert refused["code"] == "transaction_not_found"


def test_a_preview_goes_by_the_merchants_settings_and_the_program(served: Served) -> None:
    shop = served.shop()
    card, purchase = with_purchase(shop)
    body = {"card_id": card["id"], "purchase_amount_cents": 100}
    reverse = f"transactions/{purchase}/reverse"
    settings = ChangeSettings({"require_order_reference": True, "allow_reversals": False})
    served.handle(OnMerchant(settings), shop.shop.merchant)
    assert same_refusal(shop, "points/preview", "points", body)["code"] == "order_reference_required"
    assert same_refusal(shop, f"{reverse}/preview", reverse, {})["code"] == "reversals_not_allowed"
    served.handle(OnProgram(ChangeProgram({"active": False})), shop.shop.merchant)
    assert same_refusal(shop, "points/preview", "points", body)["code"] == "program_inactive"
    served.handle(OnProgram(ChangeProgram({"active": True, "type": ProgramType.STAMPS})), shop.shop.merchant)
    assert same_refusal(shop, "points/preview", "points", body)["code"] == "points_not_offered"


def test_a_preview_is_of_a_purchase_or_of_a_reward(shop: ServedShop) -> None:
    which = {"card_id": shop.enrol()["id"]}
    for more in (
        {},
        {"order_reference": "O-1"},
        {"purchase_amount_cents": 1, "reward_id": "coffee"},
        {"reward_id": "coffee", "order_reference": "O-1"},
    ):
        refusal(shop.till.post("points/preview", which | more), 400, "purchase_or_reward")


# ---- order references -----------------------------------------------------------------------------------------


def test_a_preview_of_an_order_that_was_used_answers_as_the_command_would(shop: ServedShop) -> None:
    card, other = shop.enrol(), shop.enrol()
    first = shop.earn(card, 2_500, order_reference="O-1")
    shop.earn(card, 100)
    body = {"card_id": card["id"], "purchase_amount_cents": 2_500, "order_reference": "O-1"}
    before = head(shop)
    told = foretold(shop.till.post("points/preview", body))
    assert told == {name: value for name, value in first.items() if name != "transaction_id"}
    for changed in ({"purchase_amount_cents": 2_501}, {"card_id": other["id"]}):
        facts = refusal(shop.till.post("points/preview", body | changed), 409, "order_reference_used")
        assert facts == {"transaction_id": first["transaction_id"]}
    assert head(shop) == before


def test_a_preview_leaves_its_order_unused(shop: ServedShop) -> None:
    card, other = shop.enrol(), shop.enrol()
    body = {"purchase_amount_cents": 100, "order_reference": "O-1"}
    foretold(shop.till.post("points/preview", body | {"card_id": card["id"]}))
    shop.earn(other, 100, order_reference="O-1")


# ---- expiry ---------------------------------------------------------------------------------------------------


def in_days(days: float) -> dict[str, str]:
    return {"at": (datetime.now(UTC) + timedelta(days=days)).isoformat()}


def test_a_preview_of_expiry_tells_what_would_be_left_by_then(served: Served) -> None:
    shop = served.shop(points_expiration_days=30, expiry_policy=ExpiryPolicy.EARNED)
    card, _ = with_purchase(shop)
    path = f"cards/{card['id']}/expiry/preview"
    before = head(shop)
    for body, expired in (({}, 0), ({"at": None}, 0), (in_days(29.9), 0), (in_days(30.1), 250), (in_days(9_000), 250)):
        told = foretold(shop.till.post(path, body))
        left = 250 - expired
        assert (told["points_expired"], told["points_balance"], told["card"]["points_balance"]) == (expired, left, left)
        assert (told["card"]["next_expiry"] is None) == (expired > 0)
    assert head(shop) == before


def test_a_time_that_has_passed_counts_as_now(served: Served) -> None:
    shop = served.shop(points_expiration_days=30)
    card, _ = with_purchase(shop)
    path = f"cards/{card['id']}/expiry/preview"
    for at in ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59-12:00", in_days(-1)["at"]):
        told = foretold(shop.till.post(path, {"at": at}))
        assert (told["points_expired"], told["points_balance"]) == (0, 250)


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59", "2300-01-01T00:00:00Z"])
def test_nobody_looks_further_ahead_than_a_hundred_years(shop: ServedShop, at: str) -> None:
    card, _ = with_purchase(shop)
    facts = refusal(shop.till.post(f"cards/{card['id']}/expiry/preview", {"at": at}), 400, "invalid_time")
    assert datetime.fromisoformat(facts["latest"]) > datetime.now(UTC) + timedelta(days=36_000)


def test_a_time_without_a_zone_is_none(shop: ServedShop) -> None:
    path = f"cards/{shop.enrol()['id']}/expiry/preview"
    for at in ("2026-03-02T11:00:00", "2026-03-02", "noon", 1_700_000_000):
        refusal(shop.till.post(path, {"at": at}), 400, "invalid_request")
