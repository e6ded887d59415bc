"""What becomes of two cards when one is merged into the other, and of what was done on them before."""

from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from ledger import card
from ledger.card import (
    Absorb,
    AddStamp,
    CardStatus,
    ExpirePoints,
    MergeInto,
    NextExpiry,
    RedeemPoints,
    next_expiry,
    next_stamp_available_at,
)
from ledger.lots import Lot, LotName, LotPart
from ledger.program import ExpiryPolicy
from tests.ledger.cards import (
    COOLDOWN,
    DAY,
    MINUTE,
    ONE_DAY,
    SECOND,
    a_card,
    absorbed,
    earned,
    expired,
    facts,
    given_away,
    merge,
    part,
    points_redeemed,
    purchase,
    stamped,
    suspended,
    undo,
    undone,
)
from tests.ledger.specification import STREAM, Given, at, given
from tests.shop import NOON

DATED: dict[str, Any] = {"points_expiration_days": 10, "expiry_policy": ExpiryPolicy.EARNED}
IDLE: dict[str, Any] = {"points_expiration_days": 10}
IN_TEN_DAYS, LATER = NOON + 10 * ONE_DAY, NOON + ONE_DAY
A, B, C = STREAM, UUID(int=0xAB), UUID(int=0xAC)


def card_a(*history: Any) -> Given:
    return a_card(*history, stream=A)


def card_b(*history: Any) -> Given:
    return a_card(*history, stream=B)


def card_c(*history: Any) -> Given:
    return a_card(*history, stream=C)


def of_a(lot: int, points: int, expires_at: datetime | None = None, earned_at: datetime = NOON) -> LotPart:
    """A part as another card names it."""
    return part(lot, points, expires_at, earned_at, card=A)


# ---- what goes over -------------------------------------------------------------------------------------------


def test_all_that_a_card_has_goes_over() -> None:
    source = card_a(earned(30, 30), stamped(4, points=30))
    target = card_b(at(LATER), earned(50, 50), stamped(2, points=50, day=DAY + ONE_DAY))
    source.when(MergeInto(B), facts(LATER)).then(given_away(B, 30, 4, part(2, 30)))
    target.when(Absorb(source.state), facts(LATER)).then(
        absorbed(
            A,
            30,
            80,
            of_a(2, 30),
            stamps=4,
            stamp_count=6,
            stamps_by_day={DAY: 1},
            last_stamp_at=NOON,
        )
    )
    gave, took = merge(source, target)
    assert (gave.state.points_balance, gave.state.stamp_count, gave.state.lots) == (0, 0, ())
    assert (gave.state.status, gave.state.merged_into) == (CardStatus.CLOSED, B)
    assert (took.state.points_balance, took.state.stamp_count, took.state.absorbed) == (80, 6, (A,))
    assert took.state.lots == (Lot(2, 30, NOON, None, A), Lot(2, 50, LATER, None))
    assert took.state.status is CardStatus.ACTIVE


def test_lots_keep_their_names_their_dates_and_their_order() -> None:
    source = card_a(
        earned(10, 10, expires_at=IN_TEN_DAYS), at(LATER), earned(20, 30, expires_at=IN_TEN_DAYS + 2 * ONE_DAY)
    )
    target = card_b(at(NOON + MINUTE), earned(40, 40, expires_at=IN_TEN_DAYS + ONE_DAY))
    _, took = merge(source, target)
    assert took.state.lots == (
        Lot(2, 10, NOON, IN_TEN_DAYS, A),
        Lot(2, 40, NOON + MINUTE, IN_TEN_DAYS + ONE_DAY),
        Lot(3, 20, LATER, IN_TEN_DAYS + 2 * ONE_DAY, A),
    )
    assert next_expiry(took.state, facts(**DATED).program) == NextExpiry(10, IN_TEN_DAYS)
    took.when(ExpirePoints(), facts(IN_TEN_DAYS + ONE_DAY, **DATED)).then(
        expired(IN_TEN_DAYS, 60, of_a(2, 10, IN_TEN_DAYS)),
        expired(IN_TEN_DAYS + ONE_DAY, 20, part(2, 40, IN_TEN_DAYS + ONE_DAY, NOON + MINUTE)),
    )


def test_the_oldest_points_of_both_are_spent_first() -> None:
    _, took = merge(card_a(earned(60, 60)), card_b(at(LATER), earned(60, 60)))
    took.when(RedeemPoints("coffee"), facts(LATER)).then(points_redeemed(20, of_a(2, 60), part(2, 40, earned_at=LATER)))


def test_points_earned_after_it_join_a_lot_that_came_along() -> None:
    _, took = merge(card_a(earned(60, 60)), card_b())
    after = took.when(purchase(100), facts(LATER)).then(earned(10, 70, joins=LotName(2, A)))
    assert after.state.lots == (Lot(2, 70, NOON, None, A),)
    undo(3, after).then(
        undone(3, 60, card=B, points=-10, purchase_amount_cents=100, taken=(of_a(2, 10),), lot=LotName(2, A))
    )


def test_an_empty_card_goes_over_too() -> None:
    gave, took = merge(card_a(), card_b(earned(30, 30)))
    assert gave.state.merged_into == B
    assert (took.state.points_balance, took.state.absorbed) == (30, (A,))


def test_the_later_activity_of_both_counts() -> None:
    early, late = card_a(earned(30, 30)), card_b(at(LATER), earned(50, 50))
    merging = facts(NOON + 3 * ONE_DAY)
    for source, target in ((early, late._replace(stream=B)), (late, early)):
        gave, took = merge(source, target, merging)
        assert took.state.last_activity_at == LATER
        assert gave.state.last_activity_at == source.state.last_activity_at


# ---- stamps ---------------------------------------------------------------------------------------------------


def test_the_cooldown_is_that_of_the_last_stamp_of_both() -> None:
    early, late = card_a(stamped(1)), card_b(at(NOON + MINUTE), stamped(1))
    for source, target in ((early, late), (late, early)):
        _, took = merge(source, target)
        took.when(AddStamp(), facts(NOON + COOLDOWN)).refused(
            "stamp_cooldown", next_stamp_available_at="2026-03-02T11:16:00Z"
        )


def test_the_stamps_of_a_day_count_together() -> None:
    two_each = [stamped(1), at(NOON + COOLDOWN), stamped(2, 2)]
    _, took = merge(card_a(*two_each), card_b(*two_each))
    assert took.state.stamps_on(DAY) == 4
    took.when(AddStamp(), facts(NOON + 2 * COOLDOWN, max_daily_stamps=4)).refused(
        "daily_stamp_limit", stamps_today=4, max_daily_stamps=4, next_stamp_available_at="2026-03-02T23:00:00Z"
    )
    took.when(AddStamp(), facts(NOON + 2 * COOLDOWN)).then(stamped(5, 5))


def test_stamps_of_long_ago_make_no_card_forget_those_of_today() -> None:
    """Whichever of the two was stamped last."""
    old, fresh = card_a(at(NOON - 60 * ONE_DAY), stamped(1, day=DAY - 60 * ONE_DAY)), card_b(stamped(1))
    for source, target in ((old, fresh), (fresh, old)):
        _, took = merge(source, target, facts(NOON + MINUTE))
        assert took.state.stamps_on(DAY) == 1


def test_a_stamp_of_the_merged_card_can_be_taken_back() -> None:
    gave, took = merge(card_a(at(NOON + MINUTE), stamped(1)), card_b(stamped(1)))
    left = undo(2, gave, took).then(undone(2, 0, stamp_count=1, stamps=-1, stamped_at=NOON + MINUTE, day=DAY))
    assert left.state.stamps_on(DAY) == 1
    left.when(AddStamp(), facts(NOON + COOLDOWN - SECOND)).refused(
        "stamp_cooldown", next_stamp_available_at="2026-03-02T11:15:00Z"
    )
    assert next_stamp_available_at(left.state, facts(NOON + COOLDOWN)) is None


def test_a_stamp_of_the_other_card_can_be_taken_back() -> None:
    _, took = merge(card_a(stamped(1)), card_b(at(NOON + MINUTE), stamped(1)))
    left = undo(2, took).done()
    assert next_stamp_available_at(left.state, facts(NOON + MINUTE)) == NOON + COOLDOWN


# ---- debts ----------------------------------------------------------------------------------------------------


def owing(owner: Given, points: int) -> Given:
    """A card whose points were spent before their purchase was refunded."""
    spent = owner.then(earned(points, points), points_redeemed(0, part(2, points)))
    return undo(2, spent, allow_negative_balance=True).done()


def test_the_points_of_the_other_pay_what_a_card_owes() -> None:
    rich = card_a(earned(30, 30, expires_at=IN_TEN_DAYS), earned(40, 70, expires_at=IN_TEN_DAYS))
    _, took = merge(rich, owing(card_b(), 50))
    settled = (of_a(2, 30, IN_TEN_DAYS), of_a(3, 20, IN_TEN_DAYS))
    assert took.past[-1].event.settled == settled
    assert (took.state.points_balance, took.state.lots) == (20, (Lot(3, 20, NOON, IN_TEN_DAYS, A),))


def test_a_card_pays_what_the_merged_one_owed() -> None:
    gave, took = merge(owing(card_a(), 50), card_b(earned(30, 30), earned(40, 70, expires_at=IN_TEN_DAYS)))
    assert gave.past[-1].event == given_away(B, -50)
    assert gave.state.points_balance == 0
    assert took.past[-1].event.settled == (part(2, 30), part(3, 20, IN_TEN_DAYS))
    assert (took.state.points_balance, took.state.lots) == (20, (Lot(3, 20, NOON, IN_TEN_DAYS),))


@pytest.mark.parametrize(("has", "owes", "balance"), [(30, 50, -20), (50, 50, 0), (0, 50, -50), (50, 30, 20)])
def test_what_is_left_of_a_debt_is_owed_on(has: int, owes: int, balance: int) -> None:
    for source, target in (
        (card_a(earned(has, has)), owing(card_b(), owes)),
        (owing(card_a(), owes), card_b(earned(has, has))),
    ):
        _, took = merge(source, target)
        assert took.state.points_balance == balance
        assert sum(lot.points for lot in took.state.lots) == max(0, balance)


def test_two_debts_are_one_debt() -> None:
    _, took = merge(owing(card_a(), 20), owing(card_b(), 30))
    assert (took.state.points_balance, took.state.lots, took.past[-1].event.settled) == (-50, (), ())


def test_owed_stamps_go_over() -> None:
    gave, took = merge(card_a().but(stamp_count=-3), card_b(stamped(2)))
    assert (gave.state.stamp_count, took.state.stamp_count) == (0, -1)


# ---- who can be merged ----------------------------------------------------------------------------------------


def test_no_card_is_merged_into_itself() -> None:
    card_a().when(MergeInto(A), facts()).refused("same_card")


@pytest.mark.parametrize("status", [CardStatus.CLOSED, CardStatus.ERASED])
def test_a_card_that_ended_is_merged_into_none(status: CardStatus) -> None:
    card_a().but(status=status).when(MergeInto(B), facts()).refused("card_not_active", card_status=status)


@pytest.mark.parametrize("status", [CardStatus.SUSPENDED, CardStatus.CLOSED, CardStatus.ERASED])
def test_no_card_is_merged_into_one_that_takes_no_part(status: CardStatus) -> None:
    card_b().but(status=status).when(Absorb(card_a().state), facts()).refused("card_not_active", card_status=status)


def test_a_suspended_card_may_be_merged_into_another() -> None:
    gave, took = merge(card_a(earned(30, 30), suspended(30)), card_b())
    assert (gave.state.status, took.state.status) == (CardStatus.CLOSED, CardStatus.ACTIVE)
    assert took.state.points_balance == 30


def test_cards_of_a_program_that_is_over_are_merged() -> None:
    _, took = merge(card_a(earned(30, 30)), card_b(), facts(active=False))
    assert took.state.points_balance == 30


def test_what_is_no_card_cannot_be_merged() -> None:
    given(card).when(MergeInto(B), facts()).refused("card_not_found")
    given(card).when(Absorb(card_a().state), facts()).refused("card_not_found")


# ---- expiry ---------------------------------------------------------------------------------------------------


def test_what_was_due_on_either_card_ends_before_they_are_merged() -> None:
    source = card_a(earned(10, 10, expires_at=IN_TEN_DAYS), earned(20, 30, expires_at=IN_TEN_DAYS + 9 * ONE_DAY))
    target = card_b(at(LATER), earned(40, 40, expires_at=IN_TEN_DAYS + ONE_DAY))
    gave, took = merge(source, target, facts(IN_TEN_DAYS + 2 * ONE_DAY, **DATED))
    left = IN_TEN_DAYS + 9 * ONE_DAY
    assert [each.event for each in gave.past[3:]] == [
        expired(IN_TEN_DAYS, 20, part(2, 10, IN_TEN_DAYS)),
        given_away(B, 20, 0, part(3, 20, left)),
    ]
    assert [each.event for each in took.past[2:]] == [
        expired(IN_TEN_DAYS + ONE_DAY, 0, part(2, 40, IN_TEN_DAYS + ONE_DAY, LATER)),
        absorbed(A, 20, 20, of_a(3, 20, left)),
    ]


def test_an_idle_card_brings_its_points_to_no_active_one_after_they_are_due() -> None:
    idle, active = card_a(earned(30, 30)), card_b(at(LATER), earned(40, 40))
    gave, took = merge(idle, active, facts(IN_TEN_DAYS, **IDLE))
    assert [each.event for each in gave.past[2:]] == [expired(IN_TEN_DAYS, 0, part(2, 30)), given_away(B)]
    assert took.state.points_balance == 40
    _, took = merge(idle, active, facts(IN_TEN_DAYS - SECOND, **IDLE))
    assert next_expiry(took.state, facts(**IDLE).program) == NextExpiry(70, LATER + 10 * ONE_DAY)


# ---- reversals of what was done before ------------------------------------------------------------------------


def test_a_purchase_on_the_merged_card_is_refunded_from_its_lot() -> None:
    gave, took = merge(card_a(earned(30, 30), earned(50, 80, expires_at=IN_TEN_DAYS)), card_b(earned(40, 40)))
    taken = (of_a(3, 25, IN_TEN_DAYS),)
    part_back = undo(3, gave, took, purchase_amount_cents=250).then(
        undone(3, 95, points=-25, purchase_amount_cents=250, taken=taken, lot=LotName(3, A), whole=False)
    )
    undo(3, gave, part_back, purchase_amount_cents=251).refused("more_than_is_left", purchase_amount_cents_left=250)
    whole = undo(3, gave, part_back).done()
    assert whole.state.points_balance == 70
    undo(3, gave, whole).refused("already_reversed")


def test_a_part_refunded_before_the_merge_counts_after_it() -> None:
    part_back = undo(2, card_a(earned(10, 10, cents=100)), purchase_amount_cents=39).done()
    gave, took = merge(part_back, card_b())
    undo(2, gave, took).then(undone(2, 0, points=-7, purchase_amount_cents=61, taken=(of_a(2, 7),), lot=LotName(2, A)))


def test_a_transaction_of_the_same_number_on_the_other_card_is_another() -> None:
    once = undo(2, card_b(earned(40, 40))).done()
    gave, took = merge(card_a(earned(30, 30)), once)
    assert undo(2, gave, took).done().state.points_balance == 0


def test_what_was_spent_on_the_merged_card_comes_back_to_its_lots() -> None:
    spent = card_a(earned(100, 100, expires_at=IN_TEN_DAYS), points_redeemed(0, part(2, 100, IN_TEN_DAYS)))
    gave, took = merge(spent, card_b())
    after = undo(3, gave, took).then(undone(3, 100, points=100, returned=(of_a(2, 100, IN_TEN_DAYS),)))
    assert after.state.lots == (Lot(2, 100, NOON, IN_TEN_DAYS, A),)


def test_what_expired_after_the_merge_is_not_taken_back_once_more() -> None:
    gave, took = merge(card_a(earned(30, 30, expires_at=IN_TEN_DAYS)), card_b(earned(40, 40)))
    undo(2, gave, took, on=facts(IN_TEN_DAYS, **DATED)).then(
        expired(IN_TEN_DAYS, 40, of_a(2, 30, IN_TEN_DAYS)),
        undone(2, 40, purchase_amount_cents=300, lot=LotName(2, A), points_expired=30),
    )


def test_what_expired_before_the_merge_is_not_taken_back_once_more() -> None:
    gone = card_a(earned(30, 30, expires_at=IN_TEN_DAYS), expired(IN_TEN_DAYS, 0, part(2, 30, IN_TEN_DAYS)))
    gave, took = merge(gone, card_b(earned(40, 40)))
    undo(2, gave, took).then(undone(2, 40, purchase_amount_cents=300, lot=LotName(2, A), points_expired=30))


def test_what_expired_of_the_other_cards_lot_of_that_number_is_no_excuse() -> None:
    gone = card_b(earned(40, 40, expires_at=IN_TEN_DAYS), expired(IN_TEN_DAYS, 0, part(2, 40, IN_TEN_DAYS)))
    gave, took = merge(card_a(earned(30, 30)), gone)
    undo(2, gave, took).then(
        undone(2, 0, points=-30, purchase_amount_cents=300, taken=(of_a(2, 30),), lot=LotName(2, A))
    )


# ---- chains ---------------------------------------------------------------------------------------------------


def chain() -> tuple[Given, Given, Given]:
    """A went into B, and B into C."""
    a, b = merge(card_a(earned(100, 100), stamped(1, points=100)), card_b(earned(50, 50)))
    spent = b.when(RedeemPoints("coffee"), facts()).then(points_redeemed(50, part(2, 50), of_a(2, 50), stamps=1))
    b, c = merge(spent, card_c(earned(7, 7), stamped(1, points=7)))
    return a, b, c


def test_a_chain_carries_everything_to_its_end() -> None:
    a, b, c = chain()
    assert (a.state.merged_into, b.state.merged_into, c.state.merged_into) == (B, C, None)
    assert (c.state.points_balance, c.state.stamp_count, c.state.absorbed) == (57, 2, (B, A))
    assert c.state.lots == (Lot(2, 7, NOON, None), Lot(2, 50, NOON, None, A))
    assert c.state.stamps_on(DAY) == 2


def test_along_a_chain_everything_can_be_undone() -> None:
    a, b, c = chain()
    at_a = of_a(2, 50)
    at_b = part(2, 50, card=B)
    c = undo(4, b, c).then(undone(4, 157, card=B, stamp_count=2, points=100, returned=(at_b, at_a)))
    c = undo(2, b, c).then(
        undone(2, 107, card=B, stamp_count=2, points=-50, purchase_amount_cents=500, taken=(at_b,), lot=LotName(2, B))
    )
    c = undo(2, a, b, c).then(
        undone(2, 7, stamp_count=2, points=-100, purchase_amount_cents=1000, taken=(of_a(2, 100),), lot=LotName(2, A))
    )
    c = undo(3, a, b, c).then(undone(3, 7, stamp_count=1, stamps=-1, stamped_at=NOON, day=DAY))
    for version, cards in ((4, (b, c)), (2, (b, c)), (2, (a, b, c)), (3, (a, b, c))):
        undo(version, *cards).refused("already_reversed")


def test_what_was_undone_in_the_middle_of_a_chain_stays_undone() -> None:
    a, b = merge(card_a(earned(30, 30)), card_b())
    b = undo(2, a, b).done()
    b, c = merge(b, card_c())
    undo(2, a, b, c).refused("already_reversed")
