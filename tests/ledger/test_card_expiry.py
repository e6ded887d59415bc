"""When points end, and what each night, each command and each change of the program makes of that."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ledger import card
from ledger.card import (
    AddStamp,
    Adjust,
    CardStatus,
    Close,
    ExpirePoints,
    Facts,
    NextExpiry,
    Reactivate,
    RedeemPoints,
    RedeemStamps,
    Suspend,
    next_expiry,
    standing,
)
from ledger.lots import Lot
from ledger.program import ExpiryPolicy, Program, ProgramType
from tests.ledger.cards import (
    DAY,
    ENROL,
    ONE_DAY,
    SECOND,
    STORES,
    a_card,
    bonus,
    closed,
    earned,
    enrolled,
    expired,
    facts,
    followed,
    instant,
    merge,
    part,
    points_redeemed,
    purchase,
    stamped,
    suspended,
)
from tests.ledger.specification import Given, at, given
from tests.shop import NOON

# ---- the next expiry ------------------------------------------------------------------------------------------


INACTIVITY: dict[str, Any] = {"points_expiration_days": 10}
EARNED: dict[str, Any] = {"points_expiration_days": 10, "expiry_policy": ExpiryPolicy.EARNED}
IDLE, DATED = followed(**INACTIVITY), followed(**EARNED)
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


# ---- the nightly run ------------------------------------------------------------------------------------------


def two_dated() -> Given:
    return a_card(earned(50, 50, expires_at=IN_TEN_DAYS), at(NOON + SECOND), earned(30, 80, expires_at=IN_TWELVE_DAYS))


FIRST_END = expired(IN_TEN_DAYS, 30, part(2, 50, IN_TEN_DAYS))
SECOND_END = expired(IN_TWELVE_DAYS, 0, part(3, 30, IN_TWELVE_DAYS, NOON + SECOND))


def test_each_earning_ends_at_its_own_time() -> None:
    nothing_yet = two_dated()
    nothing_yet.when(ExpirePoints(), facts(IN_TEN_DAYS - SECOND, **EARNED)).quiet()
    first = nothing_yet.when(ExpirePoints(), facts(IN_TEN_DAYS, **EARNED)).then(FIRST_END)
    assert first.state.lots == (Lot(3, 30, NOON + SECOND, IN_TWELVE_DAYS),)
    first.when(ExpirePoints(), facts(IN_TWELVE_DAYS - SECOND, **EARNED)).quiet()
    second = first.when(ExpirePoints(), facts(IN_TWELVE_DAYS, **EARNED)).then(SECOND_END)
    assert (second.state.points_balance, second.state.lots) == (0, ())


def test_nights_that_were_missed_are_made_up_for_as_if_none_had_been() -> None:
    late = two_dated().when(ExpirePoints(), facts(IN_TWELVE_DAYS + 99 * ONE_DAY, **EARNED)).then(FIRST_END, SECOND_END)
    assert [each.at.occurred_at for each in late.past[-2:]] == [IN_TEN_DAYS, IN_TWELVE_DAYS]


@pytest.mark.parametrize("changes", [{}, {"points_expiration_days": 10}], ids=["never", "inactivity"])
def test_a_run_twice_takes_nothing_twice(changes: dict[str, Any]) -> None:
    long_after = facts(IN_TWELVE_DAYS + ONE_DAY, **(EARNED | changes))
    after = two_dated().when(ExpirePoints(), long_after).done()
    after.when(ExpirePoints(), long_after).quiet()


def test_earnings_that_end_at_one_instant_end_in_one_event() -> None:
    both = a_card(earned(50, 50, expires_at=IN_TEN_DAYS), earned(30, 80, expires_at=IN_TEN_DAYS))
    both.when(ExpirePoints(), facts(IN_TEN_DAYS, **EARNED)).then(
        expired(IN_TEN_DAYS, 0, part(2, 50, IN_TEN_DAYS), part(3, 30, IN_TEN_DAYS))
    )


def test_what_ends_first_goes_first_although_it_was_earned_later() -> None:
    crossed = a_card(earned(50, 50, expires_at=IN_TWELVE_DAYS), earned(30, 80, expires_at=IN_TEN_DAYS))
    crossed.when(ExpirePoints(), facts(IN_TWELVE_DAYS, **EARNED)).then(
        expired(IN_TEN_DAYS, 50, part(3, 30, IN_TEN_DAYS)), expired(IN_TWELVE_DAYS, 0, part(2, 50, IN_TWELVE_DAYS))
    )


def test_points_without_an_end_stay_where_each_earning_ends_by_itself() -> None:
    mixed = a_card(bonus(20), earned(50, 70, expires_at=IN_TEN_DAYS))
    after = mixed.when(ExpirePoints(), facts(IN_TWELVE_DAYS, **EARNED)).then(
        expired(IN_TEN_DAYS, 20, part(3, 50, IN_TEN_DAYS))
    )
    after.when(ExpirePoints(), facts(IN_TWELVE_DAYS + 9999 * ONE_DAY, **EARNED)).quiet()


def test_what_is_left_of_an_earning_ends() -> None:
    spent = a_card(earned(150, 150, expires_at=IN_TEN_DAYS), points_redeemed(50, part(2, 100, IN_TEN_DAYS)))
    spent.when(ExpirePoints(), facts(IN_TEN_DAYS, **EARNED)).then(expired(IN_TEN_DAYS, 0, part(2, 50, IN_TEN_DAYS)))


def test_all_points_of_an_idle_card_end_together() -> None:
    collected = a_card(earned(50, 50), at(NOON + 2 * ONE_DAY), earned(30, 80, expires_at=IN_TEN_DAYS))
    collected.when(ExpirePoints(), facts(IN_TWELVE_DAYS - SECOND, **INACTIVITY)).quiet()
    collected.when(ExpirePoints(), facts(IN_TWELVE_DAYS, **INACTIVITY)).then(
        expired(IN_TWELVE_DAYS, 0, part(2, 50), part(3, 30, IN_TEN_DAYS, NOON + 2 * ONE_DAY))
    )


def test_expiry_is_no_activity() -> None:
    gone = a_card(earned(50, 50)).when(ExpirePoints(), facts(IN_TEN_DAYS, **INACTIVITY)).done()
    assert gone.state.last_activity_at == NOON


@pytest.mark.parametrize("policy", list(ExpiryPolicy))
def test_where_the_program_names_no_days_nothing_ends(policy: ExpiryPolicy) -> None:
    two_dated().when(ExpirePoints(), facts(NOON + 9999 * ONE_DAY, expiry_policy=policy)).quiet()


@pytest.mark.parametrize("changes", [EARNED, INACTIVITY], ids=["earned", "inactivity"])
def test_a_card_without_points_and_one_that_owes_some_have_none_to_lose(changes: dict[str, Any]) -> None:
    late = facts(NOON + 9999 * ONE_DAY, **changes)
    a_card(earned(0, 0)).when(ExpirePoints(), late).quiet()
    a_card().but(points_balance=-5).when(ExpirePoints(), late).quiet()


def test_stamps_do_not_end() -> None:
    late = facts(NOON + 9999 * ONE_DAY, **INACTIVITY)
    a_card(stamped(3)).when(ExpirePoints(), late).quiet()
    after = (
        a_card(stamped(3), earned(50, 50, stamps=3))
        .when(ExpirePoints(), late)
        .then(expired(IN_TEN_DAYS, 0, part(3, 50), stamps=3))
    )
    assert after.state.stamp_count == 3


def test_what_is_no_card_has_nothing_to_lose() -> None:
    given(card).when(ExpirePoints(), facts()).refused("card_not_found")


@pytest.mark.parametrize("program_changes", [{"active": False}, {"type": ProgramType.STAMPS}], ids=["over", "stamps"])
def test_points_end_whatever_became_of_the_program(program_changes: dict[str, Any]) -> None:
    two_dated().when(ExpirePoints(), facts(IN_TEN_DAYS, **(EARNED | program_changes))).then(FIRST_END)


@pytest.mark.parametrize("status", [CardStatus.SUSPENDED, CardStatus.CLOSED])
@pytest.mark.parametrize("changes", [EARNED, INACTIVITY], ids=["earned", "inactivity"])
def test_points_end_on_a_card_that_takes_no_part(status: CardStatus, changes: dict[str, Any]) -> None:
    after = two_dated().but(status=status).when(ExpirePoints(), facts(IN_TWELVE_DAYS, **changes)).done()
    assert (after.state.status, after.state.points_balance) == (status, 0)


def test_a_merged_card_has_nothing_left_to_end() -> None:
    gave, _ = merge(two_dated(), a_card(stream=UUID(int=0xAB)))
    gave.when(ExpirePoints(), facts(IN_TWELVE_DAYS, **EARNED)).quiet()


def test_what_has_ended_does_not_stand_on_the_card_though_no_night_has_come() -> None:
    unnoticed = two_dated().state
    assert standing(unnoticed, DATED, IN_TEN_DAYS - SECOND) == unnoticed
    for now, balance in ((IN_TEN_DAYS, 30), (IN_TWELVE_DAYS - SECOND, 30), (IN_TWELVE_DAYS, 0)):
        noticed = two_dated().when(ExpirePoints(), facts(now, **EARNED)).done().state
        assert standing(unnoticed, DATED, now) == noticed
        assert noticed.points_balance == balance


# ---- commands after the due time ------------------------------------------------------------------------------

LATE = IN_TEN_DAYS + ONE_DAY


def test_a_command_first_takes_what_was_due_before_it() -> None:
    after = (
        two_dated()
        .when(AddStamp(), facts(LATE, **EARNED))
        .then(FIRST_END, stamped(1, day=DAY + 11 * ONE_DAY, points=30))
    )
    assert [each.at.occurred_at for each in after.past[-2:]] == [IN_TEN_DAYS, LATE]


def test_a_command_at_the_very_instant_comes_after_the_expiry() -> None:
    idle = a_card(earned(50, 50))
    idle.when(AddStamp(), facts(IN_TEN_DAYS, **INACTIVITY)).then(
        expired(IN_TEN_DAYS, 0, part(2, 50)), stamped(1, day=DAY + 10 * ONE_DAY)
    )
    idle.when(AddStamp(), facts(IN_TEN_DAYS - SECOND, **INACTIVITY)).then(stamped(1, day=DAY + 10 * ONE_DAY, points=50))


def test_points_earned_late_join_no_lot_that_has_ended() -> None:
    idle = a_card(earned(50, 50))
    after = idle.when(purchase(100), facts(LATE, **INACTIVITY)).then(
        expired(IN_TEN_DAYS, 0, part(2, 50)), earned(10, 10)
    )
    assert after.state.lots == (Lot(4, 10, LATE, None),)


def test_points_that_have_ended_buy_nothing_although_no_night_has_come() -> None:
    rich = a_card(earned(100, 100, expires_at=IN_TEN_DAYS), earned(99, 199, expires_at=IN_TWELVE_DAYS))
    rich.when(RedeemPoints("coffee"), facts(IN_TEN_DAYS, **EARNED)).refused(
        "not_enough_points", points_balance=99, points_cost=100, points_missing=1
    )
    assert rich.when(RedeemPoints("coffee"), facts(IN_TEN_DAYS - SECOND, **EARNED)).refusal is None


def test_a_correction_takes_only_what_has_not_ended() -> None:
    two_dated().when(Adjust(points=-31, reason="Oops"), facts(LATE, **EARNED)).refused(
        "not_enough_points", points_balance=30, points_missing=1
    )


def test_what_is_due_ends_before_a_card_is_stopped_or_ended() -> None:
    for command, event in ((Suspend(), suspended(30)), (Close(), closed(30))):
        two_dated().when(command, facts(LATE, **EARNED)).then(FIRST_END, event)


def test_a_command_that_is_refused_leaves_no_expiry() -> None:
    outcome = two_dated().when(RedeemStamps(), facts(LATE, **EARNED))
    outcome.refused("not_enough_stamps", stamp_count=0, stamps_target=10, stamps_missing=10)
    assert outcome.events == []


def test_a_command_that_stays_quiet_leaves_no_expiry() -> None:
    two_dated().when(Reactivate(), facts(LATE, **EARNED)).quiet()
    two_dated().when(ENROL, facts(LATE, **EARNED)).quiet()


def test_a_till_that_was_offline_takes_nothing_that_was_not_due_at_its_time() -> None:
    two_dated().when(AddStamp(), facts(IN_TEN_DAYS - SECOND, **EARNED)).then(
        stamped(1, day=DAY + 10 * ONE_DAY, points=80)
    )


def test_what_an_offline_till_earned_long_ago_ends_when_it_would_have() -> None:
    """The purchase arrives after its points were due, and they end the next time anybody looks."""
    offline = a_card().when(purchase(100), facts(NOON, **EARNED)).then(earned(10, 10, expires_at=IN_TEN_DAYS))
    offline.when(AddStamp(), facts(LATE, **EARNED)).then(
        expired(IN_TEN_DAYS, 0, part(2, 10, IN_TEN_DAYS)), stamped(1, day=DAY + 11 * ONE_DAY)
    )


def test_what_an_offline_till_did_before_an_expiry_does_not_bring_it_back() -> None:
    idle = a_card(earned(50, 50)).when(ExpirePoints(), facts(LATE, **INACTIVITY)).done()
    earlier = NOON + 5 * ONE_DAY
    after = idle.when(purchase(100), facts(earlier, **INACTIVITY)).then(earned(10, 10))
    assert (after.state.lots, after.state.last_activity_at) == ((Lot(4, 10, earlier, None),), earlier)
    assert next_expiry(after.state, IDLE) == NextExpiry(10, earlier + 10 * ONE_DAY)


@pytest.mark.timeout(20)
def test_thousands_of_lots_that_are_all_due_end_one_after_the_other_in_no_time() -> None:
    """Taken one by one out of a tuple that is copied whole each time, they would take a minute."""
    lots = tuple(Lot(2 + n, 10, NOON, NOON + 2 * ONE_DAY + n * SECOND) for n in range(10_000))
    grown = a_card().but(lots=lots, points_balance=100_000)
    bought = grown.when(purchase(100), facts(LATE, **EARNED)).done()
    assert bought.state.points_balance == 10
    assert bought.version == grown.version + 10_001


# ---- a program that changes its expiry ------------------------------------------------------------------------

CHANGED = NOON + 20 * ONE_DAY
NOTICED = CHANGED + ONE_DAY
"""A change takes points a day after it was made, so that a slip can be put right."""


def changing(now: datetime, **changes: Any) -> Facts:
    """Facts under a program whose points never ended until it was changed."""
    program = followed(CHANGED, **changes)
    periods = (*followed(NOON).expiry_periods, *program.expiry_periods)
    return msgspec.structs.replace(facts(now), program=msgspec.structs.replace(program, expiry_periods=periods))


@pytest.mark.parametrize("changes", [EARNED, INACTIVITY], ids=["earned", "inactivity"])
def test_a_change_ends_nothing_before_a_day_has_passed(changes: dict[str, Any]) -> None:
    dated = a_card(earned(50, 50, expires_at=IN_TEN_DAYS))
    dated.when(ExpirePoints(), changing(NOTICED - SECOND, **changes)).quiet()
    dated.when(ExpirePoints(), changing(NOTICED, **changes)).then(expired(NOTICED, 0, part(2, 50, IN_TEN_DAYS)))
    assert next_expiry(dated.state, changing(NOON, **changes).program) == NextExpiry(50, NOTICED)


@pytest.mark.parametrize("changes", [EARNED, INACTIVITY], ids=["earned", "inactivity"])
def test_nothing_ends_before_the_program_began(changes: dict[str, Any]) -> None:
    dated = a_card(earned(50, 50, expires_at=IN_TEN_DAYS))
    dated.when(ExpirePoints(), facts(CHANGED, expiry_since=CHANGED, **changes)).then(
        expired(CHANGED, 0, part(2, 50, IN_TEN_DAYS))
    )


@pytest.mark.parametrize("changes", [EARNED, INACTIVITY], ids=["earned", "inactivity"])
def test_what_ends_after_the_change_ends_in_its_own_time(changes: dict[str, Any]) -> None:
    program = followed(NOON + ONE_DAY, **changes)
    dated = a_card(earned(50, 50, expires_at=IN_TEN_DAYS))
    assert next_expiry(dated.state, program) == NextExpiry(50, IN_TEN_DAYS)


def test_lots_that_would_have_ended_before_the_change_end_together_with_it() -> None:
    two_dated().when(ExpirePoints(), changing(NOTICED, **EARNED)).then(
        expired(NOTICED, 0, part(2, 50, IN_TEN_DAYS), part(3, 30, IN_TWELVE_DAYS, NOON + SECOND))
    )


@pytest.mark.parametrize(
    "changes", [EARNED, INACTIVITY, {"points_expiration_days": None}], ids=["earned", "idle", "no"]
)
@pytest.mark.parametrize("before", [EARNED, INACTIVITY], ids=["was earned", "was idle"])
def test_what_was_due_before_a_change_ends_by_the_rules_of_its_time_whoever_noticed(
    before: dict[str, Any], changes: dict[str, Any]
) -> None:
    changed = msgspec.structs.replace(
        followed(CHANGED, **changes),
        expiry_periods=(*followed(NOON, **before).expiry_periods, *followed(CHANGED, **changes).expiry_periods),
    )
    later = msgspec.structs.replace(facts(CHANGED + 5 * ONE_DAY), program=changed)
    dated = a_card(earned(50, 50, expires_at=IN_TEN_DAYS))
    dated.when(ExpirePoints(), later).then(expired(IN_TEN_DAYS, 0, part(2, 50, IN_TEN_DAYS)))


def test_what_was_not_due_before_a_change_to_never_does_not_end() -> None:
    changed = msgspec.structs.replace(
        followed(NOON + ONE_DAY),
        expiry_periods=(*followed(NOON, **EARNED).expiry_periods, *followed(NOON + ONE_DAY).expiry_periods),
    )
    later = msgspec.structs.replace(facts(CHANGED), program=changed)
    a_card(earned(50, 50, expires_at=IN_TEN_DAYS)).when(ExpirePoints(), later).quiet()


def test_a_slip_that_is_put_right_within_a_day_takes_nothing() -> None:
    slip, mended = followed(CHANGED, points_expiration_days=1), followed(CHANGED + ONE_DAY - SECOND)
    changed = msgspec.structs.replace(
        mended, expiry_periods=(*followed(NOON).expiry_periods, *slip.expiry_periods, *mended.expiry_periods)
    )
    idle = a_card(earned(50, 50))
    idle.when(ExpirePoints(), msgspec.structs.replace(facts(NOTICED + ONE_DAY), program=changed)).quiet()
    assert next_expiry(idle.state, changed) is None


def test_a_lot_keeps_its_end_when_the_days_change() -> None:
    longer = followed(NOON + ONE_DAY, **(EARNED | {"points_expiration_days": 99}))
    assert next_expiry(two_dated().state, longer) == NextExpiry(50, IN_TEN_DAYS)


def test_an_idle_card_follows_the_days_as_they_are() -> None:
    idle = a_card(earned(50, 50))
    shorter, longer = (followed(NOON + ONE_DAY, points_expiration_days=days) for days in (5, 99))
    assert next_expiry(idle.state, shorter) == NextExpiry(50, NOON + 5 * ONE_DAY)
    assert next_expiry(idle.state, longer) == NextExpiry(50, NOON + 99 * ONE_DAY)


def test_lots_with_an_end_of_their_own_stay_where_idle_cards_expire() -> None:
    dated = a_card(earned(50, 50, expires_at=IN_TEN_DAYS), at(IN_TEN_DAYS - SECOND), stamped(1, points=50))
    dated.when(ExpirePoints(), facts(IN_TEN_DAYS, **INACTIVITY)).quiet()


# ---- calendars and clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("earned_at", "days", "end"),
    [
        ("2026-01-31T11:00:00", 1, "2026-02-01T11:00:00"),
        ("2026-01-31T11:00:00", 28, "2026-02-28T11:00:00"),
        ("2026-01-31T11:00:00", 30, "2026-03-02T11:00:00"),
        ("2028-01-31T11:00:00", 30, "2028-03-01T11:00:00"),
        ("2028-02-29T11:00:00", 365, "2029-02-28T11:00:00"),
        ("2028-02-29T11:00:00", 366, "2029-03-01T11:00:00"),
        ("2027-02-28T11:00:00", 366, "2028-02-29T11:00:00"),
        ("2026-12-31T23:59:59", 1, "2027-01-01T23:59:59"),
        ("2026-03-28T23:30:00", 1, "2026-03-29T23:30:00"),
        ("2026-10-24T22:30:00", 1, "2026-10-25T22:30:00"),
        ("2026-03-02T11:00:00", 36_500, "2126-02-06T11:00:00"),
    ],
    ids=[
        "month end",
        "to the end of February",
        "past February",
        "past a leap February",
        "a year from a leap day",
        "a leap year from a leap day",
        "to a leap day",
        "year end",
        "the day of 23 hours",
        "the day of 25 hours",
        "a hundred years",
    ],
)
@pytest.mark.parametrize("store", list(STORES), ids=["Luxembourg", "Tokyo", "New York"])
@pytest.mark.parametrize("policy", list(ExpiryPolicy))
def test_a_day_of_expiry_is_24_hours_in_every_time_zone(
    earned_at: str, days: int, end: str, store: UUID, policy: ExpiryPolicy
) -> None:
    """So that points end at one instant wherever the card is looked at, and a change of clocks shortens nothing."""
    start, due = instant(earned_at), instant(end)

    def asked(now: datetime) -> Facts:
        return facts(now, store, expiry_since=start, points_expiration_days=days, expiry_policy=policy)

    bought = given(card, at(start), enrolled()).when(purchase(100), asked(start)).done()
    assert next_expiry(bought.state, asked(start).program) == NextExpiry(10, due)
    bought.when(ExpirePoints(), asked(due - SECOND)).quiet()
    ends = due if policy is ExpiryPolicy.EARNED else None
    bought.when(ExpirePoints(), asked(due)).then(expired(due, 0, part(2, 10, ends, start)))
