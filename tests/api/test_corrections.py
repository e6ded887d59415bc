"""Putting right what went wrong, as tills and managers ask for it: reversing, adjusting, stopping, ending, merging."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from ledger.actor import Caller, Role
from ledger.card import EarnPoints, ExpirePoints
from ledger.commands import OnCard, OnMerchant, WhichCard
from ledger.merchant import ChangeSettings, MerchantSettings, StaffPinPolicy
from ledger.program import ExpiryPolicy, ProgramType
from tests.served import OWN_CARD, Client, Served, ServedShop, answer_of, refusal
from tests.shop import PIN

MANAGERS_PIN = "5678"
WRONG_PIN = "9999"
REVERSED = {
    "transaction_id",
    "reverses",
    "points_reversed",
    "stamps_reversed",
    "points_balance",
    "stamp_count",
}


def done(response: httpx.Response) -> dict[str, Any]:
    """The answer of a command that went well."""
    assert response.status_code == 200, response.text
    assert int(response.headers["loyalty-position"]) > 0
    return answer_of(response)


def reverse(shop: ServedShop, transaction: str, *, by: Client | None = None, **body: Any) -> httpx.Response:
    """Asks for a reversal at the till, with a good PIN unless another is given."""
    return (by or shop.till).command(f"transactions/{transaction}/reverse", {"staff_pin": PIN} | body)


def merge(shop: ServedShop, source: dict[str, Any], target: dict[str, Any]) -> dict[str, Any]:
    return done(shop.manager.command(f"cards/{source['id']}/merge", {"into_card_id": target["id"]}))


def seen(shop: ServedShop, card: dict[str, Any]) -> dict[str, Any]:
    return answer_of(shop.till.get(f"cards/{card['id']}"))


def history(shop: ServedShop, card: dict[str, Any], limit: int = 200) -> list[dict[str, Any]]:
    """A card's transactions, newest first, read page by page."""
    items: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = answer_of(shop.till.get(f"cards/{card['id']}/transactions?limit={limit}{cursor}"))
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = f"&cursor={page['next_cursor']}"


# ---- reversing ------------------------------------------------------------------------------------------------


def test_a_purchase_is_reversed_whole(shop: ServedShop) -> None:
    card = shop.enrol()
    purchase = shop.earn(card, 2_500)["transaction_id"]
    shop.earn(card, 100)
    answer = done(reverse(shop, purchase, reason="Broken"))
    assert answer.keys() == REVERSED | {"card"}
    assert (answer["reverses"], answer["points_reversed"], answer["stamps_reversed"]) == (purchase, 250, 0)
    assert (answer["points_balance"], answer["stamp_count"]) == (10, 0)
    assert answer["card"] == seen(shop, card)
    newest = history(shop, card)[0]
    assert (newest["id"], newest["kind"], newest["reverses"]) == (answer["transaction_id"], "reversed", purchase)
    assert (newest["points"], newest["stamps"], newest["points_balance"]) == (-250, 0, 10)
    assert newest["purchase_amount_cents"] == 2_500
    assert newest["staff_name"] == "Alex"
    assert {item["reverses"] for item in history(shop, card)[1:]} == {None}
    refusal(reverse(shop, purchase), 409, "already_reversed")
    refusal(reverse(shop, answer["transaction_id"]), 409, "not_reversible")


def test_the_parts_of_a_purchase_add_up_to_the_whole(served: Served) -> None:
    shop = served.shop(points_per_euro=7)
    card = shop.enrol()
    purchase = shop.earn(card, 999)["transaction_id"]
    parts = [done(reverse(shop, purchase, purchase_amount_cents=333))["points_reversed"] for _ in range(2)]
    facts = refusal(reverse(shop, purchase, purchase_amount_cents=334), 409, "more_than_is_left")
    assert facts == {"purchase_amount_cents_left": 333}
    parts.append(done(reverse(shop, purchase))["points_reversed"])
    assert sum(parts) == 69
    assert seen(shop, card)["points_balance"] == 0
    refusal(reverse(shop, purchase, purchase_amount_cents=1), 409, "already_reversed")


def test_points_that_are_spent_are_taken_back_only_where_the_request_says_so(shop: ServedShop) -> None:
    card = shop.enrol()
    purchase = shop.earn(card, 1_500)["transaction_id"]
    done(shop.till.command("points/redeem", {"card_id": card["id"], "staff_pin": PIN, "reward_id": "coffee"}))
    facts = refusal(reverse(shop, purchase), 409, "points_already_spent")
    assert facts == {"points_balance": 50, "points_missing": 100}
    assert done(reverse(shop, purchase, allow_negative_balance=True))["points_balance"] == -100
    assert shop.earn(card, 1_500)["points_balance"] == 50


def test_redemptions_stamps_and_adjustments_are_reversed_whole(served: Served) -> None:
    shop = served.shop(stamps_target=1, cooldown_minutes=0)
    card = shop.enrol()
    shop.earn(card, 1_500)
    stamp = done(shop.stamp(card))["transaction_id"]
    which = {"card_id": card["id"], "staff_pin": PIN}
    spent = done(shop.till.command("points/redeem", which | {"reward_id": "coffee"}))["transaction_id"]
    given = done(shop.till.command("stamp/redeem", which))["transaction_id"]
    adjusted = done(shop.manager.command(f"cards/{card['id']}/adjust", {"points": 7, "stamps": 2, "reason": "x"}))
    told = [done(reverse(shop, transaction)) for transaction in (spent, given, stamp, adjusted["transaction_id"])]
    assert [(each["points_reversed"], each["stamps_reversed"]) for each in told] == [(100, 0), (0, 1), (0, 1), (7, 2)]
    assert (told[-1]["points_balance"], told[-1]["stamp_count"]) == (150, 0)
    refusal(reverse(shop, spent, purchase_amount_cents=1), 409, "already_reversed")
    refusal(reverse(shop, done(shop.stamp(card))["transaction_id"], purchase_amount_cents=1), 400, "not_a_purchase")


def test_a_reversal_is_replayed_byte_for_byte_and_its_key_is_good_for_nothing_else(shop: ServedShop) -> None:
    card = shop.enrol()
    purchase, other = (shop.earn(card, 1_000)["transaction_id"] for _ in range(2))
    path, body = f"transactions/{purchase}/reverse", {"staff_pin": PIN, "reason": "Broken"}
    first = shop.till.post(path, body, key="k")
    again = shop.till.post(path, body, key="k")
    assert (done(first), again.content) == (answer_of(again), first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["loyalty-position"] == first.headers["loyalty-position"]
    for changed in ({"reason": "Spoilt"}, {"purchase_amount_cents": 1_000}, {"allow_negative_balance": True}):
        refusal(shop.till.post(path, body | changed, key="k"), 422, "idempotency_key_reused")
    elsewhere = shop.till.post(f"transactions/{other}/reverse", body, key="k")
    refusal(elsewhere, 422, "idempotency_key_reused")
    refusal(shop.till.post(path, body), 400, "idempotency_key_required")
    assert seen(shop, card)["points_balance"] == 100


def test_what_is_no_transaction_of_the_merchants_is_not_found(served: Served, shop: ServedShop) -> None:
    neighbour = served.shop()
    theirs = neighbour.earn(neighbour.enrol(), 1_000)["transaction_id"]
    card = shop.enrol()
    mine = shop.earn(card, 1_000)["transaction_id"]
    names = [theirs, f"{uuid4()}-1", f"{card['id']}-3", f"{card['id']}-0", f"{shop.shop.staff_id}-1"]
    names += [f"{shop.merchant_id}-1", f"{shop.shop.till.id}-1", card["id"], f"{mine}.", f"-{mine}"]
    names += [f"{card['id']}-02", f"{card['id']}-{'9' * 30}", f"{card['id']}--2", mine.replace("-", ""), "2", "-2"]
    names += [f"{card['id']}-\u0662", f"{card['id']}-2\n", f"{{{card['id']}}}-2", f"urn:uuid:{mine}"]
    answers = set()
    for name in names:
        for caller in (shop.till, shop.manager):
            response = reverse(shop, quoted(name), by=caller)
            refusal(response, 404, "transaction_not_found")
            answers.add(response.content)
    assert len(answers) == 1
    assert seen(shop, card)["points_balance"] == 100


def quoted(name: str) -> str:
    """A name as it stands in an address."""
    return "".join(f"%{byte:02x}" if byte in b" \n{}" or byte > 126 else chr(byte) for byte in name.encode())


def test_an_order_reference_stays_used_after_a_reversal(shop: ServedShop) -> None:
    card = shop.enrol()
    body = {"card_id": card["id"], "staff_pin": PIN, "purchase_amount_cents": 1_000, "order_reference": "O-1"}
    first = shop.till.command("points", body)
    done(reverse(shop, answer_of(first)["transaction_id"]))
    again = shop.till.command("points", body)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    facts = refusal(shop.till.command("points", body | {"purchase_amount_cents": 1}), 409, "order_reference_used")
    assert facts == {"transaction_id": answer_of(first)["transaction_id"]}
    assert seen(shop, card)["points_balance"] == 0


def test_a_merchant_may_forbid_reversals(served: Served, shop: ServedShop) -> None:
    purchase = shop.earn(shop.enrol(), 1_000)["transaction_id"]
    served.handle(OnMerchant(ChangeSettings({"allow_reversals": False})), shop.shop.merchant)
    for caller in (shop.till, shop.manager):
        refusal(reverse(shop, purchase, by=caller), 403, "reversals_not_allowed")


def test_the_card_that_came_to_an_end_takes_no_reversal(shop: ServedShop) -> None:
    card = shop.enrol()
    purchase = shop.earn(card, 1_000)["transaction_id"]
    done(shop.manager.post(f"cards/{card['id']}/suspend", {}))
    assert done(reverse(shop, purchase, purchase_amount_cents=500))["card"]["status"] == "suspended"
    done(shop.manager.post(f"cards/{card['id']}/close", {}))
    assert refusal(reverse(shop, purchase), 409, "card_not_active") == {"card_status": "closed"}


# ---- who may reverse ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", StaffPinPolicy)
def test_a_merchant_may_leave_reversals_to_managers(served: Served, policy: StaffPinPolicy) -> None:
    shop = served.shop(settings=MerchantSettings(reversals_need_manager=True, staff_pin_policy=policy))
    kim = shop.manager.post("pins", {"name": "Kim", "pin": MANAGERS_PIN, "role": "manager"})
    assert kim.status_code == 201
    card = shop.enrol()
    purchases = [shop.earn(card, 1_000)["transaction_id"] for _ in range(3)]
    path = f"transactions/{purchases[0]}/reverse"
    refusal(shop.till.command(path, {}), 403, "manager_pin_required")
    refusal(shop.till.command(path, {"staff_pin": PIN}), 403, "manager_pin_required")
    refusal(shop.till.command(path, {"staff_id": kim.json()["id"]}), 403, "manager_pin_required")
    wrong = {"staff_pin": WRONG_PIN, "staff_id": kim.json()["id"]}
    assert refusal(shop.till.command(path, wrong), 403, "pin_invalid") == {"attempts_left": 4}
    assert shop.manager.get(f"pins/{kim.json()['id']}").json()["failed_attempts"] == 1
    done(shop.till.command(path, {"staff_pin": MANAGERS_PIN}))
    assert history(shop, card)[0]["staff_name"] == "Kim"
    named = {"staff_pin": MANAGERS_PIN, "staff_id": kim.json()["id"]}
    done(shop.till.command(f"transactions/{purchases[1]}/reverse", named))
    done(shop.manager.command(f"transactions/{purchases[2]}/reverse", {}))
    for _ in range(4):
        refusal(shop.till.command(path, wrong), 403, "pin_invalid")
    assert refusal(shop.till.command(path, wrong), 403, "pin_invalid")["attempts_left"] == 0
    refusal(shop.till.command(path, named), 423, "pin_locked")


# ---- adjusting ------------------------------------------------------------------------------------------------


def adjust(shop: ServedShop, card: dict[str, Any], **body: Any) -> httpx.Response:
    return shop.manager.command(f"cards/{card['id']}/adjust", {"reason": "Miscounted"} | body)


def test_a_manager_adjusts_balances_but_never_below_zero(shop: ServedShop) -> None:
    card = shop.enrol()
    answer = done(adjust(shop, card, points=50, stamps=3))
    assert answer.keys() == {"transaction_id", "points_balance", "stamp_count", "card"}
    assert (answer["points_balance"], answer["stamp_count"]) == (50, 3)
    newest = history(shop, card)[0]
    assert (newest["id"], newest["kind"]) == (answer["transaction_id"], "adjusted")
    assert (newest["points"], newest["stamps"]) == (50, 3)
    assert "Miscounted" not in str(newest)
    assert done(adjust(shop, card, points=-20, stamps=-1))["card"]["points_balance"] == 30
    facts = refusal(adjust(shop, card, points=-31), 409, "not_enough_points")
    assert facts == {"points_balance": 30, "points_missing": 1}
    assert refusal(adjust(shop, card, stamps=-3), 409, "not_enough_stamps")["stamps_missing"] == 1
    refusal(adjust(shop, card), 400, "nothing_to_adjust")
    for body in ({"points": 1_000_000_001}, {"stamps": -1_001}, {"points": 1, "reason": ""}, {"reason": None}):
        refusal(adjust(shop, card, **body), 400, "invalid_request")


def test_nobody_is_given_what_the_program_does_not_collect(served: Served) -> None:
    points, stamps = served.shop(type=ProgramType.POINTS), served.shop(type=ProgramType.STAMPS)
    refusal(adjust(points, points.enrol(), stamps=1), 409, "stamps_not_offered")
    refusal(adjust(stamps, stamps.enrol(), points=1), 409, "points_not_offered")


# ---- stopping and ending --------------------------------------------------------------------------------------


def test_a_suspended_card_takes_part_again_once_it_is_reactivated(shop: ServedShop) -> None:
    card = shop.enrol()
    path, which = f"cards/{card['id']}", {"card_id": card["id"], "staff_pin": PIN}
    suspended = done(shop.manager.post(f"{path}/suspend", {"reason": "Lost"}))
    assert suspended == card | {"status": "suspended"} == seen(shop, card)
    assert done(shop.manager.post(f"{path}/suspend", {})) == suspended
    for command in ("stamp", "points", "points/preview"):
        body = which if command == "stamp" else which | {"purchase_amount_cents": 100}
        assert refusal(shop.till.command(command, body), 409, "card_not_active") == {"card_status": "suspended"}
    assert done(shop.till.post("cards/enroll", {"customer_id": card["customer_id"]})) == suspended
    assert done(shop.manager.post(f"{path}/reactivate", {"reason": "Found"})) == card
    assert shop.earn(card, 100)["points_balance"] == 10
    assert [item["kind"] for item in history(shop, card)] == ["points_earned", "enrolled"]


def test_a_closed_card_stays_closed_and_its_customer_may_enrol_again(shop: ServedShop) -> None:
    card = shop.enrol("C-1")
    shop.earn(card, 100)
    first = shop.manager.post(f"cards/{card['id']}/close", {"reason": "Moved away"}, key="k")
    closed = done(first)
    assert (closed["status"], closed["points_balance"], closed["merged_into"]) == ("closed", 10, None)
    assert done(shop.manager.post(f"cards/{card['id']}/close", {})) == closed
    refusal(shop.manager.post(f"cards/{card['id']}/reactivate", {}), 409, "card_not_active")
    refusal(shop.manager.post(f"cards/{card['id']}/suspend", {}), 409, "card_not_active")
    refusal(adjust(shop, card, points=1), 409, "card_not_active")
    refusal(shop.stamp(card), 409, "card_not_active")
    refusal(shop.customer("C-1").get(OWN_CARD), 404, "card_not_found")
    anew = shop.enrol("C-1")
    assert anew["id"] != card["id"]
    assert shop.customer("C-1").get(OWN_CARD).json() == anew
    assert done(shop.till.post("cards/lookup", {"qr_code": card["qr_code"]})) == closed
    again = shop.manager.post(f"cards/{card['id']}/close", {"reason": "Moved away"}, key="k")
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert done(shop.till.post("cards/enroll", {"customer_id": "C-1"})) == anew


# ---- merging --------------------------------------------------------------------------------------------------


def test_every_name_of_a_merged_card_reaches_the_new_one(served: Served) -> None:
    shop = served.shop(cooldown_minutes=0)
    old, new = shop.enrol("C-1"), shop.enrol("C-2")
    shop.earn(old, 1_000)
    done(shop.stamp(old))
    shop.earn(new, 500)
    answer = merge(shop, old, new)
    assert answer.keys() == {"transaction_id", "points", "stamps", "card"}
    assert (answer["points"], answer["stamps"], answer["card"]["points_balance"]) == (100, 1, 150)
    closed = seen(shop, old)
    assert (closed["status"], closed["merged_into"]) == ("closed", new["id"])
    assert (closed["points_balance"], closed["stamp_count"], closed["next_expiry"]) == (0, 0, None)
    assert (closed["card_number"], closed["qr_code"]) == (old["card_number"], old["qr_code"])
    for number, name in enumerate(("id", "qr_code", "card_number"), start=1):
        which = {"card_id" if name == "id" else name: old[name]}
        assert done(shop.till.post("cards/lookup", which)) == seen(shop, new)
        for command, more in (("points", {"purchase_amount_cents": 100}), ("stamp", {})):
            told = done(shop.till.command(command, which | more | {"staff_pin": PIN}))
            assert (told["card"]["id"], told["card"]["points_balance"]) == (new["id"], 150 + 10 * number)
    for reference in ("C-1", "C-2"):
        assert done(shop.till.post("cards/enroll", {"customer_id": reference})) == seen(shop, new)
        assert shop.customer(reference).get(OWN_CARD).json() == seen(shop, new)
        link = shop.card_link(reference)
        assert served.client().get(f"{OWN_CARD}?link={link}").json() == seen(shop, new)
    office = [
        shop.manager.command(f"cards/{old['id']}/merge", {"into_card_id": new["id"]}),
        shop.manager.command(f"cards/{old['id']}/adjust", {"points": 1, "reason": "x"}),
        *(shop.manager.post(f"cards/{old['id']}/{status}", {}) for status in ("suspend", "reactivate", "close")),
    ]
    for response in office:
        assert refusal(response, 409, "card_merged") == {"merged_into": new["id"]}
    assert (seen(shop, new)["points_balance"], seen(shop, new)["stamp_count"]) == (180, 4)


def test_the_history_of_merged_cards_is_one_in_the_order_of_the_log(shop: ServedShop) -> None:
    first, second, third = shop.enrol(), shop.enrol(), shop.enrol()
    for card in (first, third, second, first, second, third):
        shop.earn(card, 100)
    merge(shop, first, second)
    shop.earn(first, 100)
    shop.earn(third, 100)
    merge(shop, second, third)
    shop.earn(first, 100)
    whole = history(shop, third)
    assert [item["position"] for item in whole] == sorted({item["position"] for item in whole}, reverse=True)
    assert len({item["id"] for item in whole}) == len(whole) == 3 + 6 + 3 + 4
    assert {item["id"].rpartition("-")[0] for item in whole} == {card["id"] for card in (first, second, third)}
    assert sum(item["points"] for item in whole) == whole[0]["points_balance"] == 90
    assert [item["kind"] for item in whole].count("merged") == 4
    for limit in (1, 2, 3, 5):
        assert history(shop, third, limit) == whole
    assert [item["kind"] for item in history(shop, first)] == ["merged", "points_earned", "points_earned", "enrolled"]
    assert {item["id"] for item in history(shop, first)} < {item["id"] for item in whole}


def test_what_was_sent_before_a_merge_is_answered_after_it_as_then(shop: ServedShop) -> None:
    old, new = shop.enrol(), shop.enrol()
    body = {"qr_code": old["qr_code"], "staff_pin": PIN, "purchase_amount_cents": 100, "order_reference": "O-1"}
    first = shop.till.post("points", body, key="k")
    merging = shop.manager.post(f"cards/{old['id']}/merge", {"into_card_id": new["id"]}, key="m")
    for sent, key in ((body, "k"), (body, "other"), (body | {"qr_code": new["qr_code"]}, "another")):
        again = shop.till.post("points", sent, key=key)
        assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    again = shop.manager.post(f"cards/{old['id']}/merge", {"into_card_id": new["id"]}, key="m")
    assert (again.content, again.headers["idempotency-replayed"]) == (merging.content, "true")
    assert again.headers["loyalty-position"] == merging.headers["loyalty-position"]
    assert seen(shop, new)["points_balance"] == 10


def test_what_happened_before_two_merges_is_reversed_on_the_last_card(shop: ServedShop) -> None:
    first, second, third = shop.enrol(), shop.enrol(), shop.enrol()
    purchase = shop.earn(first, 2_000)["transaction_id"]
    spent = done(shop.till.command("points/redeem", {"card_id": first["id"], "staff_pin": PIN, "reward_id": "coffee"}))[
        "transaction_id"
    ]
    done(reverse(shop, purchase, purchase_amount_cents=500))
    merge(shop, first, second)
    done(reverse(shop, purchase, purchase_amount_cents=500))
    merge(shop, second, third)
    back = done(reverse(shop, spent))
    assert (back["card"]["id"], back["reverses"], back["points_reversed"]) == (third["id"], spent, 100)
    assert back["transaction_id"].startswith(third["id"])
    facts = refusal(reverse(shop, purchase, purchase_amount_cents=1_001), 409, "more_than_is_left")
    assert facts == {"purchase_amount_cents_left": 1_000}
    rest = done(reverse(shop, purchase))
    assert (rest["card"]["id"], rest["points_reversed"], rest["points_balance"]) == (third["id"], 100, 0)
    for transaction in (purchase, spent):
        refusal(reverse(shop, transaction), 409, "already_reversed")
    reversals = [item for item in history(shop, third) if item["kind"] == "reversed"]
    assert [item["reverses"] for item in reversals] == [purchase, spent, purchase, purchase]


def test_cards_are_merged_only_into_open_cards_of_the_merchant(served: Served, shop: ServedShop) -> None:
    card, closed, suspended = shop.enrol(), shop.enrol(), shop.enrol()
    done(shop.manager.post(f"cards/{closed['id']}/close", {}))
    done(shop.manager.post(f"cards/{suspended['id']}/suspend", {}))
    path = f"cards/{card['id']}/merge"
    for other in (served.shop().enrol()["id"], str(uuid4()), str(shop.merchant_id), str(shop.shop.staff_id)):
        refusal(shop.manager.command(path, {"into_card_id": other}), 404, "card_not_found")
    for other, status in ((closed, "closed"), (suspended, "suspended")):
        response = shop.manager.command(path, {"into_card_id": other["id"]})
        assert refusal(response, 409, "card_not_active") == {"card_status": status}
    refusal(shop.manager.command(path, {"into_card_id": card["id"]}), 409, "same_card")
    assert seen(shop, card) == card


# ---- expiry ---------------------------------------------------------------------------------------------------


def long_ago(shop: ServedShop, card: dict[str, Any], cents: int, days: int) -> None:
    """A purchase that a till sends late."""
    command = OnCard(which=WhichCard(card_id=UUID(card["id"])), command=EarnPoints(cents))
    clerk = Caller(role=Role.MANAGER, id=uuid4(), merchant_id=shop.merchant_id, store_id=shop.shop.store_id)
    when = datetime.now(UTC) - timedelta(days=days)
    shop.served.run(shop.served.parts.ledger.handle(command, clerk, occurred_at=when))


def test_points_that_ended_are_on_no_answer_whether_the_night_has_taken_them_or_not(served: Served) -> None:
    shop = served.shop(points_expiration_days=30, expiry_policy=ExpiryPolicy.EARNED)
    card = shop.enrol()
    for days in (40, 10):
        long_ago(shop, card, 1_000, days)
    before = seen(shop, card)
    assert before["points_balance"] == 100
    operator = Caller(role=Role.OPERATOR, id=UUID(int=1), merchant_id=shop.merchant_id)
    for _ in range(2):
        served.handle(OnCard(which=WhichCard(card_id=UUID(card["id"])), command=ExpirePoints()), operator)
        assert seen(shop, card) == before
    expired, *_ = history(shop, card)
    assert (expired["kind"], expired["points"], expired["points_balance"]) == ("points_expired", -100, 100)
    # Nothing ends before the program said that it would.
    assert expired["occurred_at"] == answer_of(shop.till.get("program"))["changed_at"] < expired["recorded_at"]
    assert (expired["terminal_id"], expired["staff_name"], expired["order_reference"]) == (None, None, None)
    assert [item["kind"] for item in history(shop, card)].count("points_expired") == 1


def test_every_answer_with_a_card_says_what_ends_next(served: Served) -> None:
    shop = served.shop(points_expiration_days=30)
    card, other = shop.enrol("C-1"), shop.enrol()
    which = {"card_id": card["id"], "staff_pin": PIN}
    purchase = shop.earn(card, 5_000)
    cards = [
        purchase["card"],
        done(shop.stamp(card))["card"],
        done(shop.till.command("points/redeem", which | {"reward_id": "coffee"}))["card"],
        done(reverse(shop, purchase["transaction_id"], purchase_amount_cents=10))["card"],
        done(adjust(shop, card, points=1))["card"],
        done(shop.manager.post(f"cards/{card['id']}/suspend", {})),
        done(shop.manager.post(f"cards/{card['id']}/reactivate", {})),
        merge(shop, other, card)["card"],
        done(shop.till.post("cards/enroll", {"customer_id": "C-1"})),
        done(shop.till.post("cards/lookup", {"card_number": other["card_number"]})),
        answer_of(shop.customer("C-1").get(OWN_CARD)),
        *(each for each in answer_of(shop.till.get("cards"))["items"] if each["id"] == card["id"]),
    ]
    assert len(cards) == 12
    for each in cards:
        assert each["next_expiry"]["points"] == each["points_balance"]
        ends = datetime.fromisoformat(each["next_expiry"]["at"])
        assert ends == datetime.fromisoformat(each["last_activity_at"]) + timedelta(days=30)
