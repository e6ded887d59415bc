"""Histories of a shop's cards that nobody thought of: every command, in any order, at any time."""

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, time, timedelta
from itertools import product
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ledger import card, program
from ledger.actor import Occurrence
from ledger.card import (
    Absorb,
    AddStamp,
    Adjust,
    BalanceAdjusted,
    Card,
    Close,
    EarnPoints,
    Enrol,
    Event,
    ExpirePoints,
    Facts,
    ImportBalance,
    MergeInto,
    PointsEarned,
    PointsRedeemed,
    Reactivate,
    RedeemPoints,
    RedeemStamps,
    Reverse,
    StampAdded,
    StampsRedeemed,
    Suspend,
    WelcomeBonusGranted,
)
from ledger.card_plans import card_facts, changes_on
from ledger.errors import Rejected
from ledger.program import ExpiryPolicy, Program, Reward, Rules
from tests.ledger.cards import LUXEMBOURG, MERCHANT, TOKYO, history_of
from tests.ledger.specification import Given, occurrence
from tests.shop import rules

BEGINNING = datetime.fromisoformat("2026-03-20T10:00:00+00:00")
CARDS = 3
REWARDS = (Reward(id="coffee", name="Coffee", points_cost=100), Reward(id="cake", name="Cake", points_cost=250))
REVERSIBLE = (
    PointsEarned,
    WelcomeBonusGranted,
    PointsRedeemed,
    StampAdded,
    StampsRedeemed,
    BalanceAdjusted,
)
# How long a history takes says how busy the machine is and nothing about the rules.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


class Undo(NamedTuple):
    """A reversal of any transaction there is; of a purchase, so many tenths of it, or all that is left."""

    which: int
    tenths: int | None
    allow_negative_balance: bool


class Merge(NamedTuple):
    """The card merged into another."""

    into: int


class Rule(NamedTuple):
    """Another version of the program's rules."""

    which: int


class Step(NamedTuple):
    """What is asked, of which card, so long after the step before, in which store. Several acts follow at once."""

    act: Any
    card: int
    later: timedelta
    store: UUID


class Asked(NamedTuple):
    """A history as it is asked for."""

    versions: tuple[Rules, ...]
    steps: tuple[Step, ...]


class World:
    """A merchant's cards, as the door would write them: facts, history, and each event at its own time."""

    def __init__(self, first: Rules, cards: int = CARDS) -> None:
        self.now = BEGINNING
        self.program = self._followed(None, program.ProgramCreated(first))
        self.transactions: list[tuple[int, int, Event]] = []
        self.cards = [Given(card, None, 0, BEGINNING, UUID(int=0xA0 + number)) for number in range(cards)]
        for number, each in enumerate(self.cards):
            enrol = Enrol(customer=UUID(int=number), customer_id=str(number), card_number="", qr_code="")
            self._write(each, card.decide(None, enrol, self.facts(LUXEMBOURG)))

    def _followed(self, before: Program | None, event: program.Event) -> Program:
        version = before.version + 1 if before else 1
        return program.evolve(before, event, occurrence(version, self.now, UUID(int=9)))

    def facts(self, store: UUID) -> Facts:
        """What is decided on now."""
        return card_facts(self.now, MERCHANT, self.program, store)

    def _write(self, on: Given, events: Iterable[Event]) -> None:
        number = next(number for number, each in enumerate(self.cards) if each.stream == on.stream)
        for change in changes_on(on.stream, list(events)):
            at = on._replace(time=change.occurred_at or self.now)
            on = at.then(*change.events)
        self.transactions += [
            (number, at.version, event)
            for event, at in on.past[self.cards[number].version :]
            if isinstance(event, REVERSIBLE)
        ]
        self.cards[number] = on

    def follow(self, number: int) -> list[Given]:
        """The card and those it was merged into, one after the other."""
        chain = [self.cards[number % len(self.cards)]]
        while chain[-1].state.merged_into is not None:
            chain.append(next(each for each in self.cards if each.stream == chain[-1].state.merged_into))
        return chain

    def states(self) -> list[Card]:
        """The cards as they stand."""
        return [each.state for each in self.cards]

    def told(self) -> Iterator[tuple[Event, Occurrence]]:
        """Everything that happened, card by card."""
        return ((event, at) for each in self.cards for event, at in each.past)

    def points(self) -> int:
        """What is on all cards together."""
        return sum(state.points_balance for state in self.states())

    def do(self, step: Step, versions: tuple[Rules, ...]) -> bool:
        """Lets time pass and does what is asked. Whether anything was written."""
        self.now += step.later
        acts = step.act if isinstance(step.act, list) else [step.act]
        return sum(self._tried(step._replace(act=act), versions) for act in acts) > 0

    def _tried(self, step: Step, versions: tuple[Rules, ...]) -> bool:
        try:
            return self._done(step, versions)
        except Rejected:
            return False

    def _done(self, step: Step, versions: tuple[Rules, ...]) -> bool:
        facts = self.facts(step.store)
        here = self.follow(step.card)[-1]
        match step.act:
            case Rule(which):
                event = program.decide(self.program, program.ChangeProgram(fields(versions[which % len(versions)])))
                for each in event:
                    self.program = self._followed(self.program, each)
                return bool(event)
            case Merge(into):
                there = self.follow(into)[-1]
                giving = card.decide(here.state, MergeInto(there.stream), facts)
                taking = card.decide(there.state, Absorb(card.standing(here.state, facts.program, facts.now)), facts)
                self._write(here, giving)
                self._write(there, taking)
                return True
            case Undo():
                return self._undone(step.act, facts)
            case command:
                events = card.decide(here.state, command, facts)
                self._write(here, events)
                return bool(events)

    def _undone(self, act: Undo, facts: Facts) -> bool:
        if not self.transactions:
            return False
        # Counted from the newest, so that most reversals are of what was just done.
        number, version, event = self.transactions[-1 - act.which % len(self.transactions)]
        chain = self.follow(number)
        cents = None
        if act.tenths is not None and isinstance(event, PointsEarned):
            cents = event.purchase_amount_cents * act.tenths // 10
        command = Reverse(
            card=chain[0].stream,
            version=version,
            purchase_amount_cents=cents,
            allow_negative_balance=act.allow_negative_balance,
        )
        facts = msgspec.structs.replace(facts, history=history_of(version, *chain))
        self._write(chain[-1], card.decide(chain[-1].state, command, facts))
        return True

    def expire(self) -> None:
        """The nightly run, over all cards."""
        for each in self.cards:
            self._write(each, card.decide(each.state, ExpirePoints(), self.facts(LUXEMBOURG)))

    def expire_nightly_until(self, end: datetime) -> None:
        """Every run that is scheduled before that time, when it is scheduled."""
        now = self.now
        night = datetime.combine(now.date(), time(2), now.tzinfo)
        while (night := night + timedelta(days=1)) < end:
            self.now = night
            self.expire()
        self.now = now


def fields(of: Rules) -> dict[str, Any]:
    """Rules as changes to other rules."""
    return msgspec.structs.asdict(of)


def played(asked: Asked) -> World:
    """The world after a whole history."""
    world = World(asked.versions[0])
    for step in asked.steps:
        world.do(step, asked.versions)
    return world


def each_moment(asked: Asked) -> Iterator[World]:
    """The world at its beginning and after every step."""
    world = World(asked.versions[0])
    yield world
    for step in asked.steps:
        world.do(step, asked.versions)
        yield world


# ---- what is asked --------------------------------------------------------------------------------------------

DAYS = timedelta(days=1)
PURCHASES = [EarnPoints(cents) for cents in (0, 99, 1_000, 1_001, 1_500, 2_500, 3_333, 5_000)]
SPENDING = [RedeemPoints("coffee"), RedeemPoints("coffee"), RedeemPoints("cake")]
STAMPING = [AddStamp(), AddStamp(), RedeemStamps()]
CORRECTIONS = [
    Adjust(points=points, stamps=stamps, reason="Counted again")
    for points, stamps in ((50, 0), (-30, 0), (-100, 2), (-1, -1), (120, -1), (0, 2))
]
IMPORTS = [
    ImportBalance(source="paper cards", points=60),
    ImportBalance(source="paper cards", points=40, expires_at=BEGINNING + 5 * DAYS),
    ImportBalance(source="paper cards", points=20, expires_at=BEGINNING + 25 * DAYS),
    ImportBalance(source="paper cards", stamps=1),
]
REVERSALS = [
    Undo(which, tenths, allow)
    for which in (0, 1, 1, 2, 3, 5)
    for tenths, allow in ((None, False), (None, True), (None, True), (3, True), (11, False))
]
MERGES = [Merge(number) for number in range(CARDS)]
RULES = [Rule(number) for number in range(CARDS)]
COMMANDS = [*PURCHASES * 3, *SPENDING * 6, *STAMPING * 3, *CORRECTIONS, *IMPORTS]
ACTS = [*COMMANDS, *REVERSALS, *MERGES, Suspend(), *[Reactivate()] * 6, Close(), ExpirePoints()]
"""Whatever can be asked, what matters most the most often."""

SPENT_AND_REFUNDED: list[Any] = [
    *[[EarnPoints(1_000), RedeemPoints("coffee"), Undo(1, None, allow_negative_balance=True)]] * 4,
    *[EarnPoints(1_000)] * 3,
    *[RedeemPoints("coffee")] * 8,
    *[Undo(which, None, allow_negative_balance=True) for which in range(6)],
    Undo(1, 3, allow_negative_balance=True),
    CORRECTIONS[1],
    IMPORTS[1],
    *MERGES,
]
"""What leads to debts."""

LATER = [timedelta(0)] * 7 + [
    timedelta(seconds=1),
    timedelta(minutes=15),
    timedelta(minutes=15),
    timedelta(hours=5),
    timedelta(hours=30),
]
LATER += [3 * DAYS, 10 * DAYS, 12 * DAYS - timedelta(seconds=1)]
CARD_NUMBERS = [0, 0, 1, 1, 2]
STORE_IDS = [LUXEMBOURG, TOKYO]
PROGRAMS = [
    rules(
        stamps_target=target,
        points_per_euro=rate,
        rewards=REWARDS,
        welcome_bonus_points=bonus,
        cooldown_minutes=cooldown,
        max_daily_stamps=daily,
        points_expiration_days=days,
        expiry_policy=policy,
    )
    for target, rate, bonus, cooldown, daily, (days, policy) in product(
        (1, 3),
        (10, 7, 33),
        (0, 120),
        (0, 15),
        (1, 5),
        (
            (None, ExpiryPolicy.INACTIVITY),
            (10, ExpiryPolicy.INACTIVITY),
            (10, ExpiryPolicy.EARNED),
            (3, ExpiryPolicy.EARNED),
        ),
    )
]


@st.composite
def histories(
    draw: st.DrawFn,
    acts: Sequence[Any] = (*ACTS, *RULES),
    programs: Sequence[Rules] = PROGRAMS,
    most: int = 40,
) -> Asked:
    """What is asked of three cards, one step after another."""
    first, *others = (draw(st.sampled_from(programs)) for _ in range(CARDS))
    # A step is one number, for drawing many things takes longer than doing them.
    places = [acts, CARD_NUMBERS, LATER, STORE_IDS]
    numbers = st.integers(0, math.prod(len(place) for place in places) - 1)
    drawn = draw(st.lists(numbers, min_size=most // 2, max_size=most))
    return Asked((first, *others), tuple(step_of(number, places) for number in drawn))


def step_of(number: int, places: Sequence[Sequence[Any]]) -> Step:
    """The step with that number, of all there are."""
    chosen = []
    for place in places:
        number, index = divmod(number, len(place))
        chosen.append(place[index])
    return Step(*chosen)


JUST_ENOUGH = [each for each in PROGRAMS if each.points_per_euro == 10 and not each.welcome_bonus_points]
"""Programs under which a purchase of 10.00 pays for a coffee."""

EVERYTHING = histories() | histories(SPENT_AND_REFUNDED, JUST_ENOUGH)
