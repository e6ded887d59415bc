"""What a till asks for and is told: the names on the wire, the amounts, and the facts of refusals."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ledger.card_plans import luhn_digit
from ledger.commands import OnMerchant, OnProgram
from ledger.merchant import ChangeSettings, MerchantSettings, StaffPinPolicy
from ledger.program import ChangeProgram, ProgramType
from tests.served import STORE, Served, ServedShop, answer_of, refusal
from tests.shop import PIN

CARD = {
    "id",
    "card_number",
    "qr_code",
    "customer_id",
    "status",
    "stamp_count",
    "stamps_target",
    "points_balance",
    "next_expiry",
    "passes",
    "enrolled_at",
    "last_activity_at",
    "merged_into",
}
COMMANDS = ("stamp", "stamp/redeem", "points", "points/redeem")


def body_for(path: str, **which: Any) -> dict[str, Any]:
    """A whole request for one of the commands about a card."""
    more: dict[str, dict[str, Any]] = {
        "points": {"purchase_amount_cents": 100},
        "points/redeem": {"reward_id": "coffee"},
    }
    return {"staff_pin": PIN, **more.get(path, {}), **which}


def done(response: httpx.Response) -> dict[str, Any]:
    """The answer of a command that went well."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["loyalty-position"]) > 0
    return answer_of(response)


# ---- enrolling and finding ------------------------------------------------------------------------------------


def test_a_new_card_is_answered_whole_with_its_address(shop: ServedShop) -> None:
    person = {"customer_id": "C-1", "name": "Ada", "email": "ada@example.com", "phone": "+352 621 1", "locale": "fr"}
    response = shop.till.post("cards/enroll", person)
    assert response.status_code == 201
    card = answer_of(response)
    assert card.keys() == CARD
    assert (card["customer_id"], card["status"]) == ("C-1", "active")
    assert (card["stamp_count"], card["stamps_target"], card["points_balance"]) == (0, 10, 0)
    assert card["passes"] == {"apple_url": None, "google_save_url": None}
    assert card["next_expiry"] is None
    assert len(card["card_number"]) == 12
    assert card["card_number"][-1] == luhn_digit(card["card_number"][:-1])
    assert len(bytes.fromhex(card["qr_code"])) >= 16
    assert card["enrolled_at"] == card["last_activity_at"]
    assert datetime.fromisoformat(card["enrolled_at"]).utcoffset() == timedelta(0)
    assert response.headers["location"] == f"{STORE}/cards/{card['id']}"
    assert shop.till.get(response.headers["location"]).json() == card


def test_enrolling_again_answers_the_same_card_with_200(shop: ServedShop) -> None:
    card = shop.enrol("C-1")
    again = shop.till.post("cards/enroll", {"customer_id": "C-1", "name": "Somebody else"})
    assert done(again) == card
    assert "location" not in again.headers


def test_a_reference_is_made_up_where_none_is_given(shop: ServedShop) -> None:
    first, second = (answer_of(shop.till.post("cards/enroll", {})) for _ in range(2))
    assert first["customer_id"] != second["customer_id"]
    assert 1 <= len(first["customer_id"]) <= 64


def test_a_reference_has_at_most_64_characters(shop: ServedShop) -> None:
    assert shop.till.post("cards/enroll", {"customer_id": "é" * 64}).status_code == 201
    refusal(shop.till.post("cards/enroll", {"customer_id": "é" * 65}), 400, "invalid_request")


def test_a_card_is_found_by_each_of_its_names(shop: ServedShop) -> None:
    card = shop.enrol()
    for which in ({"card_id": card["id"]}, {"qr_code": card["qr_code"]}, {"card_number": card["card_number"]}):
        assert done(shop.till.post("cards/lookup", which)) == card
        assert done(shop.till.command("points", body_for("points", **which)))["card"]["id"] == card["id"]
        card = answer_of(shop.till.get(f"cards/{card['id']}"))


@pytest.mark.parametrize("path", [*COMMANDS, "cards/lookup"])
def test_a_request_names_exactly_one_card(shop: ServedShop, path: str) -> None:
    card = shop.enrol()
    names = {"card_id": card["id"], "qr_code": card["qr_code"], "card_number": card["card_number"]}
    for given in ((), ("card_id", "qr_code"), ("qr_code", "card_number"), tuple(names)):
        which = {name: names[name] for name in given}
        body = which if path == "cards/lookup" else body_for(path, **which)
        refusal(shop.till.command(path, body), 400, "one_card_name")


# ---- the requests of the contract -----------------------------------------------------------------------------


def test_the_stamp_request_of_the_contract_works_as_it_is(shop: ServedShop) -> None:
    card = shop.enrol()
    answer = done(shop.till.command("stamp", {"qr_code": card["qr_code"], "staff_pin": "1234"}))
    assert answer.keys() == {
        "transaction_id",
        "stamp_count",
        "stamps_target",
        "reward_earned",
        "next_stamp_available_at",
        "stamps_today",
        "card",
    }
    assert (answer["stamp_count"], answer["stamps_target"], answer["stamps_today"]) == (1, 10, 1)
    assert answer["reward_earned"] is False
    assert answer["card"].keys() == CARD
    assert answer["card"]["stamp_count"] == 1
    at = datetime.fromisoformat(answer["card"]["last_activity_at"])
    assert datetime.fromisoformat(answer["next_stamp_available_at"]) == at + timedelta(minutes=15)


def test_the_points_request_of_the_contract_works_as_it_is(shop: ServedShop) -> None:
    card = shop.enrol()
    request = {
        "card_number": card["card_number"],
        "purchase_amount_cents": 2500,
        "order_reference": "ORD-12345",
        "staff_pin": "1234",
    }
    answer = done(shop.till.command("points", request))
    assert answer.keys() == {"transaction_id", "points_earned", "points_balance", "card"}
    assert (answer["points_earned"], answer["points_balance"], answer["card"]["points_balance"]) == (250, 250, 250)


def test_a_staff_member_may_be_named_with_the_pin(shop: ServedShop) -> None:
    card = shop.enrol()
    body = body_for("points", card_id=card["id"], staff_id=str(shop.shop.staff_id))
    assert done(shop.till.command("points", body))["points_earned"] == 10
    refusal(shop.till.command("points", body | {"staff_id": str(uuid4())}), 403, "pin_invalid")


# ---- stamps ---------------------------------------------------------------------------------------------------


def test_a_reward_is_earned_at_each_multiple_of_the_target(served: Served) -> None:
    shop = served.shop(stamps_target=2, cooldown_minutes=0)
    card = shop.enrol()
    answers = [done(shop.stamp(card)) for _ in range(4)]
    assert [answer["reward_earned"] for answer in answers] == [False, True, False, True]
    assert [answer["stamp_count"] for answer in answers] == [1, 2, 3, 4]
    assert [answer["next_stamp_available_at"] for answer in answers] == [None] * 4


def test_redeemed_stamps_are_the_targets_and_what_is_over_stays(served: Served) -> None:
    shop = served.shop(stamps_target=2, cooldown_minutes=0)
    card = shop.enrol()
    for _ in range(3):
        done(shop.stamp(card))
    answer = done(shop.till.command("stamp/redeem", body_for("stamp/redeem", card_id=card["id"])))
    assert answer.keys() == {"transaction_id", "stamps_spent", "stamp_count", "card"}
    assert (answer["stamps_spent"], answer["stamp_count"], answer["card"]["stamp_count"]) == (2, 1, 1)
    facts = refusal(
        shop.till.command("stamp/redeem", body_for("stamp/redeem", card_id=card["id"])), 409, "not_enough_stamps"
    )
    assert facts == {"stamp_count": 1, "stamps_target": 2, "stamps_missing": 1}


def test_a_stamp_too_soon_is_told_when_the_next_is_due(shop: ServedShop) -> None:
    card = shop.enrol()
    due = done(shop.stamp(card))["next_stamp_available_at"]
    assert refusal(shop.stamp(card), 409, "stamp_cooldown") == {"next_stamp_available_at": due}


def test_a_stamp_past_the_days_limit_is_told_when_the_day_ends(served: Served) -> None:
    shop = served.shop(cooldown_minutes=0, max_daily_stamps=2)
    card = shop.enrol()
    first, last = done(shop.stamp(card)), done(shop.stamp(card))
    assert (first["next_stamp_available_at"], last["stamps_today"]) == (None, 2)
    facts = refusal(shop.stamp(card), 409, "daily_stamp_limit")
    assert facts == {
        "stamps_today": 2,
        "max_daily_stamps": 2,
        "next_stamp_available_at": last["next_stamp_available_at"],
    }


def test_programs_refuse_what_they_do_not_offer(served: Served) -> None:
    points, stamps = served.shop(type=ProgramType.POINTS), served.shop(type=ProgramType.STAMPS)
    card = points.enrol()
    for path in ("stamp", "stamp/redeem"):
        response = points.till.command(path, body_for(path, card_id=card["id"]))
        assert refusal(response, 409, "stamps_not_offered") == {"program_type": "points"}
    card = stamps.enrol()
    for path in ("points", "points/redeem"):
        response = stamps.till.command(path, body_for(path, card_id=card["id"]))
        assert refusal(response, 409, "points_not_offered") == {"program_type": "stamps"}


# ---- points ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cents", "points"), [(0, 0), (9, 0), (10, 1), (99, 9), (100, 10), (12_345, 1_234), (100_000_000, 10_000_000)]
)
def test_points_are_the_amount_times_the_rate_rounded_down(shop: ServedShop, cents: int, points: int) -> None:
    card = shop.enrol()
    assert shop.earn(card, cents)["points_earned"] == points
    (newest,) = answer_of(shop.till.get(f"cards/{card['id']}/transactions?limit=1"))["items"]
    assert (newest["kind"], newest["purchase_amount_cents"], newest["points"]) == ("points_earned", cents, points)


@pytest.mark.parametrize("cents", [-1, 100_000_001, 10**18, 10**30])
def test_an_amount_outside_its_limits_is_refused(shop: ServedShop, cents: int) -> None:
    card = shop.enrol()
    body = body_for("points", card_id=card["id"], purchase_amount_cents=cents)
    refusal(shop.till.command("points", body), 400, "invalid_request")


def test_a_purchase_below_the_minimum_is_told_the_minimum(served: Served) -> None:
    shop = served.shop(minimum_purchase_cents=500)
    card = shop.enrol()
    body = body_for("points", card_id=card["id"], purchase_amount_cents=499)
    assert refusal(shop.till.command("points", body), 409, "purchase_below_minimum") == {"minimum_purchase_cents": 500}
    assert shop.earn(card, 500)["points_earned"] == 50


def test_redeemed_points_are_the_rewards_price(shop: ServedShop) -> None:
    card = shop.enrol()
    shop.earn(card, 1_500)
    answer = done(shop.till.command("points/redeem", body_for("points/redeem", card_id=card["id"])))
    assert answer.keys() == {"transaction_id", "points_spent", "points_balance", "card"}
    assert (answer["points_spent"], answer["points_balance"], answer["card"]["points_balance"]) == (100, 50, 50)
    facts = refusal(
        shop.till.command("points/redeem", body_for("points/redeem", card_id=card["id"])), 409, "not_enough_points"
    )
    assert facts == {"points_balance": 50, "points_cost": 100, "points_missing": 50}


def test_a_reward_that_the_program_has_not_is_refused(shop: ServedShop) -> None:
    card = shop.enrol()
    body = body_for("points/redeem", card_id=card["id"], reward_id="yacht")
    assert refusal(shop.till.command("points/redeem", body), 404, "reward_not_found") == {"reward_id": "yacht"}


def test_a_card_tells_what_expires_next(served: Served) -> None:
    shop = served.shop(points_expiration_days=30)
    card = shop.enrol()
    answered = shop.earn(card, 1_000)["card"]
    at = datetime.fromisoformat(answered["last_activity_at"]) + timedelta(days=30)
    assert answered["next_expiry"].keys() == {"points", "at"}
    assert answered["next_expiry"]["points"] == 100
    assert datetime.fromisoformat(answered["next_expiry"]["at"]) == at


def test_a_welcome_bonus_is_on_the_card_and_in_its_history(served: Served) -> None:
    shop = served.shop(welcome_bonus_points=50)
    card = shop.enrol()
    assert card["points_balance"] == 50
    items = answer_of(shop.till.get(f"cards/{card['id']}/transactions"))["items"]
    assert [(item["kind"], item["points"], item["points_balance"]) for item in items] == [
        ("points_earned", 50, 50),
        ("enrolled", 0, 0),
    ]


# ---- order references -----------------------------------------------------------------------------------------


def test_an_order_under_another_key_answers_the_first_result(shop: ServedShop) -> None:
    card = shop.enrol()
    body = body_for("points", card_number=card["card_number"], order_reference="ORD-1")
    first = shop.till.command("points", body)
    again = shop.till.command("points", body | {"staff_pin": PIN})
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["loyalty-position"] == first.headers["loyalty-position"]
    assert answer_of(shop.till.get(f"cards/{card['id']}"))["points_balance"] == 10


def test_an_order_with_another_amount_or_card_is_told_the_first_transaction(shop: ServedShop) -> None:
    card, other = shop.enrol(), shop.enrol()
    first = shop.earn(card, 100, order_reference="ORD-1")
    for changed in ({"purchase_amount_cents": 200}, {"card_id": other["id"]}):
        body = body_for("points", card_id=card["id"], order_reference="ORD-1") | changed
        facts = refusal(shop.till.command("points", body), 409, "order_reference_used")
        assert facts == {"transaction_id": first["transaction_id"]}


def test_an_order_reference_is_wanted_where_the_merchant_says_so(shop: ServedShop) -> None:
    card = shop.enrol()
    shop.served.handle(OnMerchant(ChangeSettings({"require_order_reference": True})), shop.shop.merchant)
    body = body_for("points", card_id=card["id"])
    refusal(shop.till.command("points", body), 400, "order_reference_required")
    done(shop.till.command("points", body | {"order_reference": "ORD-1"}))


# ---- who ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMMANDS)
def test_a_pin_is_asked_for_where_the_program_wants_one(shop: ServedShop, path: str) -> None:
    body = body_for(path, card_id=shop.enrol()["id"])
    del body["staff_pin"]
    refusal(shop.till.command(path, body), 403, "staff_pin_required")


def test_the_merchant_may_leave_it_to_the_program_to_ask_for_a_pin(served: Served) -> None:
    settings = MerchantSettings(staff_pin_policy=StaffPinPolicy.OPTIONAL)
    relaxed, strict = (served.shop(settings=settings, require_staff_pin=wanted) for wanted in (False, True))
    for shop in (relaxed, strict):
        body = body_for("points", card_id=shop.enrol()["id"])
        del body["staff_pin"]
        if shop is relaxed:
            assert done(shop.till.command("points", body))["points_earned"] == 10
        else:
            refusal(shop.till.command("points", body), 403, "staff_pin_required")


def test_a_manager_needs_no_pin(shop: ServedShop) -> None:
    body = body_for("points", card_id=shop.enrol()["id"])
    del body["staff_pin"]
    assert done(shop.manager.command("points", body))["points_earned"] == 10


def test_an_inactive_program_gives_nothing(shop: ServedShop) -> None:
    card = shop.enrol()
    shop.served.handle(OnProgram(ChangeProgram({"active": False})), shop.shop.merchant)
    for path in COMMANDS:
        refusal(shop.till.command(path, body_for(path, card_id=card["id"])), 409, "program_inactive")
    refusal(shop.till.post("cards/enroll", {}), 409, "program_inactive")


def test_a_transactions_id_is_the_one_in_the_cards_history(shop: ServedShop) -> None:
    card = shop.enrol()
    answers = [shop.earn(card, 2_000), done(shop.stamp(card))]
    items = answer_of(shop.till.get(f"cards/{card['id']}/transactions"))["items"]
    assert [item["id"] for item in items[:2]] == [answer["transaction_id"] for answer in reversed(answers)]
