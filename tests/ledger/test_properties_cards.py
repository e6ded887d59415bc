"""What holds for all cards of a merchant, whatever is asked of them, in whichever order."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import accumulate, chain, combinations, pairwise
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger import card
from ledger.actor import Occurrence
from ledger.card import (
    AddStamp,
    BalanceAdjusted,
    BalanceImported,
    Card,
    CardAbsorbed,
    CardClosed,
    CardEnrolled,
    CardMerged,
    CardReactivated,
    CardSuspended,
    Event,
    PointsEarned,
    PointsExpired,
    PointsRedeemed,
    RedeemPoints,
    StampAdded,
    StampsRedeemed,
    TransactionReversed,
    WelcomeBonusGranted,
    next_expiry,
    next_stamp_available_at,
    points_for,
    standing,
)
from ledger.lots import LotName, LotPart
from ledger.program import ExpiryPolicy
from tests.ledger.cards import COOLDOWN, LUXEMBOURG, ONE_DAY, a_card, earned, facts, purchase, stamped, undo
from tests.ledger.histories import (
    COMMANDS,
    EVERYTHING,
    JUST_ENOUGH,
    MERGES,
    PROGRAMS,
    REVERSALS,
    REVERSIBLE,
    RULES,
    SPENT_AND_REFUNDED,
    Asked,
    Merge,
    Step,
    Undo,
    World,
    each_moment,
    histories,
    played,
    unhurried,
)
from tests.shop import NOON, rules

LotKey = tuple[UUID, int]

SOURCES = (PointsEarned, WelcomeBonusGranted, BalanceImported)


def change_of(event: Event) -> int:
    """By how much an event changes the points of its card."""
    match event:
        case PointsRedeemed(points=points) | PointsExpired(points=points):
            return -points
        case CardEnrolled() | StampAdded() | StampsRedeemed() | CardSuspended() | CardReactivated() | CardClosed():
            return 0
        case _:
            return event.points


def stamps_of(event: Event) -> int:
    """By how much an event changes the stamps of its card."""
    match event:
        case StampsRedeemed(stamps=stamps):
            return -stamps
        case (
            StampAdded() | TransactionReversed() | BalanceAdjusted() | BalanceImported() | CardMerged() | CardAbsorbed()
        ):
            return event.stamps
        case _:
            return 0


def put_and_taken(event: Event, at: Occurrence) -> Iterator[tuple[LotKey, int]]:
    """What an event puts into which lots, and, as negative numbers, what it takes out of them."""

    def key(name: LotName) -> LotKey:
        return (name.card or at.stream, name.lot)

    match event:
        case PointsEarned() | WelcomeBonusGranted() | BalanceImported() | BalanceAdjusted() if event.points > 0:
            joined = None if isinstance(event, WelcomeBonusGranted) else event.joins
            # What paid a debt lies in no lot.
            yield key(joined or LotName(at.version)), max(0, min(event.points, event.points_balance))
        case PointsRedeemed() | PointsExpired() | CardMerged():
            yield from ((key(part.name), -part.points) for part in event.lots)
        case CardAbsorbed():
            yield from ((key(part.name), part.points) for part in event.lots)
            yield from ((key(part.name), -part.points) for part in event.settled)
        case TransactionReversed():
            yield from ((key(part.name), -part.points) for part in event.taken)
            yield from ((key(part.name), part.points) for part in event.returned)
        case BalanceAdjusted():
            yield from ((key(part.name), -part.points) for part in event.taken)
        case _:
            pass


# ---- balances and lots ----------------------------------------------------------------------------------------


@unhurried
@given(EVERYTHING)
def test_a_balance_is_the_sum_of_its_lots_and_the_sum_of_its_events(asked: Asked) -> None:
    for world in each_moment(asked):
        for each in world.cards:
            state = each.state
            assert max(0, state.points_balance) == sum(lot.points for lot in state.lots)
    for each in world.cards:
        points = stamps = 0
        for event, _ in each.past:
            points, stamps = points + change_of(event), stamps + stamps_of(event)
            assert (event.points_balance, event.stamp_count) == (points, stamps)
        assert (each.state.points_balance, each.state.stamp_count) == (points, stamps)


@unhurried
@given(EVERYTHING)
def test_lots_are_never_empty_have_one_name_each_and_lie_oldest_first(asked: Asked) -> None:
    for world in each_moment(asked):
        for state in world.states():
            assert all(lot.points > 0 for lot in state.lots)
            assert len({lot.name for lot in state.lots}) == len(state.lots)
            assert all(lot.card != state.id for lot in state.lots)
            assert [lot.earned_at for lot in state.lots] == sorted(lot.earned_at for lot in state.lots)


@unhurried
@given(EVERYTHING)
def test_nothing_is_taken_out_of_a_lot_that_was_not_put_into_it(asked: Asked) -> None:
    for each in played(asked).cards:
        held: dict[LotKey, int] = {}
        for event, at in each.past:
            for key, points in put_and_taken(event, at):
                held[key] = held.get(key, 0) + points
                assert held[key] >= 0
        lots = {(lot.card or each.stream, lot.lot): lot.points for lot in each.state.lots}
        assert lots == {key: points for key, points in held.items() if points}


@unhurried
@given(EVERYTHING)
def test_a_part_of_a_lot_tells_the_dates_the_lot_has(asked: Asked) -> None:
    world = played(asked)
    dates: dict[LotKey, set[tuple[datetime | None, datetime | None]]] = {}
    for event, at in world.told():
        for parts in ("lots", "settled", "taken", "returned"):
            for part in getattr(event, parts, ()):
                dates.setdefault((part.card or at.stream, part.lot), set()).add((part.earned_at, part.expires_at))
    for state in world.states():
        for lot in state.lots:
            dates.setdefault((lot.card or state.id, lot.lot), set()).add((lot.earned_at, lot.expires_at))
    assert all(len(told) == 1 for told in dates.values())


@unhurried
@given(EVERYTHING)
def test_points_come_from_purchases_bonuses_corrections_and_imports_only(asked: Asked) -> None:
    world = played(asked)
    came = sum(
        event.points
        for event, _ in world.told()
        if isinstance(event, SOURCES) or (isinstance(event, BalanceAdjusted) and event.points > 0)
    )
    assert world.points() <= came
    for event, _ in world.told():
        if isinstance(event, SOURCES):
            assert event.points >= 0


@unhurried
@given(EVERYTHING)
def test_a_merge_neither_makes_nor_loses_anything(asked: Asked) -> None:
    events = [event for event, _ in played(asked).told() if isinstance(event, CardMerged | CardAbsorbed)]
    assert sum(event.points for event in events) == 0
    assert sum(event.stamps for event in events) == 0
    given_away = sorted((event.into, -event.points) for event in events if isinstance(event, CardMerged))
    assert len(given_away) == sum(isinstance(event, CardAbsorbed) for event in events)


@unhurried
@given(EVERYTHING)
def test_a_merged_card_is_empty_and_nothing_happens_to_it_any_more(asked: Asked) -> None:
    world = played(asked)
    for number, each in enumerate(world.cards):
        if each.state.merged_into is not None:
            assert (each.state.points_balance, each.state.stamp_count, each.state.lots) == (0, 0, ())
            assert isinstance(each.past[-1].event, CardMerged)
            assert each.stream in world.follow(number)[-1].state.absorbed


# ---- reversals ------------------------------------------------------------------------------------------------


@unhurried
@given(EVERYTHING)
def test_no_more_is_undone_than_was_done_and_a_whole_reversal_undoes_all_of_it(asked: Asked) -> None:
    world = played(asked)
    done = {(at.stream, at.version): event for event, at in world.told()}
    undone: dict[tuple[UUID, int], list[TransactionReversed]] = {}
    for event, _ in world.told():
        if isinstance(event, TransactionReversed):
            undone.setdefault((event.card, event.version), []).append(event)
    for name, reversals in undone.items():
        points, stamps = change_of(done[name]), stamps_of(done[name])
        told = sum(each.points - each.points_expired for each in reversals)
        assert 0 <= -told <= points if points > 0 else told == -points
        assert sum(each.stamps for each in reversals) == -stamps
        assert sum(each.whole for each in reversals) <= 1
        assert told == -points or not any(each.whole for each in reversals)


@unhurried
@given(EVERYTHING)
def test_what_expired_is_held_against_no_more_reversals_than_it_was(asked: Asked) -> None:
    world = played(asked)
    expired: dict[LotKey, int] = {}
    forgiven: dict[LotKey, int] = {}
    for event, at in world.told():
        if isinstance(event, PointsExpired):
            for part in event.lots:
                key = (part.card or at.stream, part.lot)
                expired[key] = expired.get(key, 0) + part.points
        if isinstance(event, TransactionReversed) and event.lot is not None:
            key = (event.lot.card or at.stream, event.lot.lot)
            forgiven[key] = forgiven.get(key, 0) + event.points_expired
    for key, points in forgiven.items():
        assert points <= expired.get(key, 0)


def cautious(act: Any) -> Any:
    """The same without leave to go below zero."""
    if isinstance(act, list):
        return [cautious(each) for each in act]
    return act._replace(allow_negative_balance=False) if isinstance(act, Undo) else act


@unhurried
@given(EVERYTHING)
def test_a_balance_goes_below_zero_only_where_a_reversal_says_so(asked: Asked) -> None:
    careful = tuple(step._replace(act=cautious(step.act)) for step in asked.steps)
    for state in played(asked._replace(steps=careful)).states():
        assert state.points_balance >= 0
        assert state.stamp_count >= 0


NO_EXPIRY = [each for each in PROGRAMS if each.points_expiration_days is None]


@unhurried
@given(histories([*COMMANDS, *REVERSALS, *MERGES], NO_EXPIRY), st.randoms(use_true_random=False))
def test_once_everything_was_undone_only_what_was_brought_along_is_left(asked: Asked, random: Any) -> None:
    world = played(asked)
    everything = [
        Undo(number, None, allow_negative_balance=True)
        for number in range(sum(isinstance(event, REVERSIBLE) for event, _ in world.told()))
    ]
    random.shuffle(everything)
    for each in everything:
        world.do(Step(each, 0, timedelta(0), LUXEMBOURG), asked.versions)
    brought = [event for event, _ in world.told() if isinstance(event, BalanceImported)]
    assert world.points() == sum(event.points for event in brought)
    assert sum(state.stamp_count for state in world.states()) == sum(event.stamps for event in brought)
    assert all(day.stamps == 0 for state in world.states() if not state.merged_into for day in state.recent_stamps)
    assert all(state.last_stamp_at is None for state in world.states() if not state.merged_into)


def refunds(cents: int, points_per_euro: int, parts: Iterable[int]) -> list[int]:
    """What each part of a purchase takes back, when it is refunded in those parts."""
    bought = a_card().when(purchase(cents), facts(points_per_euro=points_per_euro)).done()
    taken = []
    for part in parts:
        before = bought.state.points_balance
        bought = undo(2, bought, purchase_amount_cents=part).done()
        taken.append(before - bought.state.points_balance)
    undo(2, bought).refused("already_reversed")
    return taken


@settings(unhurried, max_examples=1_000)
@given(
    st.integers(1, 100_000), st.sampled_from([1, 3, 7, 10, 33, 100, 999, 100_000]), st.lists(st.integers(0), max_size=6)
)
def test_the_parts_of_any_purchase_add_up_to_exactly_what_it_earned(cents: int, rate: int, drawn: list[int]) -> None:
    cuts = sorted({each % cents for each in drawn} - {0})
    taken = refunds(cents, rate, [end - start for start, end in pairwise([0, *cuts, cents])])
    earned_points = points_for(cents, rules(points_per_euro=rate))
    assert sum(taken) == earned_points
    for cut, points in zip(cuts, accumulate(taken), strict=False):
        assert points == Fraction(earned_points * cut, cents).__floor__()


@pytest.mark.parametrize("rate", [100, 130, 333, 1000])
@pytest.mark.parametrize("cents", range(1, 8))
def test_a_small_purchase_may_be_split_in_every_way(cents: int, rate: int) -> None:
    earned_points = points_for(cents, rules(points_per_euro=rate))
    for cuts in chain.from_iterable(combinations(range(1, cents), size) for size in range(cents)):
        taken = refunds(cents, rate, [end - start for start, end in pairwise([0, *cuts, cents])])
        assert sum(taken) == earned_points
        assert min(taken) >= 0


# ---- stamps ---------------------------------------------------------------------------------------------------


TAKING_BACK = [Undo(which, None, allow_negative_balance=True) for which in range(4)]
THREE_A_DAY = [replace(each, cooldown_minutes=240, max_daily_stamps=3) for each in PROGRAMS]


@unhurried
@given(histories([*[AddStamp()] * 12, *TAKING_BACK * 2, Merge(1)], THREE_A_DAY))
def test_stamps_that_were_taken_back_count_as_if_they_had_never_been(asked: Asked) -> None:
    """Of two cards, one of which may be merged into the other."""
    two = Asked(asked.versions, tuple(step._replace(card=step.card % 2) for step in asked.steps))
    world = World(two.versions[0], cards=2)
    for step in two.steps:
        world.do(step, two.versions)
        undone = {(e.card, e.version) for e, _ in world.told() if isinstance(e, TransactionReversed)}
        last = world.follow(1)[-1]
        kept = [
            (event.day, at.occurred_at)
            for event, at in world.told()
            if isinstance(event, StampAdded) and (at.stream, at.version) not in undone
            if at.stream in (last.stream, *last.state.absorbed)
        ]
        facts_now = world.facts(step.store)
        today = [when for day, when in kept if day == facts_now.day]
        waits = [when + timedelta(minutes=240) for _, when in kept]
        waits += [facts_now.day_ends_at] if len(today) >= 3 else []
        due = max(waits, default=world.now)
        assert next_stamp_available_at(last.state, facts_now) == (due if due > world.now else None)


# ---- expiry ---------------------------------------------------------------------------------------------------


def endings(world: World) -> list[tuple[UUID, str, int, datetime, tuple[LotPart, ...]]]:
    """Every expiry, card by card."""
    return [
        (at.stream, type(event).__name__, event.points, event.expired_at, event.lots)
        for event, at in world.told()
        if isinstance(event, PointsExpired)
    ]


@unhurried
@given(
    histories() | histories((*SPENT_AND_REFUNDED, *RULES), JUST_ENOUGH),
    st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_runs_at_any_time_and_one_at_the_end_leave_what_punctual_ones_do(asked: Asked, runs: list[bool]) -> None:
    punctual, now_and_then, at_the_end = (World(asked.versions[0]) for _ in range(3))
    for step, run in zip(asked.steps, runs, strict=False):
        punctual.expire_nightly_until(punctual.now + step.later)
        if run:
            now_and_then.expire()
        for world in (punctual, now_and_then, at_the_end):
            world.do(step, asked.versions)
    for world in (punctual, now_and_then, at_the_end):
        world.now += timedelta(days=5)
        world.expire()
        assert endings(world) == endings(punctual)
        assert world.states() == punctual.states()
        assert [at for _, at in world.told()] == [at for _, at in punctual.told()]


@unhurried
@given(EVERYTHING)
def test_a_second_run_takes_nothing(asked: Asked) -> None:
    for world in each_moment(asked):
        world.expire()
        before = list(world.told())
        world.expire()
        assert list(world.told()) == before


@unhurried
@given(EVERYTHING)
def test_nothing_that_is_due_is_there_after_a_run_and_nothing_else_is_gone(asked: Asked) -> None:
    world = played(asked)
    soon = [next_expiry(state, world.program) for state in world.states()]
    before = world.states()
    stands = [standing(state, world.program, world.now) for state in before]
    world.expire()
    assert stands == world.states()
    for state, was, end in zip(world.states(), before, soon, strict=True):
        assert (state == was) == (end is None or end.at > world.now)
        left = next_expiry(state, world.program)
        assert left is None or left.at > world.now


# ---- decisions ------------------------------------------------------------------------------------------------


@unhurried
@given(EVERYTHING)
def test_a_refused_command_changes_nothing(asked: Asked) -> None:
    world, without_refusals = World(asked.versions[0]), World(asked.versions[0])
    waited = timedelta(0)
    for step in asked.steps:
        before = world.states()
        waited += step.later
        if world.do(step, asked.versions):
            without_refusals.do(step._replace(later=waited), asked.versions)
            waited = timedelta(0)
        else:
            assert world.states() == before
    assert list(world.told()) == list(without_refusals.told())


@unhurried
@given(EVERYTHING)
def test_a_snapshot_is_the_card_itself(asked: Asked) -> None:
    for world in each_moment(asked):
        for state in world.states():
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Card) == state


@unhurried
@given(EVERYTHING)
def test_stored_events_make_the_same_card(asked: Asked) -> None:
    for each in played(asked).cards:
        state: Card | None = None
        for event, at in each.past:
            stored = msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=type(event))
            state = card.evolve(state, stored, at)
        assert state == each.state


IDLE_CARDS = [each for each in PROGRAMS if each.expiry_policy is ExpiryPolicy.INACTIVITY]


@settings(unhurried, max_examples=20)
@given(histories([*COMMANDS, *REVERSALS], IDLE_CARDS, most=200))
def test_without_an_end_for_each_earning_a_card_stays_small(asked: Asked) -> None:
    """Lots begin where points come back to one that was used up, and where points are brought along with an end."""
    world = played(asked)
    for each in world.cards:
        began = sum(
            len(event.returned) if isinstance(event, TransactionReversed) else bool(getattr(event, "expires_at", None))
            for event, _ in each.past
        )
        assert len(each.state.lots) <= 1 + began
        assert len(each.state.recent_stamps) <= 6


def test_after_ten_years_of_purchases_a_card_is_as_small_as_on_its_first_day() -> None:
    collected = a_card(stamped(1), earned(10, 10))
    first = len(msgspec.msgpack.encode(collected.state))
    for days in range(0, 3650, 10):
        now = facts(NOON + days * ONE_DAY, points_expiration_days=365)
        collected = collected.when(purchase(2500), now).done()._replace(past=())
        collected = collected.when(AddStamp(), facts(NOON + days * ONE_DAY + COOLDOWN)).done()._replace(past=())
        if days % 50 == 0:
            collected = collected.when(RedeemPoints("cake"), now).done()._replace(past=())
    assert len(collected.state.lots) == 1
    assert len(msgspec.msgpack.encode(collected.state)) <= first + 60
