"""The library's recorder, with whole batches handed to one SQL function (`migrations/0003_append.sql`)."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from eventsourcing.persistence import IntegrityError, StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg.conninfo import conninfo_to_dict

from ledger.actor import PLATFORM

APPEND = (
    "SELECT base, stale, taken FROM ledger_append("
    "%b::int[], %b::uuid[], %b::bigint[], %b::text[], %b::bytea[], %b::uuid[], %b::uuid[],"
    "%b::uuid[], %b::bigint[], %b::bytea[], %b::int[], %b::int[],"
    "%b::int[], %b::uuid[], %b::text[], %b::text[], %b::bytea[],"
    "%b::int[], %b::uuid[], %b::text[], %b::text[],"
    "%b::int[], %b::uuid[], %b::uuid[], %b::bytea[])"
)


class NewEvent(NamedTuple):
    """An event as it is to be stored; `previous` is the SHA-256 of the stored event that it is built upon."""

    stream: UUID
    version: int
    topic: str
    state: bytes
    subject: UUID | None = None
    previous: bytes | None = None


class Claim(NamedTuple):
    """Something that can be taken once in a merchant; `value` tells later comers what took it."""

    merchant: UUID
    kind: str
    key: str
    value: bytes = b""


class NewSubject(NamedTuple):
    """A person's key, wrapped."""

    subject: UUID
    wrapped: bytes


class Append(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What one command writes, whole or not at all.

    `guards` holds every stream that was read, those written to included, with the version it was read at: a later
    version of any of them refuses the command.
    """

    merchant: UUID
    events: tuple[NewEvent, ...] = ()
    guards: dict[UUID, int] = {}
    claims: tuple[Claim, ...] = ()
    releases: tuple[Claim, ...] = ()
    subjects: tuple[NewSubject, ...] = ()


class Written(NamedTuple):
    """The command is in the log for good; `position` is its last event's, None where it had no events."""

    position: int | None


class Stale(NamedTuple):
    """A guard moved: decide again."""


class Taken(NamedTuple):
    """Somebody has that claim."""

    claim: Claim


Outcome = Written | Stale | Taken
Guard = tuple[UUID, int, bytes | None]


def guards_of(append: Append) -> list[Guard]:
    """The stream ends that a command rests on, with the hash of the event there where it builds upon it."""
    upon = {(event.stream, event.version - 1): event.previous for event in append.events if event.previous is not None}
    read = [(stream, version, upon.pop((stream, version), None)) for stream, version in append.guards.items()]
    return read + [(stream, version, previous) for (stream, version), previous in upon.items()]


def pack(batch: Sequence[Append]) -> list[list[Any]]:
    """The parameters of `APPEND` for a batch."""
    guards: dict[Guard, int] = {}
    numbered = list(enumerate(batch))
    events = [(n, e.stream, e.version, e.topic, e.state, a.merchant, e.subject) for n, a in numbered for e in a.events]
    guarded = [(n, guards.setdefault(guard, len(guards) + 1)) for n, a in numbered for guard in guards_of(a)]
    claims = [(n, *claim) for n, a in numbered for claim in a.claims]
    releases = [(n, claim.merchant, claim.kind, claim.key) for n, a in numbered for claim in a.releases]
    subjects = [(n, new.subject, a.merchant, new.wrapped) for n, a in numbered for new in a.subjects]
    return [
        *columns(events, 7),
        *columns(list(guards), 3),
        *columns(guarded, 2),
        *columns(claims, 5),
        *columns(releases, 4),
        *columns(subjects, 4),
    ]


def columns(rows: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """Rows turned into columns; no rows are that many empty columns."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(count)]


def outcomes(batch: Sequence[Append], base: int, stale: list[int] | None, taken: list[int] | None) -> list[Outcome]:
    """What became of each command, from the function's answer: positions run on from `base` without gaps."""
    claims = [(command, claim) for command, append in enumerate(batch) for claim in append.claims]
    taken_by_command: dict[int, Claim] = {}
    for ordinal in taken or ():
        command, claim = claims[ordinal - 1]
        taken_by_command.setdefault(command, claim)
    stale_commands = set(stale or ())
    result: list[Outcome] = []
    position = base
    for command, append in enumerate(batch):
        if command in stale_commands:
            result.append(Stale())
        elif command in taken_by_command:
            result.append(Taken(taken_by_command[command]))
        else:
            position += len(append.events)
            result.append(Written(position if append.events else None))
    return result


class LedgerRecorder(PostgresApplicationRecorder):
    """The library's application recorder over the ledger's log.

    Reading, notifications and subscriptions are the library's own; tables are made by the migrations.
    """

    def __init__(self, datastore: PostgresDatastore, *, events_table_name: str = "events") -> None:
        super().__init__(datastore, events_table_name=events_table_name)

    def create_table(self) -> None:
        """Does nothing: migrations make the tables."""

    def append(self, batch: Sequence[Append]) -> list[Outcome]:
        """Writes a batch of commands that are independent of each other, in one transaction."""
        with self.datastore.get_connection() as connection, connection.cursor() as cursor:
            row = cursor.execute(APPEND, pack(batch), prepare=True).fetchone()
            assert row is not None, "the function always answers with one row"
            return outcomes(batch, row["base"], row["stale"], row["taken"])

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """The library's way in: all events or an IntegrityError. `merchant_id` says whose they are."""
        if not stored_events:
            return []
        guards: dict[UUID, int] = {}
        events = []
        for event in stored_events:
            stream = event.originator_id
            assert isinstance(stream, UUID), "streams of the ledger are named by UUIDs"
            guards.setdefault(stream, event.originator_version - 1)
            events.append(NewEvent(stream, event.originator_version, event.topic, event.state))
        append = Append(merchant=kwargs.get("merchant_id", PLATFORM), events=tuple(events), guards=guards)
        (outcome,) = self.append([append])
        if not isinstance(outcome, Written) or outcome.position is None:
            raise IntegrityError("a stream already has a later version")
        return list(range(outcome.position - len(events) + 1, outcome.position + 1))


def datastore(database_url: str, pool_size: int = 2) -> PostgresDatastore:
    """The library's datastore for a connection string, with every parameter that the string names."""
    parameters = {key: str(value) for key, value in conninfo_to_dict(database_url).items() if value is not None}
    store = PostgresDatastore(
        dbname=parameters.get("dbname", "postgres"),
        host=parameters.get("host", ""),
        port=parameters.get("port", "5432"),
        user=parameters.get("user", "postgres"),
        password=parameters.get("password", ""),
        pool_size=pool_size,
        max_overflow=16,
    )
    assert isinstance(store.pool.kwargs, dict), "the library passes its pool keyword arguments"
    store.pool.kwargs.update(parameters)
    return store
