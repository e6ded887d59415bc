"""Lots: what a spending takes of which earning, and when an earning ends."""

from datetime import timedelta

import pytest

from ledger.lots import Lot, LotPart, lot_expiry, oldest_parts, without
from ledger.program import ExpiryPolicy
from tests.shop import NOON, rules

LOTS = (Lot(2, 100, NOON, None), Lot(5, 50, NOON, NOON), Lot(6, 25, NOON, None))


@pytest.mark.parametrize(
    ("points", "parts"),
    [
        (0, ()),
        (1, (LotPart(2, 1),)),
        (100, (LotPart(2, 100),)),
        (101, (LotPart(2, 100), LotPart(5, 1))),
        (150, (LotPart(2, 100), LotPart(5, 50))),
        (175, (LotPart(2, 100), LotPart(5, 50), LotPart(6, 25))),
    ],
)
def test_the_oldest_lots_are_spent_first(points: int, parts: tuple[LotPart, ...]) -> None:
    assert oldest_parts(LOTS, points) == parts


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
