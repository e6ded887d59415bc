"""What may be done with a card, to the second and to the cent."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from ledger import card
from ledger.card import (
    AddStamp,
    CardEnrolled,
    CardHolder,
    CardStatus,
    Command,
    EarnPoints,
    Enrol,
    Facts,
    NextExpiry,
    PointsEarned,
    PointsRedeemed,
    RedeemPoints,
    RedeemStamps,
    StampAdded,
    StampsRedeemed,
    WelcomeBonusGranted,
    next_expiry,
    next_stamp_available_at,
    points_for,
)
from ledger.card_plans import card_facts
from ledger.errors import Rejected
from ledger.lots import Lot, LotPart
from ledger.merchant import Merchant, MerchantSettings, Store
from ledger.program import ExpiryPolicy, Program, ProgramType, Reward
from tests.ledger.specification import MERCHANT_ID, STREAM, Given, at, given
from tests.shop import NOON, rules

DAY = date(2026, 3, 2)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
COOLDOWN = 15 * MINUTE
CUSTOMER = UUID(int=7)
ENROL = Enrol(customer=CUSTOMER, customer_id="C-1", card_number="123456789015", qr_code="token")

LUXEMBOURG, TOKYO, NEW_YORK = UUID(int=1), UUID(int=2), UUID(int=3)
ZONES = {LUXEMBOURG: "Europe/Luxembourg", TOKYO: "Asia/Tokyo", NEW_YORK: "America/New_York"}
STORES = {
    store_id: Store(id=store_id, code=zone, name=zone, time_zone=zone, currency="EUR", locale="en")
    for store_id, zone in ZONES.items()
}


def facts(
    now: datetime = NOON, store: UUID = LUXEMBOURG, settings: MerchantSettings | None = None, **changes: Any
) -> Facts:
    """What a decision rests on in one of three stores, under the third version of a program."""
    tenant = Merchant(id=MERCHANT_ID, name="Shop", locale="en", settings=settings or MerchantSettings(), stores=STORES)
    third = Program(
        id=UUID(int=9), merchant_id=MERCHANT_ID, version=3, rules=rules(**changes), changed_at=NOON, expiry_since=NOON
    )
    return card_facts(now, tenant, third, store)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# ---- events ---------------------------------------------------------------------------------------------------


def enrolled(store: UUID | None = LUXEMBOURG) -> CardEnrolled:
    return CardEnrolled(
        customer=CUSTOMER,
        card_number="123456789015",
        store_id=store,
        program_version=3,
        stamp_count=0,
        points_balance=0,
        private=CardHolder("C-1", "token"),
    )


def stamped(count: int, today: int = 1, *, day: date = DAY, reward: bool = False, points: int = 0) -> StampAdded:
    return StampAdded(
        stamps=1,
        day=day,
        stamps_today=today,
        reward_earned=reward,
        program_version=3,
        stamp_count=count,
        points_balance=points,
    )


def stamps_redeemed(left: int, *, stamps: int = 10, points: int = 0) -> StampsRedeemed:
    return StampsRedeemed(
        stamps=stamps, reward="A free coffee", program_version=3, stamp_count=left, points_balance=points
    )


def earned(points: int, balance: int, *, cents: int | None = None, stamps: int = 0, **more: Any) -> PointsEarned:
    return PointsEarned(
        points=points,
        purchase_amount_cents=points * 10 if cents is None else cents,
        program_version=3,
        stamp_count=stamps,
        points_balance=balance,
        **more,
    )


def points_redeemed(balance: int, *lots: LotPart, reward: str = "coffee", stamps: int = 0) -> PointsRedeemed:
    return PointsRedeemed(
        points=sum(part.points for part in lots),
        reward_id=reward,
        reward_name=reward.capitalize(),
        lots=lots,
        program_version=3,
        stamp_count=stamps,
        points_balance=balance,
    )


def bonus(points: int, expires_at: datetime | None = None) -> WelcomeBonusGranted:
    return WelcomeBonusGranted(
        points=points, expires_at=expires_at, program_version=3, stamp_count=0, points_balance=points
    )


def purchase(cents: int, order_reference: str | None = None) -> EarnPoints:
    return EarnPoints(purchase_amount_cents=cents, order_reference=order_reference)


def a_card(*history: Any) -> Given:
    return given(card, enrolled(), *history)


# ---- enrolling ------------------------------------------------------------------------------------------------


def test_a_customer_is_given_a_card() -> None:
    after = given(card).when(ENROL, facts()).then(enrolled())
    assert (after.state.id, after.state.merchant_id, after.state.store_id) == (STREAM, MERCHANT_ID, LUXEMBOURG)
    assert (after.state.customer, after.state.customer_id) == (CUSTOMER, "C-1")
    assert (after.state.card_number, after.state.qr_code) == ("123456789015", "token")
    assert (after.state.enrolled_at, after.state.last_activity_at) == (NOON, NOON)
    assert (after.state.status, after.state.stamp_count, after.state.points_balance) == (CardStatus.ACTIVE, 0, 0)


def test_enrolling_again_stays_quiet() -> None:
    a_card().when(ENROL, facts(welcome_bonus_points=50)).quiet()


def test_enrolling_again_stays_quiet_where_the_program_is_over() -> None:
    a_card().when(ENROL, facts(active=False)).quiet()


def test_an_inactive_program_takes_nobody() -> None:
    given(card).when(ENROL, facts(active=False)).refused("program_inactive")


@pytest.mark.parametrize("program_type", [ProgramType.POINTS, ProgramType.HYBRID])
def test_a_welcome_bonus_is_points_to_begin_with(program_type: ProgramType) -> None:
    welcoming = facts(type=program_type, welcome_bonus_points=50)
    after = given(card).when(ENROL, welcoming).then(enrolled(), bonus(50))
    assert (after.state.points_balance, after.state.lots) == (50, (Lot(2, 50, NOON, None),))


def test_a_stamps_program_gives_no_points_for_a_welcome() -> None:
    given(card).when(ENROL, facts(type=ProgramType.STAMPS, welcome_bonus_points=50)).then(enrolled())


def test_a_welcome_bonus_is_a_lot_like_any_other() -> None:
    policy = facts(welcome_bonus_points=50, points_expiration_days=10, expiry_policy=ExpiryPolicy.EARNED)
    given(card).when(ENROL, policy).then(enrolled(), bonus(50, NOON + timedelta(days=10)))


def test_of_an_erased_person_the_card_keeps_no_reference_and_no_token() -> None:
    erased = CardEnrolled(
        customer=CUSTOMER, card_number="123456789015", program_version=3, stamp_count=0, points_balance=0
    )
    state = given(card, erased).state
    assert (state.customer_id, state.qr_code) == (None, None)


# ---- what every command needs ---------------------------------------------------------------------------------

COMMANDS: list[Command] = [AddStamp(), RedeemStamps(), purchase(100), RedeemPoints("coffee")]
of_each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)


@of_each_command
def test_nothing_can_be_done_with_a_card_that_is_none(command: Command) -> None:
    given(card).when(command, facts()).refused("card_not_found")


@of_each_command
@pytest.mark.parametrize("status", [CardStatus.SUSPENDED, CardStatus.CLOSED, CardStatus.ERASED])
def test_only_an_active_card_takes_part(command: Command, status: CardStatus) -> None:
    a_card().but(status=status).when(command, facts()).refused("card_not_active", status=status)


@of_each_command
def test_nothing_goes_on_in_an_inactive_program(command: Command) -> None:
    a_card().when(command, facts(active=False)).refused("program_inactive")


@pytest.mark.parametrize("command", [AddStamp(), RedeemStamps()], ids=["add", "redeem"])
def test_a_points_program_has_no_stamps(command: Command) -> None:
    a_card().when(command, facts(type=ProgramType.POINTS)).refused("stamps_not_offered", program_type="points")


@pytest.mark.parametrize("command", [purchase(100), RedeemPoints("coffee")], ids=["earn", "redeem"])
def test_a_stamps_program_has_no_points(command: Command) -> None:
    a_card().when(command, facts(type=ProgramType.STAMPS)).refused("points_not_offered", program_type="stamps")


def test_where_a_merchant_has_several_stores_one_must_be_named() -> None:
    tenant = Merchant(id=MERCHANT_ID, name="Shop", locale="en", settings=MerchantSettings(), stores=STORES)
    first = Program(
        id=UUID(int=9), merchant_id=MERCHANT_ID, version=1, rules=rules(), changed_at=NOON, expiry_since=NOON
    )
    for store in (None, UUID(int=99)):
        with pytest.raises(Rejected, match="store_required"):
            card_facts(NOON, tenant, first, store)


def test_a_merchants_only_store_need_not_be_named() -> None:
    only = {LUXEMBOURG: STORES[LUXEMBOURG]}
    tenant = Merchant(id=MERCHANT_ID, name="Shop", locale="en", settings=MerchantSettings(), stores=only)
    first = Program(
        id=UUID(int=9), merchant_id=MERCHANT_ID, version=1, rules=rules(), changed_at=NOON, expiry_since=NOON
    )
    assert card_facts(NOON, tenant, first, None).store_id == LUXEMBOURG


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
        earned(points, 5 + points, cents=cents)
    )


@pytest.mark.parametrize("program_type", [ProgramType.POINTS, ProgramType.HYBRID])
def test_points_form_a_lot_of_their_own(program_type: ProgramType) -> None:
    first = a_card().when(purchase(2500), facts(type=program_type)).then(earned(250, 250))
    second = first.when(purchase(100), facts(type=program_type)).then(earned(10, 260))
    assert second.state.lots == (Lot(2, 250, NOON, None), Lot(3, 10, NOON, None))


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
    after = a_card(earned(260, 260)).when(RedeemPoints("coffee"), facts()).then(points_redeemed(160, LotPart(2, 100)))
    assert (after.state.points_balance, after.state.lots) == (160, (Lot(2, 160, NOON, None),))


def test_exactly_enough_points_are_enough() -> None:
    after = a_card(earned(100, 100)).when(RedeemPoints("coffee"), facts()).then(points_redeemed(0, LotPart(2, 100)))
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
    collected = a_card(bonus(60), stamped(1, points=60), earned(30, 90, stamps=1), earned(50, 140, stamps=1))
    spent = points_redeemed(40, LotPart(2, 60), LotPart(4, 30), LotPart(5, 10), stamps=1)
    after = collected.when(RedeemPoints("coffee"), facts()).then(spent)
    assert after.state.lots == (Lot(5, 40, NOON, None),)


def test_what_is_left_of_a_lot_is_spent_before_the_next() -> None:
    spent = a_card(earned(150, 150), earned(60, 210)).then(points_redeemed(110, LotPart(2, 100)))
    again = points_redeemed(10, LotPart(2, 50), LotPart(3, 50))
    assert spent.when(RedeemPoints("coffee"), facts()).then(again).state.lots == (Lot(3, 10, NOON, None),)


@pytest.mark.parametrize("reward_id", ["tea", "", "Coffee"])
def test_what_is_no_reward_of_the_program_cannot_be_had(reward_id: str) -> None:
    a_card(earned(999, 999)).when(RedeemPoints(reward_id), facts()).refused("reward_not_found", reward_id=reward_id)


def test_a_reward_that_is_not_active_cannot_be_had() -> None:
    withdrawn = (Reward(id="coffee", name="Coffee", points_cost=100, active=False),)
    a_card(earned(999, 999)).when(RedeemPoints("coffee"), facts(rewards=withdrawn)).refused(
        "reward_not_found", reward_id="coffee"
    )


# ---- other stores ---------------------------------------------------------------------------------------------

AT_HOME_ONLY = MerchantSettings(allow_cross_store_redemption=False)


def a_rich_card(store: UUID | None) -> Given:
    return given(card, enrolled(store), earned(100, 100), stamped(10, points=100))


@pytest.mark.parametrize("command", [RedeemStamps(), RedeemPoints("coffee")], ids=["stamps", "points"])
def test_a_merchant_may_give_rewards_only_where_the_card_was_opened(command: Command) -> None:
    a_rich_card(LUXEMBOURG).when(command, facts(store=TOKYO, settings=AT_HOME_ONLY)).refused(
        "other_store", store_id=str(LUXEMBOURG)
    )
    assert a_rich_card(LUXEMBOURG).when(command, facts(settings=AT_HOME_ONLY)).refusal is None


@pytest.mark.parametrize("command", [RedeemStamps(), RedeemPoints("coffee")], ids=["stamps", "points"])
def test_rewards_are_given_everywhere_unless_the_merchant_says_otherwise(command: Command) -> None:
    assert a_rich_card(LUXEMBOURG).when(command, facts(store=TOKYO)).refusal is None


@pytest.mark.parametrize("command", [RedeemStamps(), RedeemPoints("coffee")], ids=["stamps", "points"])
def test_a_card_of_no_store_is_at_home_everywhere(command: Command) -> None:
    assert a_rich_card(None).when(command, facts(store=TOKYO, settings=AT_HOME_ONLY)).refusal is None


@pytest.mark.parametrize("command", [AddStamp(), purchase(100)], ids=["stamp", "points"])
def test_stamps_and_points_are_collected_in_every_store(command: Command) -> None:
    assert a_card().when(command, facts(store=TOKYO, settings=AT_HOME_ONLY)).refusal is None


# ---- time passing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event", [stamped(1), stamps_redeemed(0), earned(0, 0), points_redeemed(0)], ids=lambda event: type(event).__name__
)
def test_whatever_happens_to_a_card_is_activity(event: Any) -> None:
    later = NOON + timedelta(days=3)
    assert a_card(at(later), event).state.last_activity_at == later


def test_what_is_recorded_late_does_not_set_activity_back() -> None:
    later = NOON + timedelta(days=3)
    assert a_card(at(later), earned(10, 10), at(NOON), earned(10, 20)).state.last_activity_at == later


# ---- the next expiry ------------------------------------------------------------------------------------------


def followed(**changes: Any) -> Program:
    return facts(**changes).program


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
    collected = a_card(earned(150, 150, expires_at=IN_TEN_DAYS), points_redeemed(50, LotPart(2, 100)))
    assert next_expiry(collected.state, DATED) == NextExpiry(50, IN_TEN_DAYS)


def test_the_earning_that_ends_first_is_told_whichever_came_first() -> None:
    collected = a_card(earned(50, 50, expires_at=IN_TWELVE_DAYS), earned(30, 80, expires_at=IN_TEN_DAYS))
    assert next_expiry(collected.state, DATED) == NextExpiry(30, IN_TEN_DAYS)


def test_points_earned_before_the_policy_do_not_expire_under_it() -> None:
    assert next_expiry(a_card(earned(50, 50)).state, DATED) is None
    collected = a_card(earned(50, 50), earned(30, 80, expires_at=IN_TEN_DAYS))
    assert next_expiry(collected.state, DATED) == NextExpiry(30, IN_TEN_DAYS)
