"""Lots: what a spending takes of which earning, and when an earning ends."""

from datetime import timedelta
from uuid import UUID

import pytest

from ledger.lots import (
    Lot,
    LotName,
    LotPart,
    all_parts,
    joined_lot,
    lot_expiry,
    oldest_parts,
    part_of,
    parts_after,
    parts_from,
    with_lot,
    with_parts,
    without,
)
from ledger.program import ExpiryPolicy
from tests.shop import NOON, rules

LATER = NOON + timedelta(days=1)
OTHER_CARD = UUID(int=1)
LOTS = (Lot(2, 100, NOON, None), Lot(5, 50, NOON, NOON), Lot(6, 25, NOON, None))


FIRST, SECOND, THIRD = LOTS


@pytest.mark.parametrize(
    ("points", "parts"),
    [
        (0, ()),
        (1, (part_of(FIRST, 1),)),
        (100, (part_of(FIRST, 100),)),
        (101, (part_of(FIRST, 100), part_of(SECOND, 1))),
        (150, (part_of(FIRST, 100), part_of(SECOND, 50))),
        (175, (part_of(FIRST, 100), part_of(SECOND, 50), part_of(THIRD, 25))),
    ],
)
def test_the_oldest_lots_are_spent_first(points: int, parts: tuple[LotPart, ...]) -> None:
    assert oldest_parts(LOTS, points) == parts


def test_a_part_tells_all_of_its_lot_but_the_points() -> None:
    lot = Lot(5, 50, NOON, LATER, OTHER_CARD)
    assert part_of(lot, 20) == LotPart(5, 20, OTHER_CARD, NOON, LATER)
    assert part_of(lot, 20).name == lot.name == LotName(5, OTHER_CARD)
    assert all_parts(LOTS) == (part_of(FIRST, 100), part_of(SECOND, 50), part_of(THIRD, 25))


def test_more_than_there_is_cannot_be_taken() -> None:
    with pytest.raises(AssertionError):
        oldest_parts(LOTS, 176)


def test_what_is_left_of_a_lot_keeps_its_name_and_its_end() -> None:
    assert without(LOTS, (LotPart(5, 20),)) == (LOTS[0], Lot(5, 30, NOON, NOON), LOTS[2])


def test_an_empty_lot_is_no_lot() -> None:
    assert without(LOTS, (LotPart(2, 100), LotPart(5, 49))) == (Lot(5, 1, NOON, NOON), LOTS[2])
    assert without(LOTS, oldest_parts(LOTS, 175)) == ()


def test_a_lot_ends_a_fixed_time_after_it_was_earned() -> None:
    earned = rules(points_expiration_days=365, expiry_policy=ExpiryPolicy.EARNED)
    assert lot_expiry(earned, NOON) == NOON + timedelta(days=365)


def test_a_lot_does_not_end_by_itself_where_idle_cards_expire_as_a_whole() -> None:
    assert lot_expiry(rules(points_expiration_days=365), NOON) is None


@pytest.mark.parametrize("policy", list(ExpiryPolicy))
def test_without_expiration_days_no_lot_ends(policy: ExpiryPolicy) -> None:
    assert lot_expiry(rules(points_expiration_days=None, expiry_policy=policy), NOON) is None


# ---- taking from a lot before others --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "parts"),
    [
        (0, ()),
        (20, (part_of(THIRD, 20),)),
        (25, (part_of(THIRD, 25),)),
        (26, (part_of(THIRD, 25), part_of(FIRST, 1))),
        (126, (part_of(THIRD, 25), part_of(FIRST, 100), part_of(SECOND, 1))),
    ],
)
def test_what_is_taken_back_leaves_its_own_lot_first_and_then_the_oldest(
    points: int, parts: tuple[LotPart, ...]
) -> None:
    assert parts_from(LOTS, THIRD.name, points) == parts


def test_where_the_lot_is_gone_the_oldest_give() -> None:
    assert parts_from(LOTS, LotName(9), 1) == parts_from(LOTS, LotName(6, OTHER_CARD), 1) == (part_of(FIRST, 1),)


# ---- putting points into lots ---------------------------------------------------------------------------------


def test_lots_lie_in_the_order_in_which_they_were_earned() -> None:
    early, same, late = Lot(7, 1, NOON - timedelta(days=1), None), Lot(8, 1, NOON, None), Lot(9, 1, LATER, None)
    assert with_lot(LOTS, early) == (early, *LOTS)
    assert with_lot(LOTS, same) == (*LOTS, same)
    assert with_lot((*LOTS, late), same) == (*LOTS, same, late)


def test_points_for_a_lot_that_is_there_join_it_and_change_no_date() -> None:
    assert with_lot(LOTS, Lot(5, 7, LATER, LATER)) == (FIRST, Lot(5, 57, NOON, NOON), THIRD)


def test_lots_of_two_cards_with_one_number_are_two_lots() -> None:
    other = Lot(5, 7, NOON, LATER, OTHER_CARD)
    both = with_lot(LOTS, other)
    assert both == (*LOTS, other)
    assert without(both, (part_of(SECOND, 50),)) == (FIRST, THIRD, other)
    assert with_lot(both, other) == (*LOTS, Lot(5, 14, NOON, LATER, OTHER_CARD))


def test_nothing_makes_no_lot() -> None:
    assert with_lot(LOTS, Lot(9, 0, NOON, None)) == LOTS


def test_what_was_taken_can_be_put_back_as_it_was() -> None:
    lots = (FIRST, Lot(5, 50, LATER, LATER, OTHER_CARD), Lot(6, 25, LATER + timedelta(days=1), None))
    for points in (0, 99, 100, 120, 150, 175):
        taken = oldest_parts(lots, points)
        assert with_parts(without(lots, taken), taken, NOON) == lots


def test_a_part_without_dates_is_of_the_time_it_is_put_back() -> None:
    assert with_parts((), (LotPart(2, 7),), LATER) == (Lot(2, 7, LATER, None),)
    assert with_parts(LOTS, (LotPart(5, 7),), LATER) == (FIRST, Lot(5, 57, NOON, NOON), THIRD)


def test_two_parts_of_one_lot_are_taken_both() -> None:
    assert without(LOTS, (LotPart(2, 30), LotPart(2, 30))) == (Lot(2, 40, NOON, None), SECOND, THIRD)


@pytest.mark.parametrize(
    ("points", "left"),
    [
        (0, (part_of(FIRST, 100), part_of(SECOND, 50))),
        (99, (part_of(FIRST, 1), part_of(SECOND, 50))),
        (100, (part_of(SECOND, 50),)),
        (101, (part_of(SECOND, 49),)),
        (150, ()),
        (999, ()),
    ],
)
def test_parts_without_their_first_points(points: int, left: tuple[LotPart, ...]) -> None:
    assert parts_after((part_of(FIRST, 100), part_of(SECOND, 50)), points) == left


# ---- which lot new points join --------------------------------------------------------------------------------


def test_points_without_an_end_join_the_first_lot_that_has_none() -> None:
    other = Lot(3, 1, NOON, None, OTHER_CARD)
    assert joined_lot(LOTS, None) == LotName(2)
    assert joined_lot((SECOND, other, THIRD), None) == LotName(3, OTHER_CARD)


def test_where_every_lot_has_an_end_and_where_there_is_none_a_lot_begins() -> None:
    assert joined_lot((SECOND,), None) is None
    assert joined_lot((), None) is None


def test_points_with_an_end_join_nothing() -> None:
    assert joined_lot(LOTS, NOON) is None
