"""When points end, and what each night, each command and each change of the program makes of that."""

from datetime import timedelta

import pytest

from ledger.card import NextExpiry, next_expiry
from ledger.program import ExpiryPolicy, Program
from tests.ledger.cards import SECOND, a_card, earned, followed, part, points_redeemed, stamped
from tests.ledger.specification import at
from tests.shop import NOON

# ---- the next expiry ------------------------------------------------------------------------------------------


IDLE = followed(points_expiration_days=10)
DATED = followed(points_expiration_days=10, expiry_policy=ExpiryPolicy.EARNED)
IN_TEN_DAYS, IN_TWELVE_DAYS = NOON + timedelta(days=10), NOON + timedelta(days=12)


@pytest.mark.parametrize("policy", list(ExpiryPolicy))
def test_nothing_expires_where_the_program_names_no_days(policy: ExpiryPolicy) -> None:
    collected = a_card(earned(50, 50, expires_at=IN_TEN_DAYS))
    assert next_expiry(collected.state, followed(expiry_policy=policy)) is None


@pytest.mark.parametrize("program", [IDLE, DATED], ids=["inactivity", "earned"])
def test_where_there_are_no_points_nothing_expires(program: Program) -> None:
    assert next_expiry(a_card().state, program) is None
    assert next_expiry(a_card(earned(0, 0)).state, program) is None


def test_all_points_of_an_idle_card_expire_together() -> None:
    collected = a_card(earned(50, 50), at(NOON + timedelta(days=2)), earned(30, 80))
    assert next_expiry(collected.state, IDLE) == NextExpiry(80, IN_TWELVE_DAYS)


def test_any_activity_puts_off_the_expiry_of_an_idle_card() -> None:
    active = a_card(earned(50, 50), at(NOON + timedelta(days=2)), stamped(1, points=50))
    assert next_expiry(active.state, IDLE) == NextExpiry(50, IN_TWELVE_DAYS)


def test_each_earning_expires_by_itself() -> None:
    collected = a_card(earned(50, 50, expires_at=IN_TEN_DAYS), earned(30, 80, expires_at=IN_TWELVE_DAYS))
    assert next_expiry(collected.state, DATED) == NextExpiry(50, IN_TEN_DAYS)


def test_activity_does_not_put_off_the_expiry_of_an_earning() -> None:
    collected = a_card(earned(50, 50, expires_at=IN_TEN_DAYS), at(IN_TEN_DAYS - SECOND), stamped(1, points=50))
    assert next_expiry(collected.state, DATED) == NextExpiry(50, IN_TEN_DAYS)


def test_earnings_that_end_at_one_instant_expire_together() -> None:
    collected = a_card(earned(50, 50, expires_at=IN_TEN_DAYS), earned(30, 80, expires_at=IN_TEN_DAYS))
    assert next_expiry(collected.state, DATED) == NextExpiry(80, IN_TEN_DAYS)


def test_what_was_spent_of_an_earning_does_not_expire() -> None:
    collected = a_card(earned(150, 150, expires_at=IN_TEN_DAYS), points_redeemed(50, part(2, 100, IN_TEN_DAYS)))
    assert next_expiry(collected.state, DATED) == NextExpiry(50, IN_TEN_DAYS)


def test_the_earning_that_ends_first_is_told_whichever_came_first() -> None:
    collected = a_card(earned(50, 50, expires_at=IN_TWELVE_DAYS), earned(30, 80, expires_at=IN_TEN_DAYS))
    assert next_expiry(collected.state, DATED) == NextExpiry(30, IN_TEN_DAYS)


def test_points_earned_before_the_policy_do_not_expire_under_it() -> None:
    assert next_expiry(a_card(earned(50, 50)).state, DATED) is None
    collected = a_card(earned(50, 50), earned(30, 80, expires_at=IN_TEN_DAYS))
    assert next_expiry(collected.state, DATED) == NextExpiry(30, IN_TEN_DAYS)
