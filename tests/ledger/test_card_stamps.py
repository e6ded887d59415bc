"""Stamps, to the second and in every time zone."""

from datetime import date, datetime, timedelta
from uuid import UUID

import pytest

from ledger.card import AddStamp, Facts, RedeemStamps, next_stamp_available_at
from ledger.lots import Lot
from ledger.program import ProgramType
from tests.ledger.cards import (
    COOLDOWN,
    DAY,
    LUXEMBOURG,
    MINUTE,
    NEW_YORK,
    ONE_DAY,
    SECOND,
    TOKYO,
    a_card,
    earned,
    facts,
    instant,
    stamped,
    stamps_redeemed,
)
from tests.ledger.specification import Given, at
from tests.shop import NOON

# ---- stamps: the cooldown -------------------------------------------------------------------------------------


@pytest.mark.parametrize("program_type", [ProgramType.STAMPS, ProgramType.HYBRID])
def test_a_stamp_is_added(program_type: ProgramType) -> None:
    after = a_card().when(AddStamp(), facts(type=program_type)).then(stamped(1))
    assert (after.state.stamp_count, after.state.last_stamp_at) == (1, NOON)


def test_a_stamp_leaves_the_points_alone() -> None:
    after = a_card(earned(30, 30)).when(AddStamp(), facts()).then(stamped(1, points=30))
    assert (after.state.points_balance, after.state.lots) == (30, (Lot(2, 30, NOON, None),))


@pytest.mark.parametrize("later", [timedelta(0), SECOND, COOLDOWN - SECOND, COOLDOWN - timedelta(microseconds=1)])
def test_a_stamp_within_the_cooldown_is_refused(later: timedelta) -> None:
    a_card(stamped(1)).when(AddStamp(), facts(NOON + later)).refused(
        "stamp_cooldown", next_stamp_available_at="2026-03-02T11:15:00Z"
    )


@pytest.mark.parametrize("later", [COOLDOWN, COOLDOWN + SECOND])
def test_a_stamp_is_added_at_the_very_second_the_cooldown_ends(later: timedelta) -> None:
    a_card(stamped(1)).when(AddStamp(), facts(NOON + later)).then(stamped(2, 2))


def test_without_a_cooldown_stamps_follow_at_once() -> None:
    a_card(stamped(1)).when(AddStamp(), facts(cooldown_minutes=0)).then(stamped(2, 2))


def test_a_till_that_was_offline_cannot_stamp_before_the_last_stamp() -> None:
    a_card(stamped(1)).when(AddStamp(), facts(NOON - SECOND)).refused(
        "stamp_cooldown", next_stamp_available_at="2026-03-02T11:15:00Z"
    )


def test_without_a_cooldown_a_clock_that_is_behind_refuses_no_stamp() -> None:
    a_card(stamped(1)).when(AddStamp(), facts(NOON - SECOND, cooldown_minutes=0)).then(stamped(2, 2))


def test_the_cooldown_is_that_of_the_program_as_it_is_now() -> None:
    a_card(stamped(1)).when(AddStamp(), facts(NOON + 5 * MINUTE, cooldown_minutes=5)).then(stamped(2, 2))


def test_a_cooldown_goes_on_over_midnight() -> None:
    evening = instant("2026-03-02T22:50:00")
    a_card(at(evening), stamped(1)).when(AddStamp(), facts(evening + COOLDOWN - SECOND)).refused(
        "stamp_cooldown", next_stamp_available_at="2026-03-02T23:05:00Z"
    )


def test_the_cooldown_counts_in_every_store() -> None:
    a_card(stamped(1)).when(AddStamp(), facts(NOON + MINUTE, TOKYO)).refused(
        "stamp_cooldown", next_stamp_available_at="2026-03-02T11:15:00Z"
    )


# ---- stamps: the daily limit ----------------------------------------------------------------------------------


def two_a_day(now: datetime, store: UUID = LUXEMBOURG) -> Facts:
    return facts(now, store, max_daily_stamps=2)


def stamped_up_to_the_limit(time: datetime, day: date) -> Given:
    return a_card(at(time), stamped(1, 1, day=day), stamped(2, 2, day=day))


def test_the_last_stamp_of_the_day_is_added_and_the_next_refused() -> None:
    full = a_card(stamped(1)).when(AddStamp(), two_a_day(NOON + COOLDOWN)).then(stamped(2, 2))
    full.when(AddStamp(), two_a_day(NOON + 2 * COOLDOWN)).refused(
        "daily_stamp_limit", stamps_today=2, max_daily_stamps=2, next_stamp_available_at="2026-03-02T23:00:00Z"
    )


@pytest.mark.parametrize(
    ("day", "last_second"),
    [
        (date(2026, 3, 2), "2026-03-02T22:59:59"),
        (date(2026, 7, 1), "2026-07-01T21:59:59"),
        (date(2026, 3, 28), "2026-03-28T22:59:59"),
        (date(2026, 3, 29), "2026-03-29T21:59:59"),
        (date(2026, 10, 24), "2026-10-24T21:59:59"),
        (date(2026, 10, 25), "2026-10-25T22:59:59"),
        (date(2026, 12, 31), "2026-12-31T22:59:59"),
    ],
    ids=["winter", "summer", "eve of 23 hours", "23 hours", "eve of 25 hours", "25 hours", "new year's eve"],
)
def test_the_daily_limit_ends_with_the_day_of_luxembourg(day: date, last_second: str) -> None:
    end = instant(last_second)
    full = stamped_up_to_the_limit(end - 6 * timedelta(hours=1), day)
    full.when(AddStamp(), two_a_day(end)).refused(
        "daily_stamp_limit",
        stamps_today=2,
        max_daily_stamps=2,
        next_stamp_available_at=(end + SECOND).isoformat().replace("+00:00", "Z"),
    )
    full.when(AddStamp(), two_a_day(end + SECOND)).then(stamped(3, 1, day=day + timedelta(days=1)))


@pytest.mark.parametrize(
    ("day", "first_second", "last_second"),
    [
        (date(2026, 3, 29), "2026-03-28T23:00:00", "2026-03-29T21:59:59"),
        (date(2026, 10, 25), "2026-10-24T22:00:00", "2026-10-25T22:59:59"),
    ],
    ids=["23 hours", "25 hours"],
)
def test_a_day_on_which_the_clocks_change_is_one_day(day: date, first_second: str, last_second: str) -> None:
    first, last = instant(first_second), instant(last_second)
    once = a_card().when(AddStamp(), two_a_day(first)).then(stamped(1, day=day))
    twice = once.when(AddStamp(), two_a_day(last - COOLDOWN)).then(stamped(2, 2, day=day))
    twice.when(AddStamp(), two_a_day(last)).refused(
        "daily_stamp_limit",
        stamps_today=2,
        max_daily_stamps=2,
        next_stamp_available_at=(last + SECOND).isoformat().replace("+00:00", "Z"),
    )


def test_the_hour_that_comes_twice_does_not_shorten_the_cooldown() -> None:
    before = instant("2026-10-25T00:50:00")
    stamped_once = a_card(at(before), stamped(1, day=date(2026, 10, 25)))
    stamped_once.when(AddStamp(), facts(before + COOLDOWN - SECOND)).refused(
        "stamp_cooldown", next_stamp_available_at="2026-10-25T01:05:00Z"
    )


def test_each_store_counts_its_own_day() -> None:
    afternoon = instant("2026-03-02T15:30:00")
    full = stamped_up_to_the_limit(afternoon - COOLDOWN, DAY)
    in_tokyo = full.when(AddStamp(), two_a_day(afternoon, TOKYO)).then(stamped(3, 1, day=date(2026, 3, 3)))
    in_tokyo.when(AddStamp(), two_a_day(afternoon + COOLDOWN)).refused(
        "daily_stamp_limit", stamps_today=2, max_daily_stamps=2, next_stamp_available_at="2026-03-02T23:00:00Z"
    )


def test_stores_with_the_same_date_share_the_limit() -> None:
    morning = instant("2026-03-02T14:00:00")
    stamped_up_to_the_limit(morning, DAY).when(AddStamp(), two_a_day(morning + COOLDOWN, NEW_YORK)).refused(
        "daily_stamp_limit", stamps_today=2, max_daily_stamps=2, next_stamp_available_at="2026-03-03T05:00:00Z"
    )


def test_a_card_remembers_the_dates_beside_its_last_stamp_only() -> None:
    history = [stamped(number, day=DAY + timedelta(days=number)) for number in range(1, 5)]
    assert [entry.day for entry in a_card(*history).state.recent_stamps] == [
        date(2026, 3, 4),
        date(2026, 3, 5),
        date(2026, 3, 6),
    ]


def test_a_stamp_that_arrives_late_makes_no_card_forget_those_of_today() -> None:
    narrow = facts(NOON, max_daily_stamps=1, cooldown_minutes=0)
    long_ago = facts(NOON - 60 * ONE_DAY, cooldown_minutes=0)
    late = a_card(stamped(1)).when(AddStamp(), long_ago).then(stamped(2, day=DAY - 60 * ONE_DAY))
    late.when(AddStamp(), narrow).refused(
        "daily_stamp_limit", stamps_today=1, max_daily_stamps=1, next_stamp_available_at="2026-03-02T23:00:00Z"
    )


# ---- stamps: when the next is due -----------------------------------------------------------------------------


def test_the_first_stamp_is_due_now() -> None:
    assert next_stamp_available_at(a_card().state, facts()) is None


def test_the_next_stamp_is_due_when_the_cooldown_ends() -> None:
    state = a_card(stamped(1)).state
    assert next_stamp_available_at(state, facts()) == NOON + COOLDOWN
    assert next_stamp_available_at(state, facts(NOON + COOLDOWN - SECOND)) == NOON + COOLDOWN
    assert next_stamp_available_at(state, facts(NOON + COOLDOWN)) is None


def test_after_the_days_last_stamp_the_next_is_due_at_midnight() -> None:
    state = stamped_up_to_the_limit(NOON, DAY).state
    assert next_stamp_available_at(state, two_a_day(NOON)) == instant("2026-03-02T23:00:00")


def test_the_next_stamp_waits_for_the_later_of_midnight_and_cooldown() -> None:
    evening = instant("2026-03-02T22:50:00")
    state = stamped_up_to_the_limit(evening, DAY).state
    assert next_stamp_available_at(state, two_a_day(evening)) == evening + COOLDOWN


# ---- stamps: the target ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "reward"), [(1, False), (9, False), (10, True), (11, False), (19, False), (20, True), (30, True)]
)
def test_a_reward_is_earned_at_every_multiple_of_the_target(count: int, reward: bool) -> None:
    before = stamped(count - 1, day=DAY - timedelta(days=1))
    collected = a_card(at(NOON - timedelta(days=1)), before)
    collected.when(AddStamp(), facts()).then(stamped(count, 1, reward=reward))


def test_every_stamp_is_a_reward_where_one_is_the_target() -> None:
    a_card().when(AddStamp(), facts(stamps_target=1)).then(stamped(1, reward=True))


@pytest.mark.parametrize(("count", "left"), [(10, 0), (11, 1), (23, 13)])
def test_redeeming_takes_the_target_and_what_is_over_stays(count: int, left: int) -> None:
    after = a_card(stamped(count)).when(RedeemStamps(), facts()).then(stamps_redeemed(left))
    assert after.state.stamp_count == left


def test_stamps_for_two_rewards_are_redeemed_twice() -> None:
    once = a_card(stamped(21)).when(RedeemStamps(), facts()).then(stamps_redeemed(11))
    twice = once.when(RedeemStamps(), facts()).then(stamps_redeemed(1))
    twice.when(RedeemStamps(), facts()).refused("not_enough_stamps", stamp_count=1, stamps_target=10, stamps_missing=9)


@pytest.mark.parametrize(("count", "missing"), [(0, 10), (1, 9), (9, 1)])
def test_fewer_stamps_than_the_target_are_not_redeemed(count: int, missing: int) -> None:
    a_card(stamped(count)).when(RedeemStamps(), facts()).refused(
        "not_enough_stamps", stamp_count=count, stamps_target=10, stamps_missing=missing
    )


def test_redeeming_stamps_leaves_points_and_cooldown_alone() -> None:
    rich = a_card(earned(30, 30), stamped(10, points=30))
    after = rich.when(RedeemStamps(), facts()).then(stamps_redeemed(0, points=30))
    assert (after.state.points_balance, after.state.last_stamp_at, after.state.stamps_on(DAY)) == (30, NOON, 1)
