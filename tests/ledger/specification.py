"""Given events, when a command, then events: a rule's specification in one sentence.

    given(card, enrolled(), at(NOON), stamped(1)).when(AddStamp(), facts(NOON)).refused("stamp_cooldown", ...)

Events are given bare; where and when they happened is made up. They happen at `NOON` until `at` says otherwise.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import msgspec

from ledger.actor import Actor, Occurrence, Role
from ledger.errors import Fact, Rejected
from tests.shop import NOON

STREAM = UUID(int=0xA)
MERCHANT_ID = UUID(int=0xB)
SOMEBODY = Actor(role=Role.OPERATOR, id=UUID(int=0xC))


class Decider(Protocol):
    """What every aggregate's module has."""

    @property
    def decide(self) -> Callable[..., list[Any]]: ...

    @property
    def evolve(self) -> Callable[..., Any]: ...


class At(NamedTuple):
    """The time from here on."""

    time: datetime


class Happened(NamedTuple):
    """An event and where it stands."""

    event: Any
    at: Occurrence


def at(time: datetime) -> At:
    """Stands among given events: those after it happened at that time."""
    return At(time)


def given(aggregate: Decider, *history: Any, stream: UUID = STREAM) -> "Given":
    """An aggregate to which these events happened."""
    return Given(aggregate, None, 0, NOON, stream).then(*history)


class Given(NamedTuple):
    """An aggregate with a past; `state` is what it came to."""

    aggregate: Decider
    state: Any
    version: int
    time: datetime
    stream: UUID = STREAM
    past: tuple[Happened, ...] = ()

    def then(self, *history: Any) -> "Given":
        """The same after more events. What ended at a time of its own happened then, whatever time it is."""
        aggregate, state, version, time, stream, past = self
        for event in history:
            if isinstance(event, At):
                time = event.time
                continue
            version += 1
            happened = Happened(event, occurrence(version, getattr(event, "expired_at", time), stream))
            state = aggregate.evolve(state, *happened)
            past = (*past, happened)
        return Given(aggregate, state, version, time, stream, past)

    def but(self, **changes: Any) -> "Given":
        """The same with other values in its state, for what no event brings about yet."""
        return self._replace(state=msgspec.structs.replace(self.state, **changes))

    def when(self, command: Any, *facts: Any) -> "Outcome":
        """What comes of a command, decided on these facts, and at their `now` where they have one."""
        before = self._replace(time=next((fact.now for fact in facts if hasattr(fact, "now")), self.time))
        try:
            return Outcome(before, self.aggregate.decide(self.state, command, *facts), None)
        except Rejected as refusal:
            return Outcome(before, [], refusal)


class Outcome(NamedTuple):
    """What a command came to: events or a refusal."""

    before: Given
    events: list[Any]
    refusal: Rejected | None

    def then(self, *events: Any) -> Given:
        """It made exactly these events; gives the aggregate after them."""
        assert self.refusal is None, f"refused: {self.told()}"
        assert self.events == list(events), f"made {self.events}\nand not {list(events)}"
        return self.done()

    def done(self) -> Given:
        """It was not refused; gives the aggregate after whatever it made."""
        assert self.refusal is None, f"refused: {self.told()}"
        return self.before.then(*self.events)

    def refused(self, code: str, **facts: Fact) -> None:
        """It was refused with this code and exactly these facts."""
        assert self.refusal is not None, f"not refused, but made {self.events}"
        assert (self.refusal.code, dict(self.refusal.facts)) == (code, facts), f"refused otherwise: {self.told()}"

    def quiet(self) -> None:
        """It was already so: no events, and no refusal."""
        self.then()

    def told(self) -> str:
        """The refusal in words."""
        return f"{self.refusal.code} {dict(self.refusal.facts)}" if self.refusal else "not at all"


def occurrence(version: int, time: datetime, stream: UUID = STREAM) -> Occurrence:
    """Where an event stands that somebody made in the stream under specification."""
    return Occurrence(
        stream=stream, version=version, merchant_id=MERCHANT_ID, occurred_at=time, recorded_at=time, actor=SOMEBODY
    )
