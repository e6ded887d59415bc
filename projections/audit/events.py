"""A card's events in full: as they are stored, and what of them was sealed, opened."""

import base64
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from ledger.store.codec import StoredEnvelope, hash_of, opened
from ledger.store.log import Log
from ledger.store.records import Record
from ledger.streams import refusals_stream
from projections.audit.horizon import Horizon
from schemas import audit


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events of a card are asked for: of one name, that occurred from one time to another, within a horizon."""

    horizon: Horizon
    name: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def has(self, position: int, envelope: StoredEnvelope) -> bool:
        """Whether an event is one of them."""
        if self.name is not None and envelope.name != self.name:
            return False
        if self.since is not None and envelope.occurred_at < self.since:
            return False
        if self.until is not None and envelope.occurred_at > self.until:
            return False
        return self.horizon.admits(position, envelope.occurred_at, envelope.recorded_at)


class DecidedUnder(msgspec.Struct, gc=False, frozen=True):
    """What an event's data says of the program."""

    program_version: int | None = None


_decided_under = msgspec.json.Decoder(DecidedUnder)


def streams_of(cards: Sequence[UUID]) -> list[UUID]:
    """The streams of some cards: what happened to each, and what of it was refused."""
    return [stream for card_id in cards for stream in (card_id, refusals_stream(card_id))]


async def page(
    log: Log, cards: Sequence[UUID], wanted: Wanted, cursor: int | None, limit: int, *, newest_first: bool = False
) -> tuple[list[audit.CardEvent], int | None]:
    """Events of some cards in one order, past a position; and from where the next page goes on."""
    until = wanted.horizon.until
    after = 0
    if cursor is not None:
        after, until = (0, min(until, cursor - 1)) if newest_first else (cursor, until)
    found: list[audit.CardEvent] = []
    async for chunk in log.records.of_streams(streams_of(cards), after=after, until=until, newest_first=newest_first):
        for record in chunk:
            envelope, _ = opened(record.stored, None)
            if not wanted.has(record.position, envelope):
                continue
            if len(found) == limit:
                return found, found[-1].position
            found.append(shown(record))
    return found, None


def shown(record: Record) -> audit.CardEvent:
    """An event with all there is to know of it; what was sealed under a key that is gone stays away."""
    envelope, secret = opened(record.stored, record.key)
    private, origin = bytes(secret.private), secret.origin
    return audit.CardEvent(
        position=record.position,
        stream=envelope.stream,
        version=envelope.version,
        merchant_id=envelope.merchant_id,
        name=envelope.name,
        event_version=envelope.event_version,
        occurred_at=envelope.occurred_at,
        recorded_at=envelope.recorded_at,
        actor=envelope.actor,
        program_version=_decided_under.decode(envelope.data).program_version,
        data=envelope.data,
        private=msgspec.Raw(private) if private else None,
        origin=audit.Origin(ip_address=origin.ip_address, user_agent=origin.user_agent) if origin else None,
        stored=base64.b64encode(record.stored).decode(),
        previous_hash=envelope.previous_hash,
        hash=hash_of(record.stored),
    )
