"""Points, to the cent."""

from datetime import timedelta
from typing import Any

import pytest

from ledger.card import RedeemPoints, points_for
from ledger.lots import Lot, LotName
from ledger.merchant import MerchantSettings
from ledger.program import ExpiryPolicy, ProgramType, Reward
from tests.ledger.cards import ONE_DAY, a_card, bonus, earned, facts, part, points_redeemed, purchase, stamped
from tests.ledger.specification import at
from tests.shop import NOON, rules

DATED: dict[str, Any] = {"points_expiration_days": 10, "expiry_policy": ExpiryPolicy.EARNED}
IN_TEN_DAYS = NOON + 10 * ONE_DAY

# ---- points: earning ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cents", "points_per_euro", "points"),
    [
        (0, 10, 0),
        (1, 10, 0),
        (9, 10, 0),
        (10, 10, 1),
        (19, 10, 1),
        (2500, 10, 250),
        (2509, 10, 250),
        (99, 1, 0),
        (100, 1, 1),
        (101, 1, 1),
        (33, 3, 0),
        (34, 3, 1),
        (1, 100, 1),
        (100_000_000, 0, 0),
        (100_000_000, 10, 10_000_000),
        (99_999_999, 1, 999_999),
        (100_000_000, 100_000, 100_000_000_000),
    ],
)
def test_a_purchase_earns_whole_points_rounded_down(cents: int, points_per_euro: int, points: int) -> None:
    assert points_for(cents, rules(points_per_euro=points_per_euro)) == points
    a_card(earned(5, 5)).when(purchase(cents), facts(points_per_euro=points_per_euro)).then(
        earned(points, 5 + points, cents=cents, joins=LotName(2))
    )


@pytest.mark.parametrize("program_type", [ProgramType.POINTS, ProgramType.HYBRID])
def test_points_without_an_end_of_their_own_join_one_lot(program_type: ProgramType) -> None:
    first = a_card().when(purchase(2500), facts(type=program_type)).then(earned(250, 250))
    later = facts(NOON + ONE_DAY, type=program_type)
    second = first.when(purchase(100), later).then(earned(10, 260, joins=LotName(2)))
    assert second.state.lots == (Lot(2, 260, NOON, None),)


def test_points_with_an_end_of_their_own_form_a_lot_of_their_own() -> None:
    first = a_card(earned(250, 250)).when(purchase(100), facts(**DATED)).then(earned(10, 260, expires_at=IN_TEN_DAYS))
    second = first.when(purchase(200), facts(**DATED)).then(earned(20, 280, expires_at=IN_TEN_DAYS))
    lots = (Lot(2, 250, NOON, None), Lot(3, 10, NOON, IN_TEN_DAYS), Lot(4, 20, NOON, IN_TEN_DAYS))
    assert second.state.lots == lots
    third = second.when(purchase(300), facts()).then(earned(30, 310, joins=LotName(2)))
    assert third.state.lots == (Lot(2, 280, NOON, None), *lots[1:])


def test_where_all_points_were_spent_the_next_begin_a_lot() -> None:
    spent = a_card(earned(100, 100), points_redeemed(0, part(2, 100)))
    after = spent.when(purchase(500), facts(NOON + ONE_DAY)).then(earned(50, 50))
    assert after.state.lots == (Lot(4, 50, NOON + ONE_DAY, None),)


def test_what_was_earned_earlier_is_spent_earlier_although_it_came_later() -> None:
    late = a_card(at(NOON + ONE_DAY), earned(60, 60, expires_at=IN_TEN_DAYS))
    both = late.when(purchase(600), facts(NOON, **DATED)).then(earned(60, 120, expires_at=IN_TEN_DAYS))
    assert [lot.lot for lot in both.state.lots] == [3, 2]
    spent = points_redeemed(20, part(3, 60, IN_TEN_DAYS), part(2, 40, IN_TEN_DAYS, NOON + ONE_DAY))
    both.when(RedeemPoints("coffee"), facts(NOON + ONE_DAY, **DATED)).then(spent)


def test_a_purchase_of_nothing_is_recorded_and_makes_no_lot() -> None:
    after = a_card().when(purchase(0), facts()).then(earned(0, 0))
    assert after.state.lots == ()


def test_earning_leaves_the_stamps_alone() -> None:
    a_card(stamped(4)).when(purchase(100), facts()).then(earned(10, 10, stamps=4))


@pytest.mark.parametrize("cents", [-1, 100_000_001])
def test_an_amount_outside_all_reason_is_refused(cents: int) -> None:
    a_card().when(purchase(cents), facts(minimum_purchase_cents=500)).refused(
        "invalid_amount", minimum=0, maximum=100_000_000
    )


@pytest.mark.parametrize("cents", [0, 499])
def test_a_purchase_below_the_minimum_is_refused(cents: int) -> None:
    a_card().when(purchase(cents), facts(minimum_purchase_cents=500)).refused(
        "purchase_below_minimum", minimum_purchase_cents=500
    )


def test_a_purchase_of_exactly_the_minimum_earns() -> None:
    a_card().when(purchase(500), facts(minimum_purchase_cents=500)).then(earned(50, 50))


def test_an_order_reference_is_recorded() -> None:
    a_card().when(purchase(100, "ORD-1"), facts()).then(earned(10, 10, order_reference="ORD-1"))


def test_a_merchant_may_require_order_references() -> None:
    strict = facts(settings=MerchantSettings(require_order_reference=True))
    a_card().when(purchase(100), strict).refused("order_reference_required")
    a_card().when(purchase(100, "ORD-1"), strict).then(earned(10, 10, order_reference="ORD-1"))


def test_points_of_the_earned_policy_end_a_fixed_time_after_they_were_earned() -> None:
    policy = facts(points_expiration_days=10, expiry_policy=ExpiryPolicy.EARNED)
    end = NOON + timedelta(days=10)
    after = a_card().when(purchase(100), policy).then(earned(10, 10, expires_at=end))
    assert after.state.lots == (Lot(2, 10, NOON, end),)


# ---- points: redeeming ----------------------------------------------------------------------------------------


def test_a_reward_is_paid_with_points() -> None:
    after = a_card(earned(260, 260)).when(RedeemPoints("coffee"), facts()).then(points_redeemed(160, part(2, 100)))
    assert (after.state.points_balance, after.state.lots) == (160, (Lot(2, 160, NOON, None),))


def test_exactly_enough_points_are_enough() -> None:
    after = a_card(earned(100, 100)).when(RedeemPoints("coffee"), facts()).then(points_redeemed(0, part(2, 100)))
    assert (after.state.points_balance, after.state.lots) == (0, ())


@pytest.mark.parametrize(("balance", "missing"), [(99, 1), (1, 99)])
def test_points_never_go_below_zero(balance: int, missing: int) -> None:
    a_card(earned(balance, balance)).when(RedeemPoints("coffee"), facts()).refused(
        "not_enough_points", points_balance=balance, points_cost=100, points_missing=missing
    )


def test_a_new_card_pays_for_nothing() -> None:
    a_card().when(RedeemPoints("coffee"), facts()).refused(
        "not_enough_points", points_balance=0, points_cost=100, points_missing=100
    )


def test_the_oldest_points_are_spent_first() -> None:
    dates = [NOON + days * ONE_DAY for days in (10, 11, 12)]
    collected = a_card(
        bonus(60, dates[0]),
        stamped(1, points=60),
        earned(30, 90, stamps=1, expires_at=dates[1]),
        earned(50, 140, stamps=1, expires_at=dates[2]),
    )
    spent = points_redeemed(40, part(2, 60, dates[0]), part(4, 30, dates[1]), part(5, 10, dates[2]), stamps=1)
    after = collected.when(RedeemPoints("coffee"), facts()).then(spent)
    assert after.state.lots == (Lot(5, 40, NOON, dates[2]),)


def test_what_is_left_of_a_lot_is_spent_before_the_next() -> None:
    spent = a_card(earned(150, 150), earned(60, 210, expires_at=IN_TEN_DAYS)).then(points_redeemed(110, part(2, 100)))
    again = points_redeemed(10, part(2, 50), part(3, 50, IN_TEN_DAYS))
    assert spent.when(RedeemPoints("coffee"), facts()).then(again).state.lots == (Lot(3, 10, NOON, IN_TEN_DAYS),)


@pytest.mark.parametrize("reward_id", ["tea", "", "Coffee"])
def test_what_is_no_reward_of_the_program_cannot_be_had(reward_id: str) -> None:
    a_card(earned(999, 999)).when(RedeemPoints(reward_id), facts()).refused("reward_not_found", reward_id=reward_id)


def test_a_reward_that_is_not_active_cannot_be_had() -> None:
    withdrawn = (Reward(id="coffee", name="Coffee", points_cost=100, active=False),)
    a_card(earned(999, 999)).when(RedeemPoints("coffee"), facts(rewards=withdrawn)).refused(
        "reward_not_found", reward_id="coffee"
    )
