"""What a reversal undoes: stamps, rewards, bonuses and corrections, each once and as a whole."""

from typing import Any
from uuid import UUID

import pytest

from ledger import card
from ledger.card import (
    AddStamp,
    CardStatus,
    ExpirePoints,
    NextExpiry,
    Reason,
    Reverse,
    next_expiry,
    next_stamp_available_at,
)
from ledger.lots import Lot, LotName, LotPart
from ledger.merchant import MerchantSettings
from ledger.program import ExpiryPolicy, ProgramType
from tests.ledger.cards import (
    COOLDOWN,
    DAY,
    MINUTE,
    ONE_DAY,
    SECOND,
    a_card,
    absorbed,
    adjusted,
    bonus,
    closed,
    earned,
    expired,
    facts,
    given_away,
    imported,
    part,
    points_redeemed,
    reactivated,
    stamped,
    stamps_redeemed,
    suspended,
    undo,
    undone,
)
from tests.ledger.specification import Given, at, given
from tests.shop import NOON

DATED: dict[str, Any] = {"points_expiration_days": 10, "expiry_policy": ExpiryPolicy.EARNED}
IN_TEN_DAYS = NOON + 10 * ONE_DAY
OTHER = UUID(int=0xF)


# ---- what can be reversed -------------------------------------------------------------------------------------


def test_a_reversal_says_which_transaction_when_and_why() -> None:
    after = undo(2, a_card(earned(10, 10)), reason="Wrong card").then(
        undone(
            2,
            0,
            points=-10,
            purchase_amount_cents=100,
            taken=(part(2, 10),),
            lot=LotName(2),
            private=Reason("Wrong card"),
        )
    )
    assert (after.state.points_balance, after.state.lots) == (0, ())


@pytest.mark.parametrize(
    "event",
    [
        imported(10, points=10),
        expired(NOON, 0, part(2, 10)),
        undone(2, 0),
        suspended(10),
        reactivated(10),
        closed(10),
        given_away(OTHER, 10),
        absorbed(OTHER, 0, 10),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_no_till_does_is_not_reversible(event: Any) -> None:
    mistaken = a_card(earned(10, 10), event).but(status=CardStatus.ACTIVE)
    undo(3, mistaken).refused("not_reversible")


def test_an_enrolment_is_not_reversible() -> None:
    undo(1, a_card()).refused("not_reversible")


@pytest.mark.parametrize(
    "event",
    [
        bonus(10),
        stamped(1),
        stamps_redeemed(0, stamps=10),
        points_redeemed(0, part(2, 10)),
        adjusted(10, points=10),
        imported(10, points=10),
    ],
    ids=lambda event: type(event).__name__,
)
def test_only_a_purchase_has_an_amount_to_refund(event: Any) -> None:
    undo(2, a_card(event), purchase_amount_cents=1).refused("not_a_purchase")


@pytest.mark.parametrize(
    ("version", "history"),
    [
        (2, [bonus(10)]),
        (2, [earned(10, 10)]),
        (2, [earned(0, 0)]),
        (2, [stamped(1)]),
        (3, [stamped(10), stamps_redeemed(0)]),
        (3, [earned(100, 100), points_redeemed(0, part(2, 100))]),
        (2, [adjusted(10, 1, points=10, stamps=1)]),
        (3, [earned(10, 10), adjusted(0, points=-10, taken=(part(2, 10),))]),
    ],
    ids=["bonus", "purchase", "free purchase", "stamp", "stamps' reward", "points' reward", "gift", "deduction"],
)
def test_nothing_is_reversed_twice(version: int, history: list[Any]) -> None:
    once = undo(version, a_card(*history)).done()
    undo(version, once).refused("already_reversed")
    undo(version, once, allow_negative_balance=True).refused("already_reversed")


def test_the_reversal_of_one_transaction_does_not_count_for_another() -> None:
    once = undo(2, a_card(earned(10, 10), earned(20, 30, joins=LotName(2)))).done()
    undo(3, once).then(undone(3, 0, points=-20, purchase_amount_cents=200, taken=(part(2, 20),), lot=LotName(2)))


def test_a_merchant_may_forbid_reversals() -> None:
    strict = facts(settings=MerchantSettings(allow_reversals=False))
    undo(2, a_card(earned(10, 10)), on=strict).refused("reversals_not_allowed")


def test_a_suspended_card_has_its_mistakes_put_right() -> None:
    undo(2, a_card(stamped(1), suspended(stamps=1))).then(undone(2, 0, stamps=-1, stamped_at=NOON, day=DAY))


@pytest.mark.parametrize("status", [CardStatus.CLOSED, CardStatus.ERASED])
def test_nothing_is_reversed_on_a_card_that_ended(status: CardStatus) -> None:
    undo(2, a_card(stamped(1)).but(status=status)).refused("card_not_active", card_status=status)


def test_nothing_is_reversed_on_a_card_that_is_none() -> None:
    given(card).when(Reverse(card=OTHER, version=1), facts()).refused("card_not_found")


@pytest.mark.parametrize("changes", [{"active": False}, {"type": ProgramType.POINTS}], ids=["over", "points only"])
def test_a_stamp_is_taken_back_whatever_became_of_the_program(changes: dict[str, Any]) -> None:
    undo(2, a_card(stamped(1)), on=facts(**changes)).then(undone(2, 0, stamps=-1, stamped_at=NOON, day=DAY))


def test_points_are_taken_back_where_the_program_has_only_stamps_by_now() -> None:
    undo(2, a_card(bonus(10)), on=facts(type=ProgramType.STAMPS)).then(
        undone(2, 0, points=-10, taken=(part(2, 10),), lot=LotName(2))
    )


def test_a_reversal_keeps_a_card_from_expiring_as_any_activity_does() -> None:
    later = NOON + 3 * ONE_DAY
    assert undo(2, a_card(stamped(1)), on=facts(later)).done().state.last_activity_at == later


# ---- stamps ---------------------------------------------------------------------------------------------------


def test_a_stamp_is_taken_back() -> None:
    after = undo(2, a_card(stamped(1))).then(undone(2, 0, stamps=-1, stamped_at=NOON, day=DAY))
    assert (after.state.stamp_count, after.state.stamps_on(DAY), after.state.last_stamp_at) == (0, 0, None)


def test_a_stamp_taken_back_leaves_the_points_alone() -> None:
    after = undo(3, a_card(earned(10, 10), stamped(1, points=10))).done()
    assert (after.state.points_balance, after.state.lots) == (10, (Lot(2, 10, NOON, None),))


def two_stamps() -> Given:
    return a_card(stamped(1), at(NOON + COOLDOWN), stamped(2, 2))


def test_after_the_last_stamp_was_taken_back_the_cooldown_is_that_of_the_one_before() -> None:
    left = undo(3, two_stamps()).then(undone(3, 0, stamp_count=1, stamps=-1, stamped_at=NOON + COOLDOWN, day=DAY))
    assert next_stamp_available_at(left.state, facts(NOON + COOLDOWN)) is None
    longer = facts(NOON + COOLDOWN, cooldown_minutes=60)
    assert next_stamp_available_at(left.state, longer) == NOON + 60 * MINUTE
    left.when(AddStamp(), facts(NOON + COOLDOWN)).then(stamped(2, 2))


def test_after_an_earlier_stamp_was_taken_back_the_cooldown_is_still_that_of_the_last() -> None:
    left = undo(2, two_stamps()).done()
    left.when(AddStamp(), facts(NOON + 2 * COOLDOWN - SECOND)).refused(
        "stamp_cooldown", next_stamp_available_at="2026-03-02T11:30:00Z"
    )


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_stamps_that_were_all_taken_back_leave_no_cooldown(order: tuple[int, int]) -> None:
    first, second = order
    left = undo(second, undo(first, two_stamps()).done()).done()
    assert (left.state.stamp_count, left.state.stamps_on(DAY)) == (0, 0)
    left.when(AddStamp(), facts(NOON + COOLDOWN, cooldown_minutes=600)).then(stamped(1))


def test_a_stamp_taken_back_counts_for_no_daily_limit() -> None:
    narrow = facts(NOON + COOLDOWN, max_daily_stamps=2)
    full = two_stamps()
    full.when(AddStamp(), facts(NOON + 2 * COOLDOWN, max_daily_stamps=2)).refused(
        "daily_stamp_limit", stamps_today=2, max_daily_stamps=2, next_stamp_available_at="2026-03-02T23:00:00Z"
    )
    again = undo(3, full).done().when(AddStamp(), narrow).then(stamped(2, 2))
    again.when(AddStamp(), facts(NOON + 2 * COOLDOWN, max_daily_stamps=2)).refused(
        "daily_stamp_limit", stamps_today=2, max_daily_stamps=2, next_stamp_available_at="2026-03-02T23:00:00Z"
    )


def test_a_stamp_counts_on_the_day_it_was_given_whenever_it_is_taken_back() -> None:
    tomorrow = DAY + ONE_DAY
    both = a_card(stamped(1), at(NOON + ONE_DAY), stamped(2, day=tomorrow))
    left = undo(2, both).done()
    assert (left.state.stamps_on(DAY), left.state.stamps_on(tomorrow)) == (0, 1)


def test_a_stamp_of_long_ago_counts_for_no_limit_of_today() -> None:
    later = DAY + 30 * ONE_DAY
    both = a_card(stamped(1), at(NOON + 30 * ONE_DAY), stamped(2, day=later))
    left = undo(2, both).then(undone(2, 0, stamp_count=1, stamps=-1, stamped_at=NOON, day=DAY))
    assert (left.state.stamp_count, left.state.stamps_on(DAY), left.state.stamps_on(later)) == (1, 0, 1)
    assert left.state.last_stamp_at == NOON + 30 * ONE_DAY


def test_stamps_that_were_redeemed_come_back() -> None:
    after = undo(3, a_card(stamped(12), stamps_redeemed(2))).then(undone(3, 0, stamp_count=12, stamps=10))
    assert (after.state.stamp_count, after.state.last_stamp_at, after.state.stamps_on(DAY)) == (12, NOON, 1)


def spent_stamps() -> Given:
    return a_card(stamped(10), stamps_redeemed(0))


def test_a_stamp_that_was_spent_cannot_be_taken_back() -> None:
    undo(2, spent_stamps()).refused("stamps_already_spent", stamp_count=0, stamps_missing=1)


def test_a_stamp_that_was_spent_is_owed_where_that_is_asked_for() -> None:
    owing = undo(2, spent_stamps(), allow_negative_balance=True).then(
        undone(2, 0, stamp_count=-1, stamps=-1, stamped_at=NOON, day=DAY)
    )
    again = owing.when(AddStamp(), facts()).then(stamped(0))
    again.when(AddStamp(), facts(NOON + COOLDOWN)).then(stamped(1, 2))


def test_no_reward_is_earned_while_stamps_are_owed() -> None:
    a_card().but(stamp_count=-11).when(AddStamp(), facts()).then(stamped(-10))


def test_more_stamps_cannot_be_taken_back_from_a_card_that_owes_some() -> None:
    owing = undo(2, spent_stamps(), allow_negative_balance=True).done().then(stamped(0))
    undo(5, owing).refused("stamps_already_spent", stamp_count=0, stamps_missing=1)
    undo(5, owing.but(stamp_count=-1)).refused("stamps_already_spent", stamp_count=-1, stamps_missing=1)


def test_the_very_last_stamp_can_be_taken_back() -> None:
    assert undo(2, a_card(stamped(1))).refusal is None


# ---- rewards paid with points ---------------------------------------------------------------------------------


def spent_points() -> Given:
    """Two lots that end after ten and twelve days, of which one and a half were spent."""
    return a_card(
        earned(60, 60, expires_at=IN_TEN_DAYS),
        at(NOON + ONE_DAY),
        earned(80, 140, expires_at=IN_TEN_DAYS + 2 * ONE_DAY),
        points_redeemed(40, *SPENT),
    )


SPENT = (part(2, 60, IN_TEN_DAYS), part(3, 40, IN_TEN_DAYS + 2 * ONE_DAY, NOON + ONE_DAY))


def test_what_was_spent_goes_back_to_its_lots_with_their_old_end() -> None:
    after = undo(4, spent_points()).then(undone(4, 140, points=100, returned=SPENT))
    assert after.state.lots == (
        Lot(2, 60, NOON, IN_TEN_DAYS),
        Lot(3, 80, NOON + ONE_DAY, IN_TEN_DAYS + 2 * ONE_DAY),
    )
    assert next_expiry(after.state, facts(**DATED).program) == NextExpiry(60, IN_TEN_DAYS)


def test_what_has_ended_meanwhile_ends_at_once_and_not_before() -> None:
    now = IN_TEN_DAYS + ONE_DAY
    after = undo(4, spent_points(), on=facts(now, **DATED)).then(
        undone(4, 140, points=100, returned=SPENT), expired(now, 80, SPENT[0])
    )
    assert (after.state.points_balance, after.state.lots) == (
        80,
        (Lot(3, 80, NOON + ONE_DAY, IN_TEN_DAYS + 2 * ONE_DAY),),
    )
    after.when(ExpirePoints(), facts(now, **DATED)).quiet()


def test_what_ends_at_the_very_instant_of_its_return_ends_with_it() -> None:
    undo(4, spent_points(), on=facts(IN_TEN_DAYS, **DATED)).then(
        undone(4, 140, points=100, returned=SPENT), expired(IN_TEN_DAYS, 80, SPENT[0])
    )


def test_what_ended_on_the_card_ends_in_its_own_time_before_the_return() -> None:
    """The rest of the second lot ended when it was due; what is given back to both ends now."""
    now, end = IN_TEN_DAYS + 5 * ONE_DAY, IN_TEN_DAYS + 2 * ONE_DAY
    undo(4, spent_points(), on=facts(now, **DATED)).then(
        expired(end, 0, part(3, 40, end, NOON + ONE_DAY)),
        undone(4, 100, points=100, returned=SPENT),
        expired(now, 0, *SPENT),
    )


def test_a_return_to_an_idle_card_is_activity_so_nothing_ends() -> None:
    idle = facts(NOON + 30 * ONE_DAY, points_expiration_days=10)
    spent = a_card(earned(100, 100), points_redeemed(0, part(2, 100)))
    after = undo(3, spent, on=idle).then(undone(3, 100, points=100, returned=(part(2, 100),)))
    assert next_expiry(after.state, idle.program) == NextExpiry(100, NOON + 40 * ONE_DAY)


def test_what_is_given_back_pays_a_debt_first() -> None:
    owing = undo(2, spent_points(), allow_negative_balance=True).done()
    assert (owing.state.points_balance, owing.state.lots) == (-20, ())
    returned = (part(2, 40, IN_TEN_DAYS), SPENT[1])
    after = undo(4, owing).then(undone(4, 80, points=100, returned=returned))
    assert [(lot.lot, lot.points) for lot in after.state.lots] == [(2, 40), (3, 40)]


def test_a_debt_may_take_all_that_is_given_back() -> None:
    after = undo(4, spent_points().but(points_balance=-130, lots=())).then(undone(4, -30, points=100))
    assert after.state.lots == ()


def test_what_was_spent_before_lots_told_their_dates_comes_back_as_of_now() -> None:
    spent = a_card(earned(100, 100), points_redeemed(0, LotPart(2, 100)))
    later = NOON + ONE_DAY
    after = undo(3, spent, on=facts(later)).then(undone(3, 100, points=100, returned=(LotPart(2, 100),)))
    assert after.state.lots == (Lot(2, 100, later, None),)


def test_what_was_spent_in_part_before_lots_told_their_dates_rejoins_what_is_left() -> None:
    spent = a_card(earned(150, 150, expires_at=IN_TEN_DAYS), points_redeemed(50, LotPart(2, 100)))
    after = undo(3, spent, on=facts(NOON + ONE_DAY)).then(undone(3, 150, points=100, returned=(LotPart(2, 100),)))
    assert after.state.lots == (Lot(2, 150, NOON, IN_TEN_DAYS),)


# ---- welcome bonuses and corrections --------------------------------------------------------------------------


def test_a_welcome_bonus_is_taken_back_from_its_own_lot() -> None:
    welcomed = a_card(bonus(50, IN_TEN_DAYS), earned(30, 80, joins=None))
    undo(2, welcomed).then(undone(2, 30, points=-50, taken=(part(2, 50, IN_TEN_DAYS),), lot=LotName(2)))


def test_points_given_by_hand_are_taken_back_from_the_lot_they_joined() -> None:
    given_by_hand = a_card(earned(30, 30), adjusted(80, 2, points=50, stamps=2, joins=LotName(2)))
    after = undo(3, given_by_hand).then(undone(3, 30, points=-50, stamps=-2, taken=(part(2, 50),), lot=LotName(2)))
    assert after.state.lots == (Lot(2, 30, NOON, None),)


def test_points_taken_by_hand_go_back_where_they_lay() -> None:
    taken = (part(2, 30, IN_TEN_DAYS),)
    corrected = a_card(
        earned(30, 30, expires_at=IN_TEN_DAYS),
        stamped(4, points=30),
        adjusted(0, 3, points=-30, stamps=-1, taken=taken),
    )
    after = undo(4, corrected).then(undone(4, 30, stamp_count=4, points=30, stamps=1, returned=taken))
    assert after.state.lots == (Lot(2, 30, NOON, IN_TEN_DAYS),)


def test_what_ends_with_its_return_leaves_the_stamps_as_the_reversal_made_them() -> None:
    taken = (part(2, 30, IN_TEN_DAYS),)
    corrected = a_card(earned(30, 30, expires_at=IN_TEN_DAYS), adjusted(0, 5, points=-30, stamps=5, taken=taken))
    after = undo(3, corrected, on=facts(IN_TEN_DAYS, **DATED)).then(
        undone(3, 30, points=30, stamps=-5, returned=taken), expired(IN_TEN_DAYS, 0, *taken)
    )
    assert (after.state.points_balance, after.state.stamp_count) == (0, 0)


def test_stamps_given_by_hand_and_spent_are_owed_only_where_that_is_asked_for() -> None:
    spent = a_card(adjusted(0, 10, stamps=10), stamps_redeemed(0))
    undo(2, spent).refused("stamps_already_spent", stamp_count=0, stamps_missing=10)
    undo(2, spent, allow_negative_balance=True).then(undone(2, 0, stamp_count=-10, stamps=-10))


def test_stamps_taken_by_hand_come_back_and_count_for_no_day() -> None:
    corrected = a_card(stamped(1), adjusted(0, stamps=-1))
    after = undo(3, corrected).then(undone(3, 0, stamp_count=1, stamps=1))
    assert (after.state.stamps_on(DAY), after.state.last_stamp_at) == (1, NOON)
