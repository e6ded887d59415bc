"""Sums of what events moved are the card that the ledger folds, and the lines of an explanation are the sums."""

from collections import Counter
from collections.abc import Iterable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import card
from ledger.actor import PLATFORM
from ledger.program import Program
from ledger.store.codec import NO_PREVIOUS_HASH, Read
from projections.audit.balance import lot_id, points_due, shown
from projections.audit.explain import Telling
from projections.audit.horizon import Horizon
from projections.audit.lots import Sums
from schemas.audit import Explanation
from tests.ledger.histories import EVERYTHING, Asked, played, unhurried
from tests.ledger.specification import Given, Happened

HEAD = 10_000


def explained(on: Given, events: Iterable[tuple[int, Happened]], program: Program) -> Explanation:
    """The explanation of a card of which only these events are known, with the positions that they stand at."""
    telling = Telling(on.stream, {program.version: program.rules}, {})
    for position, (event, at) in events:
        read = Read(
            event=event,
            at=at,
            name="",
            event_version=1,
            previous_hash=NO_PREVIOUS_HASH,
            hash=NO_PREVIOUS_HASH,
            origin=None,
        )
        telling.tell(position, read, None)
    horizon = Horizon(head=HEAD, by=on.time)
    return telling.told(shown(telling.sums, on.state, program, horizon))


def refuse_lines_that_do_not_add_up(told: Explanation) -> None:
    """Balances, lots and what lies in none are the sums of the lines, from the first line to the last."""
    points = stamps = outside = 0
    lots: Counter[str] = Counter()
    touched: dict[str, list[int]] = {}
    for line in told.lines:
        points += line.points
        stamps += line.stamps
        outside += line.points_outside_lots
        assert (line.points_balance, line.stamp_count) == (points, stamps)
        assert line.points == sum(part.points for part in line.lots) + line.points_outside_lots
        for part in line.lots:
            lots[part.lot] += part.points
            touched.setdefault(part.lot, []).append(line.positions[0])
        assert line.text.endswith(".")
    balance = told.balance
    assert (balance.points_balance, balance.stamp_count) == (points, stamps)
    assert balance.points_outside_lots == outside
    assert {lot.id: lot.points for lot in told.lots} == {lot: left for lot, left in lots.items() if left}
    assert all(lot.positions == touched[lot.id] for lot in told.lots)
    assert [(lot.id, lot.points, lot.earned_at, lot.expires_at) for lot in told.lots] == [
        (lot.id, lot.points, lot.earned_at, lot.expires_at) for lot in balance.lots
    ]


@unhurried
@given(EVERYTHING)
def test_the_sums_of_a_cards_first_events_are_the_card_as_it_was_then(asked: Asked) -> None:
    for each in played(asked).cards:
        sums, state = Sums(each.stream), None
        for position, (event, at) in enumerate(each.past, start=1):
            sums.take(position, event, at)
            state = card.evolve(state, event, at)
            assert sums.lots == state.lots
            assert (sums.points, sums.stamps) == (state.points_balance, state.stamp_count)
            assert (sums.status, sums.last_activity_at) == (state.status, state.last_activity_at)
            assert sums.points_outside_lots == min(0, state.points_balance)
            assert (sums.events, sums.version, sums.position) == (position, at.version, position)


@unhurried
@given(EVERYTHING)
def test_what_is_due_is_what_the_card_would_lose(asked: Asked) -> None:
    world = played(asked)
    for each in world.cards:
        sums = Sums(each.stream)
        for position, (event, at) in enumerate(each.past, start=1):
            sums.take(position, event, at)
        due = points_due(sums, each.state, world.program, Horizon(head=HEAD, by=world.now))
        standing = card.standing(each.state, world.program, world.now)
        assert due == each.state.points_balance - standing.points_balance


@unhurried
@given(EVERYTHING)
def test_the_lines_of_an_explanation_add_up_to_the_card(asked: Asked) -> None:
    world = played(asked)
    for each in world.cards:
        told = explained(each, enumerate(each.past, start=1), world.program)
        refuse_lines_that_do_not_add_up(told)
        assert told.balance.points_balance == each.state.points_balance
        assert {lot.id: lot.points for lot in told.lots} == {
            lot_id(lot.name, each.stream): lot.points for lot in each.state.lots
        }


@unhurried
@given(EVERYTHING, st.randoms(use_true_random=False))
def test_whatever_events_are_chosen_their_lines_add_up(asked: Asked, chance: Random) -> None:
    world = played(asked)
    for each in world.cards:
        some = [(position, happened) for position, happened in enumerate(each.past, start=1) if chance.random() < 0.7]
        refuse_lines_that_do_not_add_up(explained(each, some, world.program))


@settings(parent=unhurried, max_examples=20)
@given(EVERYTHING)
def test_a_lot_is_called_after_the_transaction_that_began_it(asked: Asked) -> None:
    world = played(asked)
    stood = {(at.stream, at.version) for _, at in world.told()}
    for each in world.cards:
        for lot in explained(each, enumerate(each.past, start=1), world.program).lots:
            stream, _, version = lot.id.rpartition("-")
            assert (stream, int(version)) in {(str(known), number) for known, number in stood}


def test_a_card_of_which_nothing_is_known_has_nothing() -> None:
    sums = Sums(PLATFORM)
    assert (sums.points, sums.stamps, sums.lots, sums.status, sums.version) == (0, 0, (), None, 0)
