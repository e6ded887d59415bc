"""The whole log, event by event, as it is exported: made from the stored bytes, with nothing taken apart but its frame.

`docs/log.md` has the form of a line to the byte.
"""

import base64
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import msgspec

from ledger.store.codec import hash_of
from ledger.store.log import Log

LINES_AT_ONCE = 500


class Frame(msgspec.Struct, gc=False, frozen=True):
    """What an exported line repeats of an event's envelope, each value in the very bytes that were stored."""

    stream: msgspec.Raw
    version: msgspec.Raw
    merchant_id: msgspec.Raw
    name: msgspec.Raw
    event_version: msgspec.Raw
    occurred_at: msgspec.Raw
    recorded_at: msgspec.Raw
    actor: msgspec.Raw
    data: msgspec.Raw
    previous_hash: msgspec.Raw


class Line(msgspec.Struct, gc=False, frozen=True):
    """An event as it is exported. `stored` are the bytes that were hashed, in base64."""

    position: int
    stream: msgspec.Raw
    version: msgspec.Raw
    merchant_id: msgspec.Raw
    name: msgspec.Raw
    event_version: msgspec.Raw
    occurred_at: msgspec.Raw
    recorded_at: msgspec.Raw
    actor: msgspec.Raw
    data: msgspec.Raw
    stored: str
    previous_hash: msgspec.Raw
    hash: str


_frames = msgspec.json.Decoder(Frame)
_encoder = msgspec.json.Encoder()


def line_of(position: int, stored: bytes) -> Line:
    """An event's line from where it stands and what is stored there."""
    frame = _frames.decode(stored)
    return Line(
        position,
        frame.stream,
        frame.version,
        frame.merchant_id,
        frame.name,
        frame.event_version,
        frame.occurred_at,
        frame.recorded_at,
        frame.actor,
        frame.data,
        base64.b64encode(stored).decode(),
        frame.previous_hash,
        hash_of(stored),
    )


def text_of(events: Sequence[tuple[int, bytes]]) -> bytes:
    """Events as JSON Lines."""
    return _encoder.encode_lines([line_of(position, stored) for position, stored in events])


async def page(log: Log, merchant: UUID | None, after: int, until: int, limit: int) -> tuple[list[Line], int | None]:
    """Events of one merchant, or of all, past a position, oldest first; and from where the next page goes on."""
    found = await log.records.page(after, until, limit + 1, merchant)
    lines = [line_of(position, stored) for position, stored in found[:limit]]
    return lines, lines[-1].position if len(found) > limit else None


async def texts(log: Log, merchant: UUID | None, after: int, until: int) -> AsyncIterator[tuple[int, int, bytes]]:
    """Everything past a position and up to another, as JSON Lines, some at a time.

    Each comes with how many events it has and the position of the last.
    """
    while found := await log.records.page(after, until, LINES_AT_ONCE, merchant):
        after = found[-1][0]
        yield len(found), after, text_of(found)
