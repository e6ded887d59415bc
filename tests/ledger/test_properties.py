"""What holds for every history of a card, whatever was asked of it and when."""

from datetime import date, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import card
from ledger.card import (
    AddStamp,
    Card,
    CardEnrolled,
    Command,
    EarnPoints,
    Enrol,
    Event,
    Facts,
    PointsEarned,
    PointsExpired,
    PointsRedeemed,
    RedeemPoints,
    RedeemStamps,
    StampAdded,
    StampsRedeemed,
    WelcomeBonusGranted,
    points_for,
)
from ledger.card_plans import card_facts, luhn_digit
from ledger.entropy import CARD_NUMBER_BODY_DIGITS
from ledger.errors import Rejected
from ledger.lots import Lot, oldest_parts, without
from ledger.merchant import Merchant, MerchantSettings, Store
from ledger.program import ExpiryPolicy, Program, ProgramType, Reward, Rules, with_period
from tests.ledger.specification import MERCHANT_ID, occurrence
from tests.shop import NOON, rules

# Two stores, mostly on different dates; the history begins a day before the clocks of one of them change.
ZONES = {UUID(int=1): "Europe/Luxembourg", UUID(int=2): "Pacific/Auckland"}
STORES = {
    store_id: Store(id=store_id, code=zone, name=zone, time_zone=zone, currency="EUR", locale="en")
    for store_id, zone in ZONES.items()
}
BEGINNING = datetime.fromisoformat("2026-03-28T10:00:00+00:00")
# How long a history takes says how busy the machine is and nothing about the rules.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ENROL = Enrol(customer=UUID(int=7), customer_id="C-1", card_number="123456789015", qr_code="token")


class Asked(NamedTuple):
    """A command, and on what it was decided."""

    command: Command
    facts: Facts


class Told(NamedTuple):
    """An event, when it happened, under which rules, and the card after it."""

    event: Event
    time: datetime
    rules: Rules
    state: Card


COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.just(AddStamp()),
    st.just(RedeemStamps()),
    st.builds(EarnPoints, st.integers(0, 3_000), st.just(None)),
    st.builds(EarnPoints, st.sampled_from([-1, 0, 1, 100_000_000, 100_000_001]), st.just(None)),
    st.builds(RedeemPoints, st.sampled_from(["coffee", "cake", "tea"])),
)
PROGRAMS = st.builds(
    rules,
    type=st.just(ProgramType.HYBRID) | st.sampled_from(ProgramType),
    stamps_target=st.integers(1, 4),
    points_per_euro=st.integers(0, 200),
    rewards=st.just(
        (
            Reward(id="coffee", name="Coffee", points_cost=100),
            Reward(id="cake", name="Cake", points_cost=250),
            Reward(id="tea", name="Tea", points_cost=1, active=False),
        )
    ),
    minimum_purchase_cents=st.sampled_from([0, 0, 500]),
    welcome_bonus_points=st.sampled_from([0, 120]),
    cooldown_minutes=st.sampled_from([0, 15, 600]),
    max_daily_stamps=st.integers(1, 5),
    points_expiration_days=st.sampled_from([None, 1, 365]),
    expiry_policy=st.sampled_from(ExpiryPolicy),
    active=st.just(True),
)
STEPS = st.tuples(
    COMMANDS,
    st.sampled_from([0, 1, 899, 900, 3_600, 30_000, 80_000]),
    st.sampled_from(list(STORES)),
    st.sampled_from([0, 0, 0, 1, 1, 2]),
)


@st.composite
def requests(draw: st.DrawFn) -> list[Asked]:
    """An enrolment and what is asked of the card after it; the program may change in between."""
    first, second = draw(PROGRAMS), draw(PROGRAMS)
    versions = [first, second, msgspec.structs.replace(second, active=False)]
    tenant = Merchant(id=MERCHANT_ID, name="Shop", locale="en", settings=MerchantSettings(), stores=STORES)
    now = BEGINNING
    asked = []
    for command, seconds, store_id, version in [
        (ENROL, 0, UUID(int=1), 0),
        *draw(st.lists(STEPS, min_size=8, max_size=30)),
    ]:
        now += timedelta(seconds=seconds)
        followed = Program(
            id=UUID(int=9),
            merchant_id=MERCHANT_ID,
            version=version + 1,
            rules=versions[version],
            changed_at=BEGINNING,
            expiry_periods=with_period((), versions[version], BEGINNING),
        )
        asked.append(Asked(command, card_facts(now, tenant, followed, store_id)))
    return asked


def history(asked: list[Asked]) -> list[Told]:
    """What was made of all that, refusals left out."""
    told: list[Told] = []
    for command, facts in asked:
        state = told[-1].state if told else None
        for event in decided(state, command, facts):
            state = card.evolve(state, event, occurrence(len(told) + 1, facts.now))
            told.append(Told(event, facts.now, facts.program.rules, state))
    return told


def decided(state: Card | None, command: Command, facts: Facts) -> list[Event]:
    """The events of a decision; none where it is refused."""
    try:
        return card.decide(state, command, facts)
    except Rejected:
        return []


def signed_points(event: Event) -> int:
    """By how much an event changes the points."""
    match event:
        case PointsEarned(points=points) | WelcomeBonusGranted(points=points):
            return points
        case PointsRedeemed(points=points) | PointsExpired(points=points):
            return -points
        case _:
            return 0


def signed_stamps(event: Event) -> int:
    """By how much an event changes the stamps."""
    match event:
        case StampAdded(stamps=stamps):
            return stamps
        case StampsRedeemed(stamps=stamps):
            return -stamps
        case _:
            return 0


# ---- balances -------------------------------------------------------------------------------------------------


@unhurried
@given(requests())
def test_balances_are_the_sum_of_what_happened(asked: list[Asked]) -> None:
    points = stamps = 0
    for event, _, _, state in history(asked):
        points, stamps = points + signed_points(event), stamps + signed_stamps(event)
        assert (state.points_balance, state.stamp_count) == (points, stamps)


@unhurried
@given(requests())
def test_every_event_tells_the_balances_after_it(asked: list[Asked]) -> None:
    for event, _, _, state in history(asked):
        if not isinstance(event, CardEnrolled):
            assert (event.points_balance, event.stamp_count) == (state.points_balance, state.stamp_count)


@unhurried
@given(requests())
def test_points_lie_in_lots_and_nowhere_else(asked: list[Asked]) -> None:
    for _, _, _, state in history(asked):
        assert state.points_balance == sum(lot.points for lot in state.lots)
        assert all(lot.points > 0 for lot in state.lots)
        assert [lot.lot for lot in state.lots] == sorted({lot.lot for lot in state.lots})


@unhurried
@given(requests())
def test_what_is_spent_comes_out_of_the_oldest_lots(asked: list[Asked]) -> None:
    told = history(asked)
    for before, after in pairwise(told):
        if isinstance(after.event, PointsRedeemed):
            assert sum(part.points for part in after.event.lots) == after.event.points
            emptied = [part.lot for part in after.event.lots[:-1]]
            assert emptied == [lot.lot for lot in before.state.lots[: len(emptied)]]
            assert not set(emptied) & {lot.lot for lot in after.state.lots}


@unhurried
@given(requests())
def test_no_balance_is_ever_below_zero(asked: list[Asked]) -> None:
    assert all(told.state.points_balance >= 0 and told.state.stamp_count >= 0 for told in history(asked))


# ---- stamps ---------------------------------------------------------------------------------------------------


@unhurried
@given(requests())
def test_no_two_stamps_lie_within_the_cooldown(asked: list[Asked]) -> None:
    stamps = [told for told in history(asked) if isinstance(told.event, StampAdded)]
    for earlier, later in pairwise(stamps):
        assert later.time - earlier.time >= timedelta(minutes=later.rules.cooldown_minutes)


@unhurried
@given(requests())
def test_no_date_has_more_stamps_than_its_limit(asked: list[Asked]) -> None:
    by_date: dict[date, int] = {}
    for event, _, program_rules, _ in history(asked):
        if isinstance(event, StampAdded):
            by_date[event.day] = by_date.get(event.day, 0) + 1
            assert event.stamps_today == by_date[event.day] <= program_rules.max_daily_stamps


@unhurried
@given(requests())
def test_a_stamp_is_available_exactly_when_it_is_said_to_be(asked: list[Asked]) -> None:
    told = history(asked)
    if not told:
        return
    state, facts = told[-1].state, asked[-1].facts
    if not (facts.program.rules.active and facts.program.rules.has_stamps):
        return
    assert (card.next_stamp_available_at(state, facts) is None) == bool(decided(state, AddStamp(), facts))


# ---- decisions ------------------------------------------------------------------------------------------------


@unhurried
@given(requests())
def test_deciding_again_decides_the_same(asked: list[Asked]) -> None:
    assert history(asked) == history(asked)


@unhurried
@given(requests())
def test_a_refused_command_changes_nothing(asked: list[Asked]) -> None:
    accepted: list[Asked] = []
    state: Card | None = None
    version = 0
    for request in asked:
        events = decided(state, *request)
        for event in events:
            version += 1
            state = card.evolve(state, event, occurrence(version, request.facts.now))
        if events:
            accepted.append(request)
    assert history(accepted) == history(asked)


@unhurried
@given(requests())
def test_events_played_again_give_the_same_card(asked: list[Asked]) -> None:
    told = history(asked)
    state: Card | None = None
    for version, (event, time, _, after) in enumerate(told, start=1):
        state = card.evolve(state, event, occurrence(version, time))
        assert state == after


@unhurried
@given(requests())
def test_every_event_names_the_version_it_was_decided_under(asked: list[Asked]) -> None:
    state: Card | None = None
    version = 0
    for command, facts in asked:
        for event in decided(state, command, facts):
            version += 1
            assert event.program_version == facts.program.version
            state = card.evolve(state, event, occurrence(version, facts.now))


# ---- arithmetic -----------------------------------------------------------------------------------------------


@given(st.integers(0, 100_000_000), st.integers(0, 100_000))
@settings(max_examples=500, deadline=None)
def test_points_are_the_floor_of_the_exact_product(cents: int, points_per_euro: int) -> None:
    exact = Decimal(cents) * Decimal(points_per_euro) / Decimal(100)
    assert points_for(cents, rules(points_per_euro=points_per_euro)) == int(exact.to_integral_value(ROUND_FLOOR))


@given(st.lists(st.integers(1, 1_000), max_size=8), st.data())
def test_spending_from_lots_takes_exactly_what_it_says(points: list[int], data: Any) -> None:
    lots = tuple(Lot(number, held, NOON, None) for number, held in enumerate(points, start=2))
    spent = data.draw(st.integers(0, sum(points)))
    parts = oldest_parts(lots, spent)
    assert sum(part.points for part in parts) == spent
    assert sum(lot.points for lot in without(lots, parts)) == sum(points) - spent


# ---- card numbers ---------------------------------------------------------------------------------------------

BODIES = st.text("0123456789", min_size=CARD_NUMBER_BODY_DIGITS, max_size=CARD_NUMBER_BODY_DIGITS)


def luhn_sum(number: str) -> int:
    """The sum that ends in zero for a good number: digits from the right, every second one doubled."""
    doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(number))]
    return sum(sum(map(int, str(value))) for value in doubled)


@given(BODIES)
def test_the_check_digit_makes_a_good_number(body: str) -> None:
    assert luhn_sum(body + luhn_digit(body)) % 10 == 0


def test_the_check_digit_is_that_of_a_known_number() -> None:
    assert luhn_digit("7992739871") == "3"


@given(BODIES, st.integers(0, CARD_NUMBER_BODY_DIGITS), st.integers(1, 9))
def test_one_wrong_digit_is_always_found(body: str, place: int, off_by: int) -> None:
    number = body + luhn_digit(body)
    wrong = number[:place] + str((int(number[place]) + off_by) % 10) + number[place + 1 :]
    assert luhn_digit(wrong[:-1]) != wrong[-1]


@given(BODIES, st.integers(0, CARD_NUMBER_BODY_DIGITS - 1))
def test_two_neighbours_changing_places_are_found_unless_they_are_0_and_9(body: str, place: int) -> None:
    number = body + luhn_digit(body)
    left, right = number[place], number[place + 1]
    swapped = number[:place] + right + left + number[place + 2 :]
    unnoticed = left == right or {left, right} == {"0", "9"}
    assert (luhn_digit(swapped[:-1]) == swapped[-1]) == unnoticed
