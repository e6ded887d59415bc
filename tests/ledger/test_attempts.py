"""Wrong PINs in a row: when they lock, for how long, and how the count starts anew."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from ledger.attempts import Attempts, LockRule, rfc3339
from ledger.errors import Rejected
from tests.shop import NOON

RULE = LockRule(failed_attempts_max=3, lockout_minutes=30)
OPENS = NOON + timedelta(minutes=30)
SECOND = timedelta(seconds=1)
LOCKED = Attempts(failed=3, locked_until=OPENS)


def test_wrong_pins_are_counted() -> None:
    assert Attempts().after_failure(NOON, RULE) == Attempts(failed=1)
    assert Attempts(failed=1).after_failure(NOON, RULE) == Attempts(failed=2)


def test_exactly_the_last_allowed_wrong_pin_locks() -> None:
    assert Attempts(failed=2).after_failure(NOON, RULE) == LOCKED


def test_the_first_wrong_pin_locks_where_one_is_the_maximum() -> None:
    strict = LockRule(failed_attempts_max=1, lockout_minutes=1)
    assert Attempts().after_failure(NOON, strict) == Attempts(failed=1, locked_until=NOON + timedelta(minutes=1))


def test_a_maximum_lowered_below_the_count_locks_at_the_next_wrong_pin() -> None:
    assert Attempts(failed=4).after_failure(NOON, RULE) == Attempts(failed=5, locked_until=OPENS)


def test_after_a_lock_the_count_starts_anew() -> None:
    assert LOCKED.after_failure(OPENS, RULE) == Attempts(failed=1)


def test_nothing_is_locked_before_the_maximum() -> None:
    Attempts(failed=2).refuse_if_locked(NOON)


@pytest.mark.parametrize("now", [NOON, OPENS - SECOND, OPENS - timedelta(microseconds=1)])
def test_a_lock_refuses_until_its_time_is_over(now: datetime) -> None:
    with pytest.raises(Rejected) as refused:
        LOCKED.refuse_if_locked(now)
    assert refused.value.code == "pin_locked"
    assert refused.value.facts == {"locked_until": "2026-03-02T11:30:00Z"}


@pytest.mark.parametrize("now", [OPENS, OPENS + SECOND])
def test_a_lock_opens_by_itself_at_the_very_second(now: datetime) -> None:
    LOCKED.refuse_if_locked(now)


def test_instants_are_told_in_utc_with_a_z() -> None:
    assert rfc3339(datetime(2026, 3, 2, 11, 0, tzinfo=UTC)) == "2026-03-02T11:00:00Z"


def test_instants_of_another_zone_keep_their_offset() -> None:
    assert rfc3339(datetime(2026, 3, 2, 12, 0, tzinfo=timezone(timedelta(hours=1)))) == "2026-03-02T12:00:00+01:00"
