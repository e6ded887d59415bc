"""What the refund of a purchase takes back: in parts that add up, once, and nothing that has expired already."""

from typing import Any

import pytest

from ledger.card import Adjust, ExpirePoints, Facts, ImportBalance, RedeemPoints
from ledger.lots import Lot, LotName
from ledger.program import ExpiryPolicy
from tests.ledger.cards import (
    ONE_DAY,
    SECOND,
    a_card,
    adjusted,
    bonus,
    earned,
    expired,
    facts,
    imported,
    part,
    points_redeemed,
    purchase,
    undo,
    undone,
)
from tests.ledger.specification import Given, Outcome, at
from tests.shop import NOON

DATED: dict[str, Any] = {"points_expiration_days": 10, "expiry_policy": ExpiryPolicy.EARNED}
IDLE: dict[str, Any] = {"points_expiration_days": 10}
IN_TEN_DAYS = NOON + 10 * ONE_DAY


def refund(of: Given, version: int, cents: int | None = None, on: Facts | None = None, **asked: Any) -> Outcome:
    """A refund of so much of a purchase, or of all that is left of it."""
    return undo(version, of, on=on, purchase_amount_cents=cents, **asked)


def refunded(version: int, balance: int, points: int, cents: int, *, lot: int | None = None, **more: Any) -> Any:
    """The event of a refund. The points lay in the purchase's own lot unless another is named."""
    named = LotName(lot or version) if points or more.get("points_expired") else None
    whole = more.pop("whole", False)
    return undone(version, balance, points=-points, purchase_amount_cents=cents, lot=named, whole=whole, **more)


# ---- in parts -------------------------------------------------------------------------------------------------


def test_three_thirds_of_a_purchase_take_back_exactly_its_points() -> None:
    bought = a_card(earned(1000, 1000, cents=10_000))
    first = refund(bought, 2, 3333).then(refunded(2, 667, 333, 3333, taken=(part(2, 333),)))
    second = refund(first, 2, 3333).then(refunded(2, 334, 333, 3333, taken=(part(2, 333),)))
    third = refund(second, 2, 3334).then(refunded(2, 0, 334, 3334, taken=(part(2, 334),), whole=True))
    assert (third.state.points_balance, third.state.lots) == (0, ())
    refund(third, 2).refused("already_reversed")
    refund(third, 2, 1).refused("already_reversed")


def test_what_one_part_was_rounded_down_by_the_next_makes_good() -> None:
    bought = a_card(earned(10, 10, cents=100))
    first = refund(bought, 2, 33).then(refunded(2, 7, 3, 33, taken=(part(2, 3),)))
    second = refund(first, 2, 33).then(refunded(2, 4, 3, 33, taken=(part(2, 3),)))
    refund(second, 2, 34).then(refunded(2, 0, 4, 34, taken=(part(2, 4),), whole=True))
    first = refund(bought, 2, 39).then(refunded(2, 7, 3, 39, taken=(part(2, 3),)))
    refund(first, 2, 1).then(refunded(2, 6, 1, 1, taken=(part(2, 1),)))


def test_a_part_too_small_for_a_point_takes_none() -> None:
    bought = a_card(earned(10, 10, cents=100))
    after = refund(bought, 2, 9).then(refunded(2, 10, 0, 9))
    refund(after, 2, 1).then(refunded(2, 9, 1, 1, taken=(part(2, 1),)))


def test_three_purchases_are_refunded_one_by_one() -> None:
    card_after = a_card(
        earned(250, 250, cents=2500), earned(99, 349, cents=999, joins=LotName(2)), earned(1, 350, joins=LotName(2))
    )
    card_after = refund(card_after, 3).then(refunded(3, 251, 99, 999, lot=2, taken=(part(2, 99),), whole=True))
    card_after = refund(card_after, 2).then(refunded(2, 1, 250, 2500, taken=(part(2, 250),), whole=True))
    card_after = refund(card_after, 4).then(refunded(4, 0, 1, 10, lot=2, taken=(part(2, 1),), whole=True))
    for version in (2, 3, 4):
        refund(card_after, version).refused("already_reversed")


def test_parts_of_two_purchases_count_apart() -> None:
    two = a_card(earned(10, 10, cents=100), earned(10, 20, cents=100, joins=LotName(2)))
    first = refund(two, 2, 55).then(refunded(2, 15, 5, 55, taken=(part(2, 5),)))
    other = refund(first, 3, 55).then(refunded(3, 10, 5, 55, lot=2, taken=(part(2, 5),)))
    refund(other, 2).then(refunded(2, 5, 5, 45, taken=(part(2, 5),), whole=True))
    refund(other, 3).then(refunded(3, 5, 5, 45, lot=2, taken=(part(2, 5),), whole=True))


def test_after_a_part_the_whole_is_all_that_is_left() -> None:
    part_back = refund(a_card(earned(10, 10, cents=100)), 2, 33).done()
    refund(part_back, 2).then(refunded(2, 0, 7, 67, taken=(part(2, 7),), whole=True))


def test_the_last_cent_makes_it_whole() -> None:
    nearly = refund(a_card(earned(10, 10, cents=100)), 2, 99).then(refunded(2, 1, 9, 99, taken=(part(2, 9),)))
    refund(nearly, 2, 1).then(refunded(2, 0, 1, 1, taken=(part(2, 1),), whole=True))


def test_a_refund_of_the_full_amount_is_a_refund_of_the_whole() -> None:
    bought = a_card(earned(10, 10))
    assert refund(bought, 2, 100).events == refund(bought, 2).events


def test_points_are_taken_back_as_they_were_earned_whatever_the_program_gives_by_now() -> None:
    refund(a_card(earned(10, 10)), 2, 50, on=facts(points_per_euro=1000)).then(
        refunded(2, 5, 5, 50, taken=(part(2, 5),))
    )


@pytest.mark.parametrize("cents", [101, 100_000_000])
def test_more_than_was_paid_is_not_refunded(cents: int) -> None:
    refund(a_card(earned(10, 10)), 2, cents).refused("more_than_is_left", purchase_amount_cents_left=100)


def test_more_than_is_left_is_not_refunded() -> None:
    part_back = refund(a_card(earned(10, 10)), 2, 33).done()
    refund(part_back, 2, 68).refused("more_than_is_left", purchase_amount_cents_left=67)
    assert refund(part_back, 2, 67).refusal is None


@pytest.mark.parametrize("cents", [0, -1])
def test_nothing_is_no_refund(cents: int) -> None:
    refund(a_card(earned(10, 10)), 2, cents).refused("invalid_amount", minimum=1, maximum=100)
    part_back = refund(a_card(earned(10, 10)), 2, 33).done()
    refund(part_back, 2, cents).refused("invalid_amount", minimum=1, maximum=67)


@pytest.mark.parametrize("cents", [None, 0])
def test_a_purchase_of_nothing_is_refunded_once(cents: int | None) -> None:
    after = refund(a_card(earned(0, 0)), 2, cents).then(refunded(2, 0, 0, 0, whole=True))
    refund(after, 2, cents).refused("already_reversed")


def test_of_a_purchase_of_nothing_there_is_nothing_left_to_refund() -> None:
    refund(a_card(earned(0, 0)), 2, 1).refused("more_than_is_left", purchase_amount_cents_left=0)
    refund(a_card(earned(0, 0)), 2, -1).refused("invalid_amount", minimum=1, maximum=0)


def test_a_purchase_that_earned_nothing_is_refunded_without_points() -> None:
    refund(a_card(earned(0, 0, cents=99)), 2, 50).then(refunded(2, 0, 0, 50))
    refund(a_card(earned(0, 0, cents=99)), 2).then(refunded(2, 0, 0, 99, whole=True))


# ---- where the points come from -------------------------------------------------------------------------------


def test_points_leave_the_purchases_own_lot_before_older_ones() -> None:
    two = a_card(earned(30, 30, expires_at=IN_TEN_DAYS), earned(50, 80, expires_at=IN_TEN_DAYS))
    after = refund(two, 3).then(refunded(3, 30, 50, 500, taken=(part(3, 50, IN_TEN_DAYS),), whole=True))
    assert after.state.lots == (Lot(2, 30, NOON, IN_TEN_DAYS),)


def test_what_the_purchases_own_lot_lacks_the_oldest_lots_give() -> None:
    spent = a_card(
        earned(60, 60, expires_at=IN_TEN_DAYS),
        earned(100, 160, expires_at=IN_TEN_DAYS),
        points_redeemed(60, part(2, 60, IN_TEN_DAYS), part(3, 40, IN_TEN_DAYS)),
        earned(70, 130, expires_at=IN_TEN_DAYS),
    )
    own = (part(5, 70, IN_TEN_DAYS),)
    refund(spent, 5).then(refunded(5, 60, 70, 700, taken=own, whole=True))
    oldest = (part(3, 60, IN_TEN_DAYS),)
    refund(spent, 2).then(refunded(2, 70, 60, 600, taken=oldest, whole=True))
    both = (part(3, 60, IN_TEN_DAYS), part(5, 40, IN_TEN_DAYS))
    refund(spent, 3).then(refunded(3, 30, 100, 1000, taken=both, whole=True))


# ---- points that were spent -----------------------------------------------------------------------------------


def spent_card() -> Given:
    """A purchase of 15.00 for 150 points, of which 100 were spent."""
    return a_card(earned(150, 150), points_redeemed(50, part(2, 100)))


def test_points_that_were_spent_are_not_taken_back() -> None:
    refund(spent_card(), 2).refused("points_already_spent", points_balance=50, points_missing=100)
    refund(spent_card(), 2, 510).refused("points_already_spent", points_balance=50, points_missing=1)


def test_the_part_whose_points_are_there_is_refunded() -> None:
    refund(spent_card(), 2, 500).then(refunded(2, 0, 50, 500, taken=(part(2, 50),)))


def test_points_that_were_spent_are_owed_where_that_is_asked_for() -> None:
    owing = refund(spent_card(), 2, allow_negative_balance=True).then(
        refunded(2, -100, 150, 1500, taken=(part(2, 50),), whole=True)
    )
    assert (owing.state.points_balance, owing.state.lots) == (-100, ())


def test_on_a_card_that_owes_points_a_further_refund_takes_no_lot() -> None:
    owing = a_card(earned(150, 150), earned(20, 20)).but(points_balance=-100, lots=())
    refund(owing, 3).refused("points_already_spent", points_balance=-100, points_missing=20)
    refund(owing, 3, allow_negative_balance=True).then(refunded(3, -120, 20, 200, whole=True))


def test_a_refund_that_takes_no_points_needs_none() -> None:
    owing = a_card(earned(0, 0, cents=99)).but(points_balance=-100)
    refund(owing, 2).then(refunded(2, -100, 0, 99, whole=True))


def owing_card() -> Given:
    return refund(spent_card(), 2, allow_negative_balance=True).done()


@pytest.mark.parametrize(("cents", "balance", "kept"), [(990, -1, 0), (1000, 0, 0), (1010, 1, 1), (2500, 150, 150)])
def test_later_purchases_pay_the_debt_before_they_form_a_lot(cents: int, balance: int, kept: int) -> None:
    after = owing_card().when(purchase(cents), facts()).then(earned(cents // 10, balance, cents=cents))
    assert sum(lot.points for lot in after.state.lots) == kept
    assert all(lot.lot == 5 for lot in after.state.lots)


def test_a_correction_pays_the_debt_too() -> None:
    after = (
        owing_card().when(Adjust(points=130, reason="Sorry"), facts()).then(adjusted(30, points=130, reason="Sorry"))
    )
    assert after.state.lots == (Lot(5, 30, NOON, None),)


def test_a_balance_brought_along_pays_the_debt_too() -> None:
    after = owing_card().when(ImportBalance(source="paper cards", points=130), facts()).then(imported(30, points=130))
    assert after.state.lots == (Lot(5, 30, NOON, None),)


def test_a_purchase_that_paid_a_debt_is_owed_again_when_it_is_refunded() -> None:
    paid = owing_card().when(purchase(1200), facts()).done()
    assert paid.state.points_balance == 20
    refund(paid, 5).refused("points_already_spent", points_balance=20, points_missing=100)
    refund(paid, 5, allow_negative_balance=True).then(refunded(5, -100, 120, 1200, taken=(part(5, 20),), whole=True))


def test_nothing_can_be_bought_with_a_debt() -> None:
    owing_card().when(RedeemPoints("coffee"), facts()).refused(
        "not_enough_points", points_balance=-100, points_cost=100, points_missing=200
    )


# ---- points that have expired ---------------------------------------------------------------------------------


def test_points_that_expired_are_not_taken_back_once_more() -> None:
    gone = a_card(earned(50, 50, expires_at=IN_TEN_DAYS), expired(IN_TEN_DAYS, 0, part(2, 50, IN_TEN_DAYS)))
    refund(gone, 2).then(refunded(2, 0, 0, 500, lot=2, points_expired=50, whole=True))


def test_a_refund_at_the_moment_the_points_end_lets_them_end_and_takes_nothing_more() -> None:
    bought = a_card(earned(50, 50, expires_at=IN_TEN_DAYS))
    refund(bought, 2, on=facts(IN_TEN_DAYS, **DATED)).then(
        expired(IN_TEN_DAYS, 0, part(2, 50, IN_TEN_DAYS)),
        refunded(2, 0, 0, 500, points_expired=50, whole=True),
    )
    refund(bought, 2, on=facts(IN_TEN_DAYS - SECOND, **DATED)).then(
        refunded(2, 0, 50, 500, taken=(part(2, 50, IN_TEN_DAYS),), whole=True)
    )


def test_a_refund_after_a_night_that_was_missed_is_that_after_a_punctual_one() -> None:
    bought = a_card(earned(150, 150, expires_at=IN_TEN_DAYS), points_redeemed(50, part(2, 100, IN_TEN_DAYS)))
    now = facts(IN_TEN_DAYS + ONE_DAY, **DATED)
    punctual = bought.when(ExpirePoints(), facts(IN_TEN_DAYS, **DATED)).done()
    late = refund(bought, 2, 1000, on=now, allow_negative_balance=True)
    assert late.done().past == refund(punctual, 2, 1000, on=now, allow_negative_balance=True).done().past
    assert late.events[1] == refunded(2, -50, 50, 1000, points_expired=50)


def test_the_points_of_an_idle_card_that_expired_are_not_taken_back_once_more() -> None:
    idle = a_card(earned(50, 50), earned(30, 80, joins=LotName(2)))
    late = facts(IN_TEN_DAYS, **IDLE)
    once = refund(idle, 3, on=late).then(
        expired(IN_TEN_DAYS, 0, part(2, 80)), refunded(3, 0, 0, 300, lot=2, points_expired=30, whole=True)
    )
    refund(once, 2, on=late).then(refunded(2, 0, 0, 500, points_expired=50, whole=True))


def test_what_expired_is_forgiven_once_over_all_purchases_of_a_lot() -> None:
    """Of two purchases of 100 points, 100 were spent and 100 expired: refunding both takes 100 back."""
    gone = a_card(
        earned(100, 100),
        earned(100, 200, joins=LotName(2)),
        points_redeemed(100, part(2, 100)),
        expired(IN_TEN_DAYS, 0, part(2, 100)),
        at(IN_TEN_DAYS),
    )
    once = refund(gone, 2).then(refunded(2, 0, 0, 1000, points_expired=100, whole=True))
    refund(once, 3).refused("points_already_spent", points_balance=0, points_missing=100)
    refund(once, 3, allow_negative_balance=True).then(refunded(3, -100, 100, 1000, lot=2, whole=True))


def test_what_expired_is_forgiven_once_over_all_parts_of_a_purchase() -> None:
    gone = a_card(
        earned(100, 100), points_redeemed(0, part(2, 60)), expired(IN_TEN_DAYS, 0, part(2, 40)), at(IN_TEN_DAYS)
    )
    first = refund(gone, 2, 300).then(refunded(2, 0, 0, 300, points_expired=30))
    second = refund(first, 2, 300, allow_negative_balance=True).then(refunded(2, -20, 20, 300, points_expired=10))
    refund(second, 2, allow_negative_balance=True).then(refunded(2, -60, 40, 400, whole=True))


def test_what_expired_of_other_lots_is_no_excuse() -> None:
    gone = a_card(
        earned(100, 100, expires_at=IN_TEN_DAYS),
        earned(50, 150, expires_at=IN_TEN_DAYS + ONE_DAY),
        expired(IN_TEN_DAYS, 50, part(2, 100, IN_TEN_DAYS)),
    )
    refund(gone, 3).then(refunded(3, 0, 50, 500, taken=(part(3, 50, IN_TEN_DAYS + ONE_DAY),), whole=True))


def test_what_a_reversal_was_forgiven_before_the_purchase_does_not_count_against_it() -> None:
    """A lot that came back after it expired is joined by a purchase, and expires again."""
    first = a_card(earned(200, 200), points_redeemed(100, part(2, 100)), expired(IN_TEN_DAYS, 0, part(2, 100)))
    returned = undo(3, first, on=facts(IN_TEN_DAYS)).done()
    joined = returned.then(at(IN_TEN_DAYS), earned(50, 150, joins=LotName(2)))
    assert refund(joined, 2, 1000).events == [refunded(2, 150, 0, 1000, points_expired=100)]
    forgiven = refund(joined, 2, 1000).done()
    again = IN_TEN_DAYS + 10 * ONE_DAY
    gone = forgiven.then(points_redeemed(50, part(2, 100)), expired(again, 0, part(2, 50)), at(again))
    refund(gone, 6).then(refunded(6, 0, 0, 500, lot=2, points_expired=50, whole=True))


def test_a_welcome_bonus_that_expired_is_not_taken_back_once_more() -> None:
    gone = a_card(bonus(50), expired(IN_TEN_DAYS, 0, part(2, 50)))
    undo(2, gone).then(undone(2, 0, lot=LotName(2), points_expired=50))


def test_points_given_by_hand_that_expired_are_not_taken_back_once_more() -> None:
    gone = a_card(bonus(30), adjusted(50, points=20, joins=LotName(2)), expired(IN_TEN_DAYS, 0, part(2, 50)))
    undo(3, gone).then(undone(3, 0, lot=LotName(2), points_expired=20))


def test_what_expired_as_it_came_back_from_a_reward_is_not_taken_back_once_more() -> None:
    bought = a_card(earned(100, 100, expires_at=IN_TEN_DAYS), points_redeemed(0, part(2, 100, IN_TEN_DAYS)))
    late = facts(IN_TEN_DAYS + ONE_DAY, **DATED)
    returned = undo(3, bought, on=late).done()
    refund(returned, 2, on=late).then(refunded(2, 0, 0, 1000, points_expired=100, whole=True))
