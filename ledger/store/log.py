"""The log as the rest of the ledger sees it: load a stream's state, look up a claim, append a command."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from psycopg.rows import TupleRow

from ledger.actor import Occurrence
from ledger.store.codec import Read, decode, hash_of
from ledger.store.deadline import settle
from ledger.store.keys import Keyring, SubjectKey
from ledger.store.names import Aggregate
from ledger.store.pool import Pool
from ledger.store.recorder import Append, Outcome
from ledger.store.records import Records
from ledger.store.writer import Writer

S = TypeVar("S")
LOG = logging.getLogger("loyalty")

SNAPSHOT_EVERY_EVENTS = 200
CACHED_STREAMS_MAX = 50_000
POOL_CONNECTIONS_MAX = 8

NEWER_EVENTS = """
    SELECT e.originator_version, e.state, e.notification_id, e.subject_id, k.wrapped, NULL
    FROM events e LEFT JOIN subject_keys k USING (subject_id)
    WHERE e.originator_id = %(stream)s AND e.originator_version > %(version)s
    ORDER BY e.originator_version
"""
SNAPSHOTS_AND_EVENTS = """
    SELECT page.*, asked.stream FROM unnest(%(streams)s::uuid[]) AS asked (stream)
    CROSS JOIN LATERAL (
        SELECT s.version, s.state, 0, s.subject_id, k.wrapped, s.merchant_id
        FROM snapshots s LEFT JOIN subject_keys k USING (subject_id)
        WHERE s.stream_id = asked.stream AND s.fold = %(fold)s
        UNION ALL
        SELECT e.originator_version, e.state, e.notification_id, e.subject_id, k.wrapped, NULL
        FROM events e LEFT JOIN subject_keys k USING (subject_id)
        WHERE e.originator_id = asked.stream AND e.originator_version > coalesce(
            (SELECT version FROM snapshots WHERE stream_id = asked.stream AND fold = %(fold)s), 0)
    ) AS page
    ORDER BY asked.stream, page.version
"""
MERCHANTS = """
    WITH RECURSIVE known (merchant_id) AS (
        (SELECT merchant_id FROM events WHERE originator_version = 1 ORDER BY merchant_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT merchant_id FROM events
            WHERE originator_version = 1 AND merchant_id > known.merchant_id ORDER BY merchant_id LIMIT 1
        ) FROM known WHERE known.merchant_id IS NOT NULL
    )
    SELECT merchant_id FROM known WHERE merchant_id IS NOT NULL
"""
OLDEST_FIRST_EVENTS = """
    SELECT notification_id, originator_id FROM events
    WHERE merchant_id = %(merchant)s AND topic = %(topic)s AND originator_version = 1 AND notification_id > %(after)s
    ORDER BY notification_id LIMIT %(limit)s
"""
NEWEST_FIRST_EVENTS = """
    SELECT notification_id, originator_id FROM events
    WHERE merchant_id = %(merchant)s AND topic = %(topic)s AND originator_version = 1 AND notification_id < %(after)s
    ORDER BY notification_id DESC LIMIT %(limit)s
"""
COUNT_FIRST_EVENTS = """
    SELECT count(*) FROM events WHERE merchant_id = %(merchant)s AND topic = %(topic)s AND originator_version = 1
"""
ENDS_ELSEWHERE = """
    SELECT EXISTS (
        SELECT FROM unnest(%(streams)s::uuid[], %(versions)s::bigint[]) AS g (stream, version)
        CROSS JOIN LATERAL (
            SELECT max(e.originator_version) AS last FROM events e WHERE e.originator_id = g.stream
        ) AS stream_end
        WHERE stream_end.last <> g.version OR (stream_end.last IS NULL AND g.version > 0)
    )
"""
HISTORY_PAGE = """
    SELECT page.* FROM unnest(%(streams)s::uuid[]) AS asked (stream)
    CROSS JOIN LATERAL (
        SELECT e.originator_version, e.state, e.notification_id, e.subject_id, k.wrapped, NULL
        FROM events e LEFT JOIN subject_keys k USING (subject_id)
        WHERE e.originator_id = asked.stream AND e.notification_id < %(before)s
        AND (%(topics)s::text[] IS NULL OR e.topic = ANY(%(topics)s))
        ORDER BY e.originator_version DESC LIMIT %(limit)s
    ) AS page
    ORDER BY page.notification_id DESC LIMIT %(limit)s
"""
EVENTS_SINCE = """
    SELECT e.originator_version, e.state, e.notification_id, e.subject_id, k.wrapped, NULL
    FROM events e LEFT JOIN subject_keys k USING (subject_id)
    WHERE e.originator_id = %(stream)s AND e.originator_version >= %(first)s
    AND (e.originator_version = %(first)s OR e.topic = ANY(%(topics)s))
    ORDER BY e.originator_version
"""
SAVE_SNAPSHOT = """
    INSERT INTO snapshots (stream_id, merchant_id, subject_id, version, fold, state)
    VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (stream_id) DO UPDATE
    SET version = excluded.version, fold = excluded.fold, state = excluded.state
    WHERE snapshots.version < excluded.version OR snapshots.fold <> excluded.fold
"""


class Loaded(msgspec.Struct, Generic[S], gc=False, frozen=True, kw_only=True):
    """A stream folded up to `version`; `position` is the log position of that last event."""

    aggregate: Aggregate[S, Any]
    stream: UUID
    merchant_id: UUID
    state: S
    version: int
    position: int
    last_hash: str
    snapshot_version: int = 0

    def then(self, event: Any, at: Occurrence, stored: bytes, position: int) -> "Loaded[S]":
        """The same stream with one more event."""
        return Loaded(
            aggregate=self.aggregate,
            stream=self.stream,
            merchant_id=self.merchant_id,
            state=self.aggregate.evolve(self.state, event, at),
            version=at.version,
            position=position,
            last_hash=hash_of(stored),
            snapshot_version=self.snapshot_version,
        )


class SnapshotBody(msgspec.Struct, gc=False, frozen=True):
    """What a snapshot row holds, sealed where the stream holds personal data."""

    state: msgspec.Raw
    position: int
    last_hash: str


class Log:
    """An append-only log of events in PostgreSQL, with a bounded cache of folded streams in front of it.

    What is cached may have been overtaken by another process: `append` checks it, and `is_current` does for those
    who decide not to append.
    """

    def __init__(self, database_url: str, keyring: Keyring) -> None:
        self.keyring = keyring
        self._writer = Writer(database_url)
        self._pool = Pool(database_url, POOL_CONNECTIONS_MAX)
        self._rows = self._pool.rows
        self._cache: OrderedDict[UUID, Loaded[Any]] = OrderedDict()
        self._holders: OrderedDict[tuple[UUID, str, str], bytes] = OrderedDict()
        self._snapshots: set[asyncio.Task[None]] = set()
        self.records = Records(self._rows, keyring.of)

    async def open(self) -> None:
        """Connects, in the background where the database is not there yet."""
        await self._pool.open()

    async def close(self) -> None:
        """Writes what is queued and disconnects."""
        await self._writer.close()
        await asyncio.gather(*self._snapshots, return_exceptions=True)
        await settle()
        await self._pool.close()

    # ---- reading --------------------------------------------------------------------------------------------

    async def load(self, aggregate: Aggregate[S, Any], stream: UUID, *, fresh: bool = False) -> Loaded[S] | None:
        """The stream's state; from the cache unless `fresh`, and then as of now.

        None where there is no such stream, or where it is one of another kind.
        """
        cached: Loaded[S] | None = self._cache.get(stream)
        if cached is not None and cached.aggregate is not aggregate:
            return None
        if cached is not None and not fresh:
            self._cache.move_to_end(stream)
            return cached
        newer = await self._newer_than(cached) if cached is not None else None
        if newer is not None:
            loaded, rows = cached, newer
        else:
            self.forget([stream])
            loaded, rows = await self._from_the_start(aggregate, stream)
        loaded = self._folded(aggregate, loaded, rows)
        if loaded is not None:
            self.remember(loaded)
        return loaded

    async def _newer_than(self, cached: Loaded[Any]) -> list[TupleRow] | None:
        """What came after the end that is known; None if that end was lost, and perhaps replaced."""
        rows = await self._rows(NEWER_EVENTS, {"stream": cached.stream, "version": cached.version - 1})
        return rows[1:] if rows and hash_of(bytes(rows[0][1])) == cached.last_hash else None

    async def _from_the_start(
        self, aggregate: Aggregate[S, Any], stream: UUID
    ) -> tuple[Loaded[S] | None, list[TupleRow]]:
        """The stream's snapshot, if it has one that can be used, and the events after it."""
        rows = await self._rows(SNAPSHOTS_AND_EVENTS, {"streams": [stream], "fold": aggregate.fold})
        if not rows or rows[0][5] is None:
            return None, rows
        loaded = self._from_snapshot(aggregate, stream, rows[0])
        if loaded is not None:
            return loaded, rows[1:]
        return None, await self._rows(NEWER_EVENTS, {"stream": stream, "version": 0})

    async def load_many(self, aggregate: Aggregate[S, Any], streams: Sequence[UUID]) -> list[Loaded[S]]:
        """The states of many streams as of now, with one look at the database; those of another kind are left out."""
        rows = await self._rows(SNAPSHOTS_AND_EVENTS, {"streams": list(streams), "fold": aggregate.fold})
        found = []
        for stream, group in groupby(rows, key=lambda row: row[6]):
            loaded, newer = None, [*group]
            if newer[0][5] is not None:
                loaded = self._from_snapshot(aggregate, stream, newer[0])
                newer = newer[1:] if loaded else await self._rows(NEWER_EVENTS, {"stream": stream, "version": 0})
            loaded = self._folded(aggregate, loaded, newer)
            if loaded is not None:
                self.remember(loaded)
                found.append(loaded)
        return found

    async def merchants(self) -> list[UUID]:
        """Everyone whom the log knows, the platform among them."""
        return [row[0] for row in await self._rows(MERCHANTS, {})]

    async def count_first_events(self, merchant: UUID, topic: str) -> int:
        """How many streams of a merchant began with that topic."""
        rows = await self._rows(COUNT_FIRST_EVENTS, {"merchant": merchant, "topic": topic})
        return int(rows[0][0])

    async def history(
        self, streams: Sequence[UUID], before: int, limit: int, topics: Sequence[str] | None = None
    ) -> list[tuple[int, Read]]:
        """Events of some streams before a position, with their own, newest first; of certain topics where given."""
        asked = {
            "streams": list(streams),
            "before": before,
            "limit": limit,
            "topics": list(topics) if topics is not None else None,
        }
        rows = await self._rows(HISTORY_PAGE, asked)
        return [(row[2], decode(bytes(row[1]), self.keyring.of(row[3], row[4]))) for row in rows]

    async def events_since(self, stream: UUID, first: int, topics: Sequence[str]) -> list[Read]:
        """A stream's event of that version, and those of certain topics after it, in order."""
        rows = await self._rows(EVENTS_SINCE, {"stream": stream, "first": first, "topics": list(topics)})
        return [decode(bytes(row[1]), self.keyring.of(row[3], row[4])) for row in rows]

    async def position_of(self, stream: UUID, version: int) -> int:
        """The log position of an event that is there."""
        rows = await self._rows(
            "SELECT notification_id FROM events WHERE originator_id = %(stream)s AND originator_version = %(version)s",
            {"stream": stream, "version": version},
        )
        return int(rows[0][0])

    async def head(self) -> int:
        """The position of the newest event, 0 where there is none."""
        rows = await self._rows("SELECT coalesce(max(notification_id), 0) FROM events", {})
        return int(rows[0][0])

    async def claim(self, merchant: UUID, kind: str, key: str, *, remembered: bool = False) -> bytes | None:
        """What took a claim, or None where it is free.

        `remembered` may answer what held it when it was last looked up, for those who check what it leads to.
        """
        name = (merchant, kind, key)
        if remembered and name in self._holders:
            return self._holders[name]
        value = (await self.claims(merchant, kind, [key])).get(key)
        if remembered and value is not None:
            self._holders[name] = value
            if len(self._holders) > CACHED_STREAMS_MAX:
                self._holders.popitem(last=False)
        return value

    async def claims(self, merchant: UUID, kind: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Those of the claims that are taken, with what took them."""
        rows = await self._rows(
            "SELECT key, value FROM claims"
            " WHERE merchant_id = %(merchant)s AND kind = %(kind)s AND key = ANY(%(keys)s)",
            {"merchant": merchant, "kind": kind, "keys": list(keys)},
        )
        return {key: bytes(value) for key, value in rows}

    async def first_events(
        self, merchant: UUID, topic: str, after: int, limit: int, *, newest_first: bool = False
    ) -> list[tuple[int, UUID]]:
        """Streams of a merchant that began with that topic, with the position they began at, page by page."""
        rows = await self._rows(
            NEWEST_FIRST_EVENTS if newest_first else OLDEST_FIRST_EVENTS,
            {"merchant": merchant, "topic": topic, "after": after, "limit": limit},
        )
        return [(int(position), stream) for position, stream in rows]

    async def is_current(self, guards: dict[UUID, int]) -> bool:
        """Whether every stream still ends at the version it was read at."""
        if not guards:
            return True
        rows = await self._rows(ENDS_ELSEWHERE, {"streams": list(guards), "versions": list(guards.values())})
        return not rows[0][0]

    async def subject_key(self, subject: UUID) -> SubjectKey | None:
        """The key of a person, None once they were erased."""
        known = self.keyring.known(subject)
        if known is not None:
            return known
        rows = await self._rows("SELECT wrapped FROM subject_keys WHERE subject_id = %(subject)s", {"subject": subject})
        return self.keyring.unwrap(subject, bytes(rows[0][0])) if rows else None

    # ---- writing --------------------------------------------------------------------------------------------

    async def append(self, append: Append) -> Outcome:
        """Writes one command whole or not at all, durably when this returns."""
        return await self._writer.append(append)

    def remember(self, loaded: Loaded[Any]) -> None:
        """Keeps a stream's newest state, and a snapshot of it where it grew long."""
        cached = self._cache.get(loaded.stream)
        if cached is not None and cached.version > loaded.version:
            return
        if loaded.version - loaded.snapshot_version >= SNAPSHOT_EVERY_EVENTS:
            task = asyncio.get_running_loop().create_task(self._save_snapshot(loaded))
            self._snapshots.add(task)
            task.add_done_callback(self._snapshot_ended)
            loaded = msgspec.structs.replace(loaded, snapshot_version=loaded.version)
        self._cache[loaded.stream] = loaded
        self._cache.move_to_end(loaded.stream)
        if len(self._cache) > CACHED_STREAMS_MAX:
            self._cache.popitem(last=False)

    def forget(self, streams: Iterable[UUID]) -> None:
        """Drops what was read of those streams: it was overtaken, or nobody knows."""
        for stream in streams:
            self._cache.pop(stream, None)

    # ---- folding --------------------------------------------------------------------------------------------

    def _folded(
        self, aggregate: Aggregate[S, Any], loaded: Loaded[S] | None, rows: Iterable[TupleRow]
    ) -> Loaded[S] | None:
        """The stream with those events; None where one of them is of another kind."""
        for row in rows:
            loaded = self._fold(aggregate, loaded, row)
            if loaded is None:
                return None
        return loaded

    def _fold(self, aggregate: Aggregate[S, Any], loaded: Loaded[S] | None, row: TupleRow) -> Loaded[S] | None:
        version, stored, position, subject, wrapped = row[:5]
        read = decode(bytes(stored), self.keyring.of(subject, wrapped))
        if not isinstance(read.event, aggregate.events):
            return None
        if loaded is not None:
            return loaded.then(read.event, read.at, bytes(stored), position)
        return Loaded(
            aggregate=aggregate,
            stream=read.at.stream,
            merchant_id=read.at.merchant_id,
            state=aggregate.evolve(None, read.event, read.at),
            version=version,
            position=position,
            last_hash=hash_of(bytes(stored)),
        )

    def _from_snapshot(self, aggregate: Aggregate[S, Any], stream: UUID, row: TupleRow) -> Loaded[S] | None:
        version, sealed, _, subject, wrapped, merchant_id = row[:6]
        body = bytes(sealed)
        if subject is not None:
            key = self.keyring.of(subject, wrapped)
            if key is None:
                return None
            body = key.open(body, snapshot_place(stream, version))
        try:
            snapshot = msgspec.msgpack.decode(body, type=SnapshotBody)
            state = msgspec.msgpack.decode(snapshot.state, type=aggregate.state)
        except msgspec.DecodeError:
            # Another release wrote it in a shape of its own; the events are still there.
            return None
        return Loaded(
            aggregate=aggregate,
            stream=stream,
            merchant_id=merchant_id,
            state=state,
            version=version,
            position=snapshot.position,
            last_hash=snapshot.last_hash,
            snapshot_version=version,
        )

    def _snapshot_ended(self, task: asyncio.Task[None]) -> None:
        self._snapshots.discard(task)
        if not task.cancelled() and task.exception() is not None:
            LOG.warning("a snapshot was not saved (%s); the stream is folded from its events", task.exception())

    async def _save_snapshot(self, loaded: Loaded[Any]) -> None:
        state = msgspec.Raw(msgspec.msgpack.encode(loaded.state))
        body = msgspec.msgpack.encode(SnapshotBody(state, loaded.position, loaded.last_hash))
        subject = loaded.aggregate.subject(loaded.state) if loaded.aggregate.subject else None
        if subject is not None:
            key = await self.subject_key(subject)
            if key is None:
                return
            body = key.seal(body, snapshot_place(loaded.stream, loaded.version))
        row = (loaded.stream, loaded.merchant_id, subject, loaded.version, loaded.aggregate.fold, body)
        async with self._pool.connection() as connection:
            await connection.execute(SAVE_SNAPSHOT, row)


def snapshot_place(stream: UUID, version: int) -> bytes:
    """The associated data that ties a sealed snapshot to its stream and version."""
    return f"snapshot:{stream}:{version}".encode()
