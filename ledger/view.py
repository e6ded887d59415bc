"""What one decision has read, and what it decided: the two halves of a command between the rules and the log."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from ledger.actor import Caller
from ledger.errors import Rejected
from ledger.store.log import Loaded, Log
from ledger.store.names import Aggregate

S = TypeVar("S")


class View:
    """Reads streams of one merchant and remembers at which version, so that the log can check them.

    `now` is when the command happened at the till, `clock_now` when it is decided: locks go by the clock, since
    whoever sends a command says when it happened. `fresh` reads past the cache: for a second attempt, after the
    first found that something had moved. `wanted` are claims that a repetition would find taken, known before the
    rules are asked.
    """

    def __init__(self, log: Log, caller: Caller, now: datetime, clock_now: datetime, *, fresh: bool) -> None:
        self.log = log
        self.caller = caller
        self.now = now
        self.clock_now = clock_now
        self.fresh = fresh
        self.wanted: Sequence[ClaimOn] = ()
        self.guards: dict[UUID, int] = {}
        self.loaded: dict[UUID, Loaded[Any]] = {}

    async def find(self, aggregate: Aggregate[S, Any], stream: UUID) -> Loaded[S] | None:
        """The stream, or None where there is none in this merchant: another's looks like nobody's."""
        known = self.loaded.get(stream)
        if known is not None:
            return known if known.aggregate is aggregate else None
        return await self._read(aggregate, stream, fresh=self.fresh)

    async def moved(self, aggregate: Aggregate[Any, Any], stream: UUID) -> bool:
        """Whether the stream has another end by now than was read; that end is then what was read."""
        known = self.loaded.pop(stream, None)
        now = await self._read(aggregate, stream, fresh=True)
        return (known.last_hash if known else None) != (now.last_hash if now else None)

    async def _read(self, aggregate: Aggregate[S, Any], stream: UUID, *, fresh: bool) -> Loaded[S] | None:
        self.guards.pop(stream, None)
        loaded = await self.log.load(aggregate, stream, fresh=fresh)
        if loaded is None or loaded.merchant_id != self.caller.merchant_id:
            return None
        self.guards[stream] = loaded.version
        self.loaded[stream] = loaded
        return loaded

    async def need(self, aggregate: Aggregate[S, Any], stream: UUID, otherwise: str) -> S:
        """The stream's state, or a refusal with the code `otherwise`."""
        loaded = await self.find(aggregate, stream)
        if loaded is None:
            raise Rejected(otherwise)
        return loaded.state

    async def claimed_by(self, kind: str, key: str, *, remembered: bool = False) -> "Holder | None":
        """What holds a claim of this merchant, None where it is free; `remembered` as in `Log.claim`."""
        value = await self.log.claim(self.caller.merchant_id, kind, key, remembered=remembered)
        return holder_of(value) if value is not None else None


class Holder(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """What a claim's value tells later comers: the event that took it, and the answer that was given then.

    `digest` is of what was asked; `answer` is sealed for `subject` or, without one, by the master key;
    `answered_under` points to the idempotency key whose claim holds the answer.
    """

    stream: UUID
    version: int = 0
    digest: str = ""
    subject: UUID | None = None
    answer: bytes | None = None
    created: bool = False
    answered_under: str | None = None


_holders = msgspec.msgpack.Decoder(Holder)
_encoder = msgspec.msgpack.Encoder()


def holder_of(value: bytes) -> Holder:
    """A claim's value, read."""
    return _holders.decode(value)


def value_of(holder: Holder) -> bytes:
    """A claim's value, as it is stored."""
    return _encoder.encode(holder)


class ClaimOn(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A claim that a decision makes for its main stream; `digest` tells a repetition from a collision.

    `also` are digests of the same request from before cards were merged.
    """

    kind: str
    key: str
    digest: str = ""
    also: Sequence[str] = ()


class Change(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Events for one stream, in order; `occurred_at` where that is not when the command happened."""

    aggregate: Any
    stream: UUID
    events: Sequence[Any]
    occurred_at: datetime | None = None


class Decision(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What is to be written, and of which stream the answer tells.

    A `refusal` beside changes means: write them (that it was refused is an event, and so is a wrong PIN), then refuse.
    """

    main: UUID | None = None
    changes: Sequence[Change] = ()
    claims: Sequence[ClaimOn] = ()
    releases: Sequence[ClaimOn] = ()
    reserves: ClaimOn | None = None
    new_subjects: Sequence[UUID] = ()
    staff_id: UUID | None = None
    store_id: UUID | None = None
    facts: Any = None
    secret: str | None = None
    created: bool = False
    refusal: Rejected | None = None
    origin_wanted: bool = False
