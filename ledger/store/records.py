"""The log in full, for those who check it: stored bytes in the order of positions, chunk by chunk.

No read holds more than a chunk, and none keeps a transaction open between two of them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.rows import TupleRow

from ledger.store import END_OF_LOG
from ledger.store.keys import SubjectKey

CHUNK_EVENTS = 100

Place = tuple[UUID, int]
"""A stream and a version in it."""

LOG_PAGE = """
    SELECT notification_id, state FROM events
    WHERE notification_id > %(after)s AND notification_id <= %(until)s
    ORDER BY notification_id LIMIT %(limit)s
"""
MERCHANT_PAGE = """
    SELECT notification_id, state FROM events
    WHERE merchant_id = %(merchant)s AND notification_id > %(after)s AND notification_id <= %(until)s
    ORDER BY notification_id LIMIT %(limit)s
"""
STREAMS_FORWARDS = """
    SELECT page.* FROM unnest(%(streams)s::uuid[], %(reached)s::bigint[]) AS asked (stream, version)
    CROSS JOIN LATERAL (
        SELECT e.notification_id, e.originator_id, e.originator_version, e.state, e.subject_id, k.wrapped
        FROM events e LEFT JOIN subject_keys k USING (subject_id)
        WHERE e.originator_id = asked.stream AND e.originator_version > asked.version
        AND e.notification_id > %(after)s AND e.notification_id <= %(until)s
        ORDER BY e.originator_version LIMIT %(limit)s
    ) AS page
    ORDER BY page.notification_id LIMIT %(limit)s
"""
STREAMS_BACKWARDS = """
    SELECT page.* FROM unnest(%(streams)s::uuid[], %(reached)s::bigint[]) AS asked (stream, version)
    CROSS JOIN LATERAL (
        SELECT e.notification_id, e.originator_id, e.originator_version, e.state, e.subject_id, k.wrapped
        FROM events e LEFT JOIN subject_keys k USING (subject_id)
        WHERE e.originator_id = asked.stream AND e.originator_version < asked.version
        AND e.notification_id > %(after)s AND e.notification_id <= %(until)s
        ORDER BY e.originator_version DESC LIMIT %(limit)s
    ) AS page
    ORDER BY page.notification_id DESC LIMIT %(limit)s
"""
PLACES = """
    SELECT asked.stream, asked.version, place.notification_id
    FROM unnest(%(streams)s::uuid[], %(versions)s::bigint[]) AS asked (stream, version)
    CROSS JOIN LATERAL (
        SELECT e.notification_id FROM events e
        WHERE e.originator_id = asked.stream AND e.originator_version = asked.version LIMIT 1
    ) AS place
"""
AT_POSITION = "SELECT state FROM events WHERE notification_id = %(position)s"


class Record(NamedTuple):
    """An event as it is stored; `key` opens what of it is sealed, and is None where nobody can."""

    position: int
    stream: UUID
    version: int
    stored: bytes
    key: SubjectKey | None


class Records:
    """Reads what is stored, through the log's own connections."""

    def __init__(
        self,
        rows: Callable[[str, dict[str, Any]], Awaitable[list[TupleRow]]],
        key: Callable[[UUID | None, bytes | None], SubjectKey | None],
    ) -> None:
        self._rows = rows
        self._key = key

    async def page(self, after: int, until: int, limit: int, merchant: UUID | None = None) -> list[tuple[int, bytes]]:
        """Events past one position and up to another, of one merchant or of all, oldest first."""
        asked = {"after": after, "until": until, "limit": limit, "merchant": merchant}
        rows = await self._rows(LOG_PAGE if merchant is None else MERCHANT_PAGE, asked)
        return [(position, bytes(stored)) for position, stored in rows]

    async def of_streams(
        self, streams: Sequence[UUID], *, after: int = 0, until: int, newest_first: bool = False
    ) -> AsyncIterator[list[Record]]:
        """Everything of some streams past one position and up to another, in one order, chunk by chunk."""
        reached = dict.fromkeys(streams, END_OF_LOG if newest_first else 0)
        query = STREAMS_BACKWARDS if newest_first else STREAMS_FORWARDS
        while True:
            asked = {
                "streams": list(reached),
                "reached": list(reached.values()),
                "after": after,
                "until": until,
                "limit": CHUNK_EVENTS,
            }
            chunk = [
                Record(position, stream, version, bytes(stored), self._key(subject, wrapped))
                for position, stream, version, stored, subject, wrapped in await self._rows(query, asked)
            ]
            if chunk:
                yield chunk
            if len(chunk) < CHUNK_EVENTS:
                return
            reached |= {record.stream: record.version for record in chunk}

    async def places(self, names: Sequence[Place]) -> dict[Place, int]:
        """The positions of events by stream and version; what is not there is left out."""
        if not names:
            return {}
        asked = {"streams": [stream for stream, _ in names], "versions": [version for _, version in names]}
        return {(stream, version): position for stream, version, position in await self._rows(PLACES, asked)}

    async def at(self, position: int) -> bytes | None:
        """The stored bytes at a position; None past the end."""
        rows = await self._rows(AT_POSITION, {"position": position})
        return bytes(rows[0][0]) if rows else None
