"""One append, whole or not at all; what is read is current, remembered or rebuilt, and says which."""

import asyncio
import contextlib
import hashlib
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from ledger import program, staff_pin
from ledger.actor import Actor, Occurrence, Role
from ledger.commands import ChangePin, OpenAccount
from ledger.errors import Rejected, Unavailable
from ledger.staff_pin import StaffRole
from ledger.store.codec import NO_PREVIOUS_HASH, encode, hash_of
from ledger.store.keys import SubjectKey
from ledger.store.log import SNAPSHOT_EVERY_EVENTS, Log
from ledger.store.names import ACCOUNT, PROGRAM, STAFF_PIN, Aggregate
from ledger.store.recorder import Append, Claim, NewEvent, NewSubject, Outcome, Stale, Taken, Written
from ledger.store.writer import BATCH_MAX, Pending, independent
from loyalty.embedded import Servers
from tests.running import open_ledger, open_log, running
from tests.shop import EVENTS_MAX, NOON, POSITION_MAX, open_shop, rules

T = TypeVar("T")

APPENDER_LOCK = 7310868725460103213
POSTGRESQL_SOCKET = ".s.PGSQL.5432"
MERCHANT_ID = uuid4()


def event(stream: UUID, version: int = 1, state: bytes = b"{}") -> NewEvent:
    return NewEvent(stream, version, "told.1", state)


def command(*streams: UUID, **parts: Any) -> Append:
    """A command that begins each of the streams, or those that its `guards` name goes on with."""
    guards: dict[UUID, int] = parts.pop("guards", {})
    events = tuple(event(stream, guards.get(stream, 0) + 1) for stream in streams)
    return Append(merchant=MERCHANT_ID, events=events, guards=dict.fromkeys(streams, 0) | guards, **parts)


def claim(key: str, value: bytes = b"", kind: str = "kind", merchant: UUID = MERCHANT_ID) -> Claim:
    return Claim(merchant, kind, key, value)


async def append_all(log: Log, *appends: Append) -> list[Outcome]:
    """Appends commands that are in the queue together."""
    return list(await asyncio.gather(*(log.append(append) for append in appends)))


async def try_all(*asking: Awaitable[Any]) -> list[Any]:
    """What became of each, exceptions included."""
    return list(await asyncio.gather(*asking, return_exceptions=True))


async def available(ask: Callable[[], Awaitable[T]]) -> T:
    """The first answer that is no `Unavailable`."""
    while True:
        with contextlib.suppress(Unavailable):
            return await ask()


@dataclass
class Inside:
    """The database seen from beside the ledger."""

    connection: psycopg.Connection[Any]

    def ask(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode(), parameters).fetchall()

    def change(self, query: str, *parameters: Any) -> None:
        self.connection.execute(query.encode(), parameters)

    def streams(self) -> list[UUID]:
        """The stream of each event, in order of position, which must run on from 1."""
        rows = self.ask("SELECT notification_id, originator_id FROM events ORDER BY notification_id")
        assert [position for position, _ in rows] == list(range(1, len(rows) + 1))
        return [stream for _, stream in rows]

    def transaction_of(self, stream: UUID) -> str:
        ((transaction,),) = self.ask("SELECT DISTINCT xmin::text FROM events WHERE originator_id = %s", stream)
        return str(transaction)

    def keys(self) -> set[str]:
        return {key for (key,) in self.ask("SELECT key FROM claims")}

    def subjects(self) -> set[UUID]:
        return {subject for (subject,) in self.ask("SELECT subject_id FROM subject_keys")}


@pytest.fixture
def inside(database_url: str) -> Iterator[Inside]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield Inside(connection)


@dataclass
class Door:
    """Lets connections into the database or ends them and keeps them out, as an outage does."""

    servers: Servers
    database_url: str

    @property
    def database(self) -> str:
        return urlsplit(self.database_url).path.removeprefix("/")

    def end_connections(self) -> int:
        with psycopg.connect(self.servers.database_url, autocommit=True) as connection:
            ended = connection.execute(
                "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = %s",
                (self.database,),
            ).fetchone()
        assert ended is not None
        return int(ended[0])

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        self._allow(False)
        self.end_connections()
        yield
        self._allow(True)

    def _allow(self, allowed: bool) -> None:
        with psycopg.connect(self.servers.database_url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {self.database} ALLOW_CONNECTIONS {allowed}".encode())


class Wire:
    """Stands between a log and PostgreSQL; once silent, nothing more comes through on the connections it has."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self._server_folder = parse_qs(urlsplit(database_url).query)["host"][0]
        self._folder = folder
        self._open = asyncio.Event()
        self._ends: list[asyncio.StreamWriter] = []
        self.url = database_url.replace(self._server_folder, str(folder))

    def go_silent(self) -> None:
        """Leaves the connections that are there without a word; new ones are served."""
        self._open.clear()
        self._open = asyncio.Event()
        self._open.set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        self._open.set()
        async with await asyncio.start_unix_server(self._connect, self._folder / POSTGRESQL_SOCKET):
            try:
                yield
            finally:
                for end in self._ends:
                    end.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(f"{self._server_folder}/{POSTGRESQL_SOCKET}")
        self._ends += [writer, far_writer]
        await asyncio.gather(pump(reader, far_writer, self._open), pump(far_reader, writer, self._open))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event) -> None:
    with contextlib.suppress(ConnectionError), contextlib.closing(writer):
        while data := await reader.read(65_536):
            if is_open.is_set():
                writer.write(data)
                await writer.drain()


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def door(servers: Servers, database_url: str) -> Door:
    return Door(servers, database_url)


@dataclass
class Chain:
    """A stream, written event by event as the ledger writes it."""

    log: Log
    aggregate: Aggregate[Any, Any]
    stream: UUID = field(default_factory=uuid4)
    version: int = 0
    last_hash: str = NO_PREVIOUS_HASH
    key: SubjectKey | None = None

    async def add(self, *events: Any) -> Outcome:
        """Appends the events in one command; the first of a person's brings their key along."""
        subjects: tuple[NewSubject, ...] = ()
        if self.version == 0 and self.aggregate.subject is not None:
            self.key, wrapped = self.log.keyring.create(self.stream)
            subjects = (NewSubject(self.stream, wrapped),)
        guards = {self.stream: self.version}
        new = tuple(self._new(event_) for event_ in events)
        return await self.log.append(Append(merchant=MERCHANT_ID, events=new, guards=guards, subjects=subjects))

    def _new(self, event_: Any) -> NewEvent:
        self.version += 1
        at = Occurrence(
            stream=self.stream,
            version=self.version,
            merchant_id=MERCHANT_ID,
            occurred_at=NOON,
            recorded_at=NOON,
            actor=Actor(role=Role.ADMIN, id=MERCHANT_ID),
        )
        topic, stored = encode(event_, at, self.last_hash, self.key, None)
        self.last_hash = hash_of(stored)
        return NewEvent(self.stream, self.version, topic, stored, self.stream if self.key else None)


def programs(log: Log) -> Chain:
    return Chain(log, PROGRAM)


def program_events(count: int) -> list[Any]:
    return [program.ProgramChanged(rules(points_per_euro=number)) for number in range(1, count + 1)]


def pin_events(count: int) -> list[Any]:
    """A staff member of a telling name, and wrong PINs."""
    created = staff_pin.StaffPinCreated(
        role=StaffRole.STAFF, fingerprint="f", pin_hash="h", private=staff_pin.StaffName("Zebulon")
    )
    return [created, *(staff_pin.StaffPinFailed(number) for number in range(1, count))]


# ---- whole or not at all ------------------------------------------------------------------------------------------


@running
async def test_a_command_is_written_with_all_its_parts(database_url: str, inside: Inside) -> None:
    first, second, person = uuid4(), uuid4(), uuid4()
    async with open_log(database_url) as log:
        outcome = await log.append(
            command(first, second, claims=(claim("a"), claim("b")), subjects=(NewSubject(person, b"wrapped"),))
        )
    assert outcome == Written(2)
    assert inside.streams() == [first, second]
    assert inside.keys() == {"a", "b"}
    assert inside.subjects() == {person}


@running
async def test_an_event_keeps_its_place_and_its_bytes(database_url: str, inside: Inside) -> None:
    stream, subject = uuid4(), uuid4()
    stored = bytes(range(256))
    append = Append(merchant=MERCHANT_ID, events=(NewEvent(stream, 1, "told.1", stored, subject),), guards={stream: 0})
    async with open_log(database_url) as log:
        assert await log.append(append) == Written(1)
    rows = inside.ask("SELECT originator_id, originator_version, topic, state, merchant_id, subject_id FROM events")
    assert rows == [(stream, 1, "told.1", stored, MERCHANT_ID, subject)]


@running
async def test_a_guard_that_moved_refuses_its_own_command_only(database_url: str, inside: Inside) -> None:
    read, before, refused, after = uuid4(), uuid4(), uuid4(), uuid4()
    async with open_log(database_url) as log:
        await log.append(command(read))
        outcomes = await append_all(
            log,
            command(before, guards={read: 1}),
            command(refused, guards={read: 0}, claims=(claim("mine"),), subjects=(NewSubject(refused, b"wrapped"),)),
            command(after, guards={read: 1}),
        )
    assert outcomes == [Written(2), Stale(), Written(3)]
    assert inside.transaction_of(before) == inside.transaction_of(after)
    assert inside.streams() == [read, before, after]
    assert inside.keys() == set()
    assert inside.subjects() == set()


@running
async def test_what_builds_upon_another_event_than_the_one_there_is_refused_alone(
    database_url: str, inside: Inside
) -> None:
    replaced, gone, kept, beside = uuid4(), uuid4(), uuid4(), uuid4()
    right, wrong = hashlib.sha256(b"{}").digest(), hashlib.sha256(b"[]").digest()

    def upon(stream: UUID, version: int, previous: bytes, guards: dict[UUID, int]) -> Append:
        following = event(stream, version)._replace(previous=previous)
        return Append(merchant=MERCHANT_ID, events=(following, event(stream, version + 1)), guards=guards)

    async with open_log(database_url) as log:
        await log.append(command(replaced, kept))
        outcomes = await append_all(
            log,
            command(beside, guards={replaced: 1}),
            upon(replaced, 2, wrong, {replaced: 1}),
            upon(gone, 2, right, {}),
            upon(kept, 2, right, {kept: 1}),
        )
    assert outcomes == [Written(3), Stale(), Stale(), Written(5)]
    assert inside.streams() == [replaced, kept, beside, kept, kept]


@running
async def test_a_stream_that_is_only_read_need_not_exist(database_url: str) -> None:
    async with open_log(database_url) as log:
        assert await log.append(command(uuid4(), guards={uuid4(): 0})) == Written(1)


@running
async def test_a_version_is_written_once(database_url: str, inside: Inside) -> None:
    stream = uuid4()
    async with open_log(database_url) as one, open_log(database_url) as two:
        outcomes = await asyncio.gather(one.append(command(stream)), two.append(command(stream)))
    assert sorted(outcomes, key=str) == [Stale(), Written(1)]
    assert inside.streams() == [stream]


@running
async def test_a_taken_claim_writes_nothing_else(database_url: str, inside: Inside) -> None:
    holder, refused, other = uuid4(), uuid4(), uuid4()
    theirs, mine = claim("theirs", b"who took it"), claim("theirs", b"me")
    async with open_log(database_url) as log:
        await log.append(command(holder, claims=(theirs, claim("to release"))))
        outcomes = await append_all(
            log,
            command(
                refused,
                claims=(claim("free"), mine),
                releases=(claim("to release"),),
                subjects=(NewSubject(refused, b"wrapped"),),
            ),
            command(other),
        )
        assert outcomes == [Taken(mine), Written(2)]
        assert await log.claim(MERCHANT_ID, "kind", "theirs") == b"who took it"
    assert inside.transaction_of(other) != inside.transaction_of(holder)
    assert inside.streams() == [holder, other]
    assert inside.keys() == {"theirs", "to release"}
    assert inside.subjects() == set()


@running
async def test_a_claim_is_one_merchants_and_one_kinds(database_url: str) -> None:
    async with open_log(database_url) as log:
        await log.append(command(claims=(claim("key"),)))
        others = command(claims=(claim("key", kind="other"), claim("key", merchant=uuid4())))
        assert await log.append(others) == Written(None)
        assert await log.append(command(claims=(claim("key"),))) == Taken(claim("key"))


@running
async def test_two_who_claim_the_same_at_once_are_told_apart(database_url: str, inside: Inside) -> None:
    streams = [uuid4() for _ in range(6)]
    async with open_log(database_url) as one, open_log(database_url) as two:
        outcomes = await asyncio.gather(
            *(
                log.append(command(stream, claims=(claim("key", stream.bytes),)))
                for log, stream in zip([one, two] * 3, streams, strict=True)
            )
        )
        winners = [stream for stream, outcome in zip(streams, outcomes, strict=True) if isinstance(outcome, Written)]
        assert [type(outcome) for outcome in outcomes].count(Taken) == 5
        assert await one.claim(MERCHANT_ID, "kind", "key") == winners[0].bytes
    assert inside.streams() == winners


@running
async def test_what_was_released_is_free_for_others(database_url: str) -> None:
    async with open_log(database_url) as log:
        await log.append(command(claims=(claim("old"),)))
        assert await log.append(command(claims=(claim("new"),), releases=(claim("old"),))) == Written(None)
        assert await log.claims(MERCHANT_ID, "kind", ["old", "new"]) == {"new": b""}
        assert await log.append(command(claims=(claim("old", b"again"),))) == Written(None)
        assert await log.claim(MERCHANT_ID, "kind", "old") == b"again"


@running
async def test_what_is_released_and_claimed_at_once_goes_in_order(database_url: str) -> None:
    async with open_log(database_url) as log:
        await log.append(command(claims=(claim("key", b"first"),)))
        outcomes = await append_all(
            log,
            command(releases=(claim("key"),), claims=(claim("another"),)),
            command(claims=(claim("key", b"second"),)),
        )
        assert outcomes == [Written(None), Written(None)]
        assert await log.claim(MERCHANT_ID, "kind", "key") == b"second"


@running
async def test_a_persons_key_is_found_again_by_others(database_url: str) -> None:
    person = uuid4()
    async with open_log(database_url) as one, open_log(database_url) as two:
        key, wrapped = one.keyring.create(person)
        sealed = key.seal(b"secret", b"place")
        await one.append(command(subjects=(NewSubject(person, wrapped),), claims=(claim("key"),)))
        for log in (one, two):
            found = await log.subject_key(person)
            assert found is not None
            assert found.open(sealed, b"place") == b"secret"
        assert await two.subject_key(uuid4()) is None


# ---- order --------------------------------------------------------------------------------------------------------


@running
async def test_positions_are_dense_and_in_order_of_arrival(database_url: str, inside: Inside) -> None:
    streams = [uuid4() for _ in range(BATCH_MAX + 50)]
    moved = uuid4()
    async with open_log(database_url) as log:
        await log.append(command(moved))
        appends = [command(stream, guards={moved: number % 2}) for number, stream in enumerate(streams)]
        outcomes = await append_all(log, *appends)
        assert await log.head() == 1 + len(streams) // 2
    assert outcomes[::2] == [Stale()] * (len(streams) // 2)
    assert outcomes[1::2] == [Written(position) for position in range(2, 2 + len(streams) // 2)]
    assert inside.streams() == [moved, *streams[1::2]]


@running
async def test_the_answered_position_is_that_of_the_last_event(database_url: str) -> None:
    stream = uuid4()
    async with open_log(database_url) as log:
        assert await log.head() == 0
        assert await log.append(command(uuid4(), uuid4(), stream)) == Written(3)
        assert await log.position_of(stream, 1) == await log.head() == 3


def queued(*appends: Append) -> deque[Pending]:
    """Commands in a queue; must be called within a running loop."""
    loop = asyncio.get_running_loop()
    return deque(Pending(append, loop.create_future()) for append in appends)


def batches(*appends: Append) -> list[list[int]]:
    """How the queue is taken: the numbers of the commands in each batch."""
    queue = queued(*appends)
    numbers = {id(pending): number for number, pending in enumerate(queue)}
    taken = []
    while queue:
        taken.append([numbers[id(pending)] for pending in independent(queue)])
    return taken


@running
async def test_what_depends_on_each_other_is_not_written_together() -> None:
    stream, other = uuid4(), uuid4()
    independent_ones = [command(uuid4()), command(uuid4(), claims=(claim("a"),)), command(claims=(claim("b"),))]
    assert batches(*independent_ones) == [[0, 1, 2]]
    assert batches(command(stream), command(stream, guards={stream: 1}), command(other)) == [[0, 2], [1]]
    assert batches(command(stream), command(other, guards={stream: 0})) == [[0], [1]]
    assert batches(command(other, guards={stream: 0}), command(stream)) == [[0, 1]]
    assert batches(command(claims=(claim("a"),)), command(claims=(claim("a"),))) == [[0], [1]]
    assert batches(command(releases=(claim("a"),)), command(claims=(claim("a"),))) == [[0], [1]]
    assert batches(command(claims=(claim("a"),)), command(releases=(claim("a"),))) == [[0], [1]]


@running
async def test_a_command_that_waits_is_not_overtaken_by_one_that_depends_on_it() -> None:
    stream, other = uuid4(), uuid4()
    waits = command(stream, other, guards={stream: 1})
    assert batches(command(stream), waits, command(other, guards={other: 1})) == [[0], [1], [2]]
    waits = command(stream, guards={stream: 1}, claims=(claim("a"),))
    assert batches(command(stream), waits, command(claims=(claim("a"),))) == [[0], [1], [2]]


@running
async def test_a_batch_is_bounded_and_what_is_left_stays_in_order() -> None:
    sizes = [len(batch) for batch in batches(*(command(uuid4()) for _ in range(2 * BATCH_MAX + 1)))]
    assert sizes == [BATCH_MAX, BATCH_MAX, 1]
    stream = uuid4()
    versions = [command(stream, guards={stream: version}) for version in range(5)]
    assert batches(*versions) == [[0], [1], [2], [3], [4]]


@running
async def test_a_command_behind_the_one_it_rests_on_is_checked_after_it(database_url: str, inside: Inside) -> None:
    stream, wrong, right = uuid4(), uuid4(), uuid4()
    async with open_log(database_url) as log:
        outcomes = await append_all(
            log, command(stream), command(wrong, guards={stream: 0}), command(right, guards={stream: 1})
        )
    assert outcomes == [Written(1), Stale(), Written(2)]
    assert inside.streams() == [stream, right]


# ---- what goes wrong ----------------------------------------------------------------------------------------------


def poisoned(key: str) -> Append:
    return command(uuid4(), claims=(claim(key), claim("never")))


@pytest.mark.parametrize(
    "poison",
    [
        pytest.param(poisoned("nul\0byte"), id="NUL in a key"),
        pytest.param(poisoned("lone \ud800 surrogate"), id="no UTF-8 in a key"),
        pytest.param(Append(merchant=MERCHANT_ID, events=(event(uuid4(), 2**63),)), id="version too large"),
    ],
)
@running
async def test_a_poisoned_command_fails_alone(database_url: str, inside: Inside, poison: Append) -> None:
    before, after = uuid4(), uuid4()
    async with open_log(database_url) as log:
        async with asyncio.timeout(10):
            outcomes = await try_all(log.append(command(before)), log.append(poison), log.append(command(after)))
        assert await log.append(command(uuid4())) == Written(3)
    assert isinstance(outcomes.pop(1), Exception)
    assert outcomes == [Written(1), Written(2)]
    assert inside.streams()[:2] == [before, after]
    assert inside.keys() == set()


@pytest.mark.slow
@running
async def test_who_was_batched_with_a_poisoned_command_is_told_when_the_log_is_busy(
    database_url: str, inside: Inside
) -> None:
    async with open_log(database_url) as log:
        await log.append(command(uuid4()))
        with inside.connection.transaction():
            inside.change("SELECT pg_advisory_xact_lock(%s)", APPENDER_LOCK)
            _, outcome = await try_all(log.append(poisoned("nul\0byte")), log.append(command(uuid4())))
    assert isinstance(outcome, Unavailable)


async def until_waiting(inside: Inside) -> None:
    """Returns once an appender waits for the lock."""
    query = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    while not inside.ask(query):
        await asyncio.sleep(0)


@running
async def test_who_stops_waiting_in_the_queue_is_not_written(database_url: str, inside: Inside) -> None:
    writing, cancelled, other = uuid4(), uuid4(), uuid4()
    async with open_log(database_url) as log:
        await log.append(command(uuid4()))
        with inside.connection.transaction():
            inside.change("SELECT pg_advisory_xact_lock(%s)", APPENDER_LOCK)
            first = asyncio.create_task(log.append(command(writing)))
            await until_waiting(inside)
            second = asyncio.create_task(log.append(command(cancelled)))
            third = asyncio.create_task(log.append(command(other)))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
        assert [await first, await third] == [Written(2), Written(3)]
    assert inside.streams()[1:] == [writing, other]


@running
async def test_who_stops_waiting_too_late_is_written_whole_and_spoils_nothing(
    database_url: str, inside: Inside
) -> None:
    first, second, other = uuid4(), uuid4(), uuid4()
    async with open_log(database_url) as log:
        await log.append(command(uuid4()))
        with inside.connection.transaction():
            inside.change("SELECT pg_advisory_xact_lock(%s)", APPENDER_LOCK)
            both = [asyncio.create_task(log.append(append)) for append in (command(first, second), command(other))]
            await until_waiting(inside)
            both[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await both[0]
        assert await both[1] == Written(4)
    assert inside.streams()[1:] == [first, second, other]


@pytest.mark.slow
@running
async def test_a_log_that_does_not_answer_is_unavailable_and_back_when_it_does(
    database_url: str, inside: Inside
) -> None:
    async with open_log(database_url) as log:
        await log.append(command(uuid4()))
        with inside.connection.transaction():
            inside.change("SELECT pg_advisory_xact_lock(%s)", APPENDER_LOCK)
            with pytest.raises(Unavailable):
                await log.append(command(uuid4()))
        assert await log.append(command(uuid4())) == Written(2)


@running
async def test_a_lost_connection_is_unavailable_and_the_next_command_is_written(database_url: str, door: Door) -> None:
    stream = uuid4()
    async with open_log(database_url) as log:
        await log.append(command(stream))
        assert door.end_connections() > 0
        outcomes = await try_all(*(log.append(command(uuid4())) for _ in range(3)))
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        assert await log.append(command(uuid4())) == Written(2)


@running
async def test_reading_goes_on_although_every_idle_connection_was_lost(database_url: str, door: Door) -> None:
    async with open_log(database_url) as log:
        await log.append(command(uuid4()))
        await asyncio.gather(*(log.head() for _ in range(30)))
        assert door.end_connections() > 3
        assert await log.head() == 1


@pytest.mark.slow
@running
async def test_without_postgresql_all_is_unavailable_and_with_it_all_goes_on(database_url: str, door: Door) -> None:
    stream = uuid4()
    async with open_log(database_url) as log:
        await log.append(command(stream))
        with door.outage():
            outcomes = await try_all(
                log.append(command(uuid4())),
                log.load(PROGRAM, stream),
                log.claim(MERCHANT_ID, "kind", "key"),
                log.is_current({stream: 1}),
            )
        assert [type(outcome) for outcome in outcomes] == [Unavailable] * 4
        assert await log.append(command(uuid4())) == Written(2)
        async with asyncio.timeout(5):
            assert await available(log.head) == 2


@pytest.mark.slow
@running
async def test_writing_goes_on_although_the_connection_went_silent(database_url: str, socket_folder: Path) -> None:
    wire = Wire(database_url, socket_folder)
    async with open_log(wire.url) as log, wire.serving():
        assert await log.append(command(uuid4())) == Written(1)
        wire.go_silent()
        async with asyncio.timeout(15):
            outcomes = await try_all(log.append(command(uuid4())), log.append(command(uuid4())))
            assert [type(outcome) for outcome in outcomes] == [Unavailable] * 2
            assert isinstance(await available(lambda: log.append(command(uuid4()))), Written)


@pytest.mark.slow
@running
async def test_reading_goes_on_although_the_connection_went_silent(database_url: str, socket_folder: Path) -> None:
    wire = Wire(database_url, socket_folder)
    async with open_log(wire.url) as log, wire.serving():
        assert await log.head() == 0
        wire.go_silent()
        async with asyncio.timeout(15):
            assert await available(log.head) == 0


@running
async def test_a_log_opens_before_its_database_is_there(database_url: str, door: Door) -> None:
    with door.outage():
        async with open_log(database_url) as log:
            with pytest.raises(Unavailable):
                await log.append(command(uuid4()))


# ---- loading ------------------------------------------------------------------------------------------------------


@running
async def test_what_was_loaded_is_remembered_until_it_is_asked_for_fresh(database_url: str) -> None:
    async with open_log(database_url) as one, open_log(database_url) as two:
        chain = programs(one)
        await chain.add(*program_events(2))
        first = await two.load(PROGRAM, chain.stream)
        assert first is not None
        assert (first.version, first.position, first.last_hash) == (2, 2, chain.last_hash)
        await chain.add(program.ProgramChanged(rules(points_per_euro=77)))
        assert await two.load(PROGRAM, chain.stream) is first
        newer = await two.load(PROGRAM, chain.stream, fresh=True)
        assert newer is not None
        assert (newer.version, newer.position, newer.state.rules.points_per_euro) == (3, 3, 77)
        assert newer.last_hash == chain.last_hash
        assert await two.load(PROGRAM, chain.stream) is newer


@running
async def test_what_is_forgotten_is_read_anew(database_url: str) -> None:
    async with open_log(database_url) as one, open_log(database_url) as two:
        chain = programs(one)
        await chain.add(*program_events(1))
        await two.load(PROGRAM, chain.stream)
        await chain.add(*program_events(1))
        two.forget([chain.stream, uuid4()])
        loaded = await two.load(PROGRAM, chain.stream)
        assert loaded is not None
        assert loaded.version == 2


@running
async def test_an_older_state_does_not_displace_a_newer_one(database_url: str) -> None:
    async with open_log(database_url) as log:
        chain = programs(log)
        await chain.add(*program_events(1))
        older = await log.load(PROGRAM, chain.stream)
        await chain.add(*program_events(1))
        newer = await log.load(PROGRAM, chain.stream, fresh=True)
        assert older is not None
        log.remember(older)
        assert await log.load(PROGRAM, chain.stream) is newer


@running
async def test_a_stream_that_is_not_there_is_none_and_not_remembered_so(database_url: str) -> None:
    async with open_log(database_url) as log:
        chain = programs(log)
        assert await log.load(PROGRAM, chain.stream) is None
        await chain.add(*program_events(1))
        assert await log.load(PROGRAM, chain.stream) is not None


@running
async def test_history_is_every_event_with_its_position_newest_first(database_url: str) -> None:
    async with open_log(database_url) as log:
        chain = programs(log)
        await chain.add(program_events(1)[0])
        await log.append(command(uuid4()))
        await chain.add(program.ProgramChanged(rules(points_per_euro=5)))
        history = await log.history([chain.stream], POSITION_MAX, EVENTS_MAX)
    assert [(position, read.at.version) for position, read in history] == [(3, 2), (1, 1)]
    assert history[0][1].previous_hash == history[1][1].hash
    assert history[0][1].event.rules.points_per_euro == 5


@running
async def test_a_page_of_history_is_read_and_nothing_beside_it(database_url: str) -> None:
    async with open_log(database_url) as log:
        chain = programs(log)
        for event in program_events(9):
            await chain.add(event)
        seen, before = [], POSITION_MAX
        while page := await log.history([chain.stream], before, 4):
            assert len(page) <= 4
            seen += [read.at.version for _, read in page]
            before = page[-1][0]
    assert seen == list(range(9, 0, -1))


@running
async def test_first_events_are_paged_both_ways(database_url: str) -> None:
    streams = [uuid4() for _ in range(5)]
    async with open_log(database_url) as log:
        for stream in streams:
            await log.append(command(stream))
            await log.append(command(stream, guards={stream: 1}))
        pages = [await log.first_events(MERCHANT_ID, "told.1", after, 2) for after in (0, 3, 7)]
        assert [stream for page in pages for _, stream in page] == streams
        assert pages[1] == [(5, streams[2]), (7, streams[3])]
        backwards = await log.first_events(MERCHANT_ID, "told.1", 7, 2, newest_first=True)
        assert backwards == [(5, streams[2]), (3, streams[1])]
        assert await log.first_events(uuid4(), "told.1", 0, 9) == []
        assert await log.first_events(MERCHANT_ID, "other.1", 0, 9) == []


@running
async def test_current_is_what_has_no_later_version(database_url: str) -> None:
    stream, other = uuid4(), uuid4()
    async with open_log(database_url) as log:
        await log.append(command(stream))
        assert await log.is_current({})
        assert await log.is_current({stream: 1, other: 0})
        assert not await log.is_current({stream: 0})
        assert not await log.is_current({other: 0, stream: 0})
        await log.append(command(other))
        assert not await log.is_current({stream: 1, other: 0})


@running
async def test_a_claim_may_be_answered_from_memory_only_where_that_is_asked_for(database_url: str) -> None:
    async with open_log(database_url) as one, open_log(database_url) as two:
        assert await one.claim(MERCHANT_ID, "kind", "key", remembered=True) is None
        await two.append(command(claims=(claim("key", b"first"),)))
        assert await one.claim(MERCHANT_ID, "kind", "key", remembered=True) == b"first"
        await two.append(command(releases=(claim("key"),), claims=(claim("other"),)))
        await two.append(command(claims=(claim("key", b"second"),)))
        assert await one.claim(MERCHANT_ID, "kind", "key", remembered=True) == b"first"
        assert await one.claim(MERCHANT_ID, "kind", "key") == b"second"


# ---- snapshots ----------------------------------------------------------------------------------------------------


async def grow(log: Log, chain: Chain, events: Sequence[Any]) -> None:
    """Writes the events and loads the stream, so that a long one is snapshot when the log is closed."""
    await chain.add(*events)
    assert await log.load(chain.aggregate, chain.stream, fresh=True) is not None


@running
async def test_a_snapshot_is_kept_of_a_long_stream_only(database_url: str, inside: Inside) -> None:
    async with open_log(database_url) as log:
        short, long = programs(log), programs(log)
        await grow(log, short, program_events(SNAPSHOT_EVERY_EVENTS - 1))
        await grow(log, long, program_events(SNAPSHOT_EVERY_EVENTS))
    snapshots = inside.ask("SELECT stream_id, merchant_id, subject_id, version, fold FROM snapshots")
    assert snapshots == [(long.stream, MERCHANT_ID, None, SNAPSHOT_EVERY_EVENTS, PROGRAM.fold)]


@running
async def test_a_snapshot_is_kept_every_so_many_events(database_url: str, inside: Inside) -> None:
    async with open_log(database_url) as log:
        chain = programs(log)
        await grow(log, chain, program_events(SNAPSHOT_EVERY_EVENTS + 5))
    async with open_log(database_url) as log:
        chain.log = log
        await grow(log, chain, program_events(SNAPSHOT_EVERY_EVENTS - 1))
    assert inside.ask("SELECT version FROM snapshots") == [(SNAPSHOT_EVERY_EVENTS + 5,)]
    async with open_log(database_url) as log:
        chain.log = log
        await grow(log, chain, program_events(1))
    assert inside.ask("SELECT version FROM snapshots") == [(2 * SNAPSHOT_EVERY_EVENTS + 5,)]


@running
async def test_a_long_stream_is_loaded_from_its_snapshot_and_what_came_after(database_url: str, inside: Inside) -> None:
    async with open_log(database_url) as log:
        chain = programs(log)
        await grow(log, chain, program_events(SNAPSHOT_EVERY_EVENTS))
        await chain.add(program.ProgramChanged(rules(points_per_euro=999)))
        in_full = await log.load(PROGRAM, chain.stream, fresh=True)
    inside.change("DELETE FROM events WHERE originator_version <= %s", SNAPSHOT_EVERY_EVENTS)
    async with open_log(database_url) as log:
        loaded = await log.load(PROGRAM, chain.stream)
    assert loaded is not None
    assert in_full is not None
    assert msgspec.structs.replace(loaded, snapshot_version=0) == msgspec.structs.replace(in_full, snapshot_version=0)
    assert loaded.snapshot_version == SNAPSHOT_EVERY_EVENTS


@running
async def test_a_stream_goes_on_from_its_snapshot_alone(database_url: str, inside: Inside) -> None:
    async with open_log(database_url) as log:
        chain = programs(log)
        await grow(log, chain, program_events(SNAPSHOT_EVERY_EVENTS))
        in_full = await log.load(PROGRAM, chain.stream)
    inside.change("DELETE FROM events")
    async with open_log(database_url) as log:
        assert await log.load(PROGRAM, chain.stream) == in_full
    assert in_full is not None
    assert (in_full.position, in_full.last_hash) == (SNAPSHOT_EVERY_EVENTS, chain.last_hash)


@running
async def test_a_snapshot_of_other_code_is_ignored_and_replaced(database_url: str, inside: Inside) -> None:
    async with open_log(database_url) as log:
        chain = programs(log)
        await grow(log, chain, program_events(SNAPSHOT_EVERY_EVENTS))
        expected = await log.load(PROGRAM, chain.stream)
    inside.change("UPDATE snapshots SET fold = 'another', version = 1000, state = 'what this code cannot read'")
    async with open_log(database_url) as log:
        await log.load(PROGRAM, chain.stream)
        assert await log.load(PROGRAM, chain.stream) == expected
    assert inside.ask("SELECT version, fold FROM snapshots") == [(SNAPSHOT_EVERY_EVENTS, PROGRAM.fold)]


@running
async def test_a_snapshot_never_goes_back(database_url: str, inside: Inside) -> None:
    async with open_log(database_url) as log:
        chain = programs(log)
        await grow(log, chain, program_events(SNAPSHOT_EVERY_EVENTS))
        older = await log.load(PROGRAM, chain.stream)
    assert older is not None
    inside.change("UPDATE snapshots SET version = 1000")
    async with open_log(database_url) as log:
        log.remember(msgspec.structs.replace(older, snapshot_version=0))
    assert inside.ask("SELECT version FROM snapshots") == [(1000,)]


@running
async def test_a_personal_snapshot_is_sealed(database_url: str, inside: Inside) -> None:
    async with open_log(database_url) as log:
        chain = Chain(log, STAFF_PIN)
        await grow(log, chain, pin_events(SNAPSHOT_EVERY_EVENTS))
        in_full = await log.load(STAFF_PIN, chain.stream)
    ((subject, state),) = inside.ask("SELECT subject_id, state FROM snapshots")
    assert subject == chain.stream
    assert b"Zebulon" not in state
    inside.change("DELETE FROM events")
    async with open_log(database_url) as log:
        loaded = await log.load(STAFF_PIN, chain.stream)
    assert loaded is not None
    assert loaded == in_full
    assert (loaded.state.name, loaded.state.attempts.failed) == ("Zebulon", SNAPSHOT_EVERY_EVENTS - 1)


@running
async def test_without_the_persons_key_a_snapshot_is_of_no_use_and_the_events_are(
    database_url: str, inside: Inside
) -> None:
    async with open_log(database_url) as log:
        chain = Chain(log, STAFF_PIN)
        await grow(log, chain, pin_events(SNAPSHOT_EVERY_EVENTS))
    inside.change("DELETE FROM subject_keys")
    before = inside.ask("SELECT state FROM snapshots")
    async with open_log(database_url) as log:
        loaded = await log.load(STAFF_PIN, chain.stream)
    assert loaded is not None
    assert (loaded.state.name, loaded.state.attempts.failed) == ("", SNAPSHOT_EVERY_EVENTS - 1)
    assert (loaded.version, loaded.last_hash) == (SNAPSHOT_EVERY_EVENTS, chain.last_hash)
    assert inside.ask("SELECT state FROM snapshots") == before


# ---- through the door ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("servers_at_once", [1, 2])
@running
async def test_of_two_who_open_an_account_at_once_one_does_and_all_can_read_it(
    database_url: str, servers_at_once: int
) -> None:
    async with open_ledger(database_url) as one, open_ledger(database_url) as two:
        shop = await open_shop(one, one.clock)
        opening = OpenAccount(email="vera@example.org", password="correct horse", role=Role.MANAGER)
        ledgers = (one, two if servers_at_once == 2 else one)
        outcomes = await try_all(*(ledger.handle(opening, shop.merchant) for ledger in ledgers))
        (refusal,) = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        assert isinstance(refusal, Rejected)
        assert refusal.code == "email_taken"
        (opened,) = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert opened.result is not None
        for ledger in (one, two):
            account = await ledger.log.load(ACCOUNT, opened.result.main.stream, fresh=True)
            assert account is not None
            assert account.state.email == "vera@example.org"


@running
async def test_a_claim_that_the_same_change_took_elsewhere_does_not_refuse_it(database_url: str) -> None:
    async with open_ledger(database_url) as one, open_ledger(database_url) as two:
        shop = await open_shop(one, one.clock)
        assert await two.log.load(STAFF_PIN, shop.staff_id) is not None
        change = ChangePin(staff_id=shop.staff_id, pin="5678")
        await one.handle(change, shop.merchant)
        again = await two.handle(change, shop.merchant)
        assert again.result is not None
        assert again.result.events == ()
