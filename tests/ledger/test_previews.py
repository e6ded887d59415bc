"""In every history, what is foretold of a command is what it then comes to, answer or refusal, and moves nothing."""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ledger import card
from ledger.actor import Caller, Role
from ledger.card import (
    AddStamp,
    Adjust,
    Close,
    EarnPoints,
    ExpirePoints,
    Reactivate,
    RedeemPoints,
    RedeemStamps,
    Reverse,
    Suspend,
)
from ledger.commands import CardCommand, Command, MergeCards, OnCard, OnProgram, StaffEntry, WhichCard
from ledger.entry import Result
from ledger.errors import Rejected
from ledger.program import ChangeProgram, ExpiryPolicy
from tests.running import open_ledger
from tests.shop import NOON, PIN, SettableClock, Shop, open_shop

CARDS = 3
STEPS_MAX = 24


class Waiting(NamedTuple):
    """Time passes, and nobody does anything."""

    days: int


class Expiring(NamedTuple):
    """What will expire by a day ahead is foretold now, and expires on that day."""

    days: int


class Reversing(NamedTuple):
    """A transaction, counted back from the newest, is undone."""

    back: int
    purchase_amount_cents: int | None
    allow_negative_balance: bool


class Merging(NamedTuple):
    """A card is given to that of another place."""

    into: int


Step = CardCommand | Waiting | Expiring | Reversing | Merging | ChangeProgram
BY_MANAGERS = (Adjust, Suspend, Reactivate, Close)

amounts = st.sampled_from([1_000, 2_500, 999, 333, 5_000, 1, 0])
days = st.sampled_from([0, 1, 5, 9, 10, 11])
earnings = st.builds(EarnPoints, amounts, st.sampled_from([None, None, "ORD-1", "ORD-2"]))
redemptions = st.builds(RedeemPoints, st.sampled_from(["coffee", "coffee", "coffee", "cake", "tea"]))
reversals = st.builds(Reversing, st.integers(0, 9), st.none() | st.none() | amounts, st.booleans())
changes = st.fixed_dictionaries(
    {},
    optional={
        "expiry_policy": st.sampled_from(ExpiryPolicy),
        "points_expiration_days": st.sampled_from([None, 1, 10, 30]),
        "points_per_euro": st.sampled_from([0, 7, 33]),
    },
)
corrections: st.SearchStrategy[Step] = st.one_of(
    st.builds(Merging, st.integers(0, CARDS - 1)),
    st.builds(Adjust, points=st.integers(-99, 99), stamps=st.integers(-1, 1), reason=st.just("Miscounted")),
    st.sampled_from([AddStamp(), AddStamp(), RedeemStamps(), Suspend(), Reactivate(), Reactivate(), Close()]),
    st.builds(ChangeProgram, changes),
)
passing = st.builds(Expiring, days) | st.builds(Waiting, days)
weighed: list[st.SearchStrategy[Step]] = [
    *[earnings] * 3,
    *[redemptions] * 2,
    *[reversals] * 4,
    *[passing] * 2,
    corrections,
]
steps = st.sampled_from(weighed).flatmap(lambda kind: kind)
histories = st.lists(st.tuples(st.integers(0, CARDS - 1), steps), min_size=12, max_size=STEPS_MAX)


def everything(result: Result) -> bytes:
    """All that any answer is made of."""
    after, facts = result.main, result.facts
    events = [(version, type(event).__name__, event) for version, event in result.events]
    seen = (facts.now, facts.day, facts.program) if facts is not None else None
    return msgspec.json.encode((after.stream, after.version, after.state, events, seen, result.created))


async def outcome(answering: Awaitable[Any]) -> Any:
    """The whole answer, or the whole refusal."""
    try:
        answer = (await answering).answer
    except Rejected as refusal:
        return refusal.code, dict(refusal.facts)
    assert answer is not None
    return answer


@dataclass
class History:
    """What happens in one shop, through two servers that remember each what it saw."""

    here: Shop
    there: Shop
    cards: list[UUID]
    transactions: list[tuple[UUID, int]] = field(default_factory=list)

    async def take(self, place: int, step: Step) -> None:
        """The step is foretold, and then taken."""
        match step:
            case Waiting(ahead):
                self.here.clock.forward(days=ahead)
            case Expiring(ahead):
                await self.compare(self.on_card(place, ExpirePoints()), self.by(Role.OPERATOR), days=ahead)
            case Reversing(back, cents, allow_negative_balance):
                stream, version = self.transactions[-1 - back % len(self.transactions)]
                rule = Reverse(
                    card=stream,
                    version=version,
                    purchase_amount_cents=cents,
                    allow_negative_balance=allow_negative_balance,
                )
                staff = StaffEntry(staff_pin=PIN)
                await self.compare(OnCard(which=WhichCard(card_id=stream), staff=staff, command=rule), self.here.till)
            case Merging(into):
                merging = MergeCards(WhichCard(card_id=self.cards[place]), self.cards[into])
                await self.compare(merging, self.by(Role.MANAGER))
            case ChangeProgram():
                await self.compare(OnProgram(step), self.by(Role.ADMIN))
            case _:
                caller = self.by(Role.MANAGER) if isinstance(step, BY_MANAGERS) else self.here.till
                await self.compare(self.on_card(place, step), caller)

    def on_card(self, place: int, rule: CardCommand) -> OnCard:
        """A command on the card of that place."""
        return OnCard(which=WhichCard(card_id=self.cards[place]), staff=StaffEntry(staff_pin=PIN), command=rule)

    def by(self, role: Role) -> Caller:
        """Somebody of the merchant."""
        return Caller(role=role, id=UUID(int=1), merchant_id=self.here.merchant.merchant_id)

    async def compare(self, command: Command, caller: Caller, days: int = 0) -> None:
        """What is foretold moves nothing, and comes true."""
        now: datetime = self.here.clock.now()
        before = await self.here.ledger.log.head()
        previews = self.there.ledger.previews
        ahead = now + timedelta(days=days) if days else None
        foretold = await outcome(previews.foretell(command, caller, everything, occurred_at=ahead))
        assert await self.here.ledger.log.head() == before
        self.here.clock.forward(days=days)
        came_to = await outcome(self.handled(command, caller))
        assert foretold == came_to
        self.here, self.there = self.there, self.here

    async def handled(self, command: Command, caller: Caller) -> Any:
        """What the command came to; what it made can be reversed later."""
        handled = await self.here.send(command, caller, key=str(uuid4()), answer=everything)
        if handled.result is not None and isinstance(handled.result.main.state, card.Card):
            main = handled.result.main.stream
            self.transactions += [(main, version) for version, _ in handled.result.events]
        return handled


class Servers(NamedTuple):
    """Two servers on one database, and what their coroutines run in."""

    runner: asyncio.Runner
    here: Any
    there: Any
    clock: SettableClock


@pytest.fixture
def two(database_url: str) -> Iterator[Servers]:
    clock, stack = SettableClock(), AsyncExitStack()
    with asyncio.Runner() as runner:
        here, there = [runner.run(stack.enter_async_context(open_ledger(database_url, clock))) for _ in range(2)]
        yield Servers(runner, here, there, clock)
        runner.run(stack.aclose())


async def lived(two: Servers, policy: ExpiryPolicy, taken: list[tuple[int, Step]]) -> None:
    """A shop in which little is forbidden, and all that happens there."""
    two.clock.time = NOON
    here = await open_shop(
        two.here,
        two.clock,
        cooldown_minutes=0,
        stamps_target=2,
        points_per_euro=33,
        welcome_bonus_points=300,
        points_expiration_days=10,
        expiry_policy=policy,
    )
    cards = [(await here.enrol()).id for _ in range(CARDS)]
    history = History(here, here.on(two.there), cards, [(each, 2) for each in cards])
    for place, step in taken:
        await history.take(place, step)


# A history that fails is told as it was found: to make it shorter takes longer than a test may.
unhurried = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate]
)


@pytest.mark.slow
@unhurried
@given(policy=st.sampled_from(ExpiryPolicy), taken=histories)
def test_in_every_history_what_is_foretold_moves_nothing_and_comes_true(
    two: Servers, policy: ExpiryPolicy, taken: list[tuple[int, Step]]
) -> None:
    two.runner.run(lived(two, policy, taken))
