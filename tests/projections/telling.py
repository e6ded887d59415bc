"""Read models under test: feeds and rebuilds on a database of the test's own, and what stands in the tables then."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg

from api.parts import keyring_from
from ledger.actor import PLATFORM
from ledger.settings import Settings
from ledger.store.keys import key_from_text
from ledger.store.log import Log
from ledger.store.recorder import Append, NewEvent, Written
from loyalty.cli import environment_of
from projections.feed import LEADER, Feed
from projections.models import MODELS
from projections.read_model import ReadModel
from projections.reading import CHECKPOINTS, Reader
from projections.rebuild import Comparison, Watcher, rebuild
from tests.served import SECRETS
from tests.shop import SettableClock, Shop, ledger_on, open_shop

ROOT = Path(__file__).parents[2]
KEYRING = keyring_from(Settings(**SECRETS))
HEAD = "SELECT coalesce(max(notification_id), 0) FROM events"
LEADING = """
    SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32) + objid::bigint = %s
        AND datname = current_database()
"""
TABLES = (
    "SELECT table_name::text FROM information_schema.tables WHERE table_schema = %s AND table_name <> 'checkpoints'"
)
LISTENING = """
    SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' AND query = %s
"""
WAIT_SECONDS = 0.02

Rows = dict[str, list[str]]


class Tables:
    """The read models' tables, seen and changed from beside."""

    def __init__(self, database_url: str) -> None:
        self.connection = psycopg.connect(database_url, autocommit=True)

    def ask(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        return self.connection.execute(query.encode(), parameters).fetchall()

    def change(self, query: str, *parameters: Any) -> int:
        """Changes rows past everything, and tells how many."""
        return self.connection.execute(query.encode(), parameters).rowcount

    def head(self) -> int:
        """How far the log is."""
        return int(self.ask(HEAD)[0][0])

    def positions(self) -> dict[str, int]:
        """How far each model is that has tables."""
        return dict(self.ask("SELECT model, position FROM projections.checkpoints"))

    def identities(self) -> dict[str, str]:
        """Of which shape each model's tables are."""
        return dict(self.ask("SELECT model, identity FROM projections.checkpoints"))

    def built(self) -> list[str]:
        """The tables that are being built."""
        return sorted(name for (name,) in self.ask(TABLES, "rebuilding"))

    def rows(self, *models: ReadModel) -> Rows:
        """All rows of models that are read, as text, in order; of all models where none is named."""
        tables = [table for model in models or MODELS for table in model.tables]
        query = "SELECT t::text FROM projections.{} t"
        return {table: sorted(row for (row,) in self.ask(query.format(table))) for table in tables}

    def leader(self) -> str | None:
        """The name of the process that leads."""
        found = self.ask(LEADING, LEADER)
        return found[0][0] if found else None


@asynccontextmanager
async def shop_on(database_url: str, **rules: Any) -> AsyncIterator[Shop]:
    """A shop whose people's keys are those that the `loyalty` commands of a test know."""
    clock = SettableClock()
    ledger = ledger_on(database_url, clock, master_key=key_from_text(SECRETS["master_key"]))
    await ledger.log.open()
    try:
        yield await open_shop(ledger, clock, **rules)
    finally:
        await ledger.log.close()
        ledger.secrecy.close()


@contextmanager
def tables_of(database_url: str) -> Iterator[Tables]:
    """The tables of a database, for as long as a block takes."""
    tables = Tables(database_url)
    try:
        yield tables
    finally:
        tables.connection.close()


@contextmanager
def held(database_url: str, query: str, *parameters: Any) -> Iterator[None]:
    """Keeps what a query locks until the block ends."""
    with psycopg.connect(database_url) as connection:
        connection.execute(query.encode(), parameters)
        yield
        connection.rollback()


@asynccontextmanager
async def feeding(database_url: str, models: Sequence[ReadModel] = MODELS) -> AsyncIterator[None]:
    """A feed, which must not end by itself."""
    feed = asyncio.create_task(Feed(database_url, KEYRING, models).follow())
    try:
        yield
        assert not feed.done(), feed.exception()
    finally:
        feed.cancel()
        await asyncio.wait({feed})


@asynccontextmanager
async def reading(database_url: str) -> AsyncIterator[Reader]:
    """A reader as an API process has it, which hears of changes when the block begins."""
    reader = Reader(database_url)
    await reader.open()
    try:
        with tables_of(database_url) as tables:
            await until(lambda: tables.ask(LISTENING, CHECKPOINTS))
        yield reader
    finally:
        await reader.close()


async def until(condition: Any) -> None:
    """Waits for something that comes about, or for the end of the time that a test has."""
    while not condition():
        await asyncio.sleep(WAIT_SECONDS)


async def caught_up(tables: Tables, models: Sequence[ReadModel] = MODELS) -> None:
    """Waits until models are as far as the log."""
    head = tables.head()
    await until(lambda: all(tables.positions().get(model.name, -1) >= head for model in models))


async def fed(database_url: str, tables: Tables) -> None:
    """Lets a feed bring all models up to the log, and go."""
    async with feeding(database_url):
        await caught_up(tables)


class Seen(Watcher):
    """Notes what a rebuild tells, and does something whenever it has come a bit further."""

    def __init__(self, on_reached: Any = None) -> None:
        self.waited: list[str] = []
        self.went_on: dict[str, int] = {}
        self.positions: list[int] = []
        self._on_reached = on_reached

    def waits(self, name: str, why: str) -> None:
        """Notes for what."""
        self.waited.append(f"{name}: {why}")

    def goes_on(self, name: str, position: int) -> None:
        """Notes from where."""
        self.went_on[name] = position

    def reached(self, position: int, head: int) -> None:
        """Notes how far."""
        assert position <= head
        self.positions.append(position)
        if self._on_reached is not None:
            self._on_reached(self)


async def compared(database_url: str, models: Sequence[ReadModel] = MODELS) -> dict[str, Comparison | None]:
    """What telling the log anew finds, with nothing taken over."""
    return await rebuild(database_url, KEYRING, models, takes_over=False)


def agreed(found: dict[str, Comparison | None]) -> bool:
    """Whether there was something to compare of every model, and no row differs."""
    return all(each is not None and each.differing == 0 for each in found.values())


async def write_unknown(log: Log) -> int:
    """An event as a later release writes it, and its position."""
    event = NewEvent(uuid4(), 1, "told_tomorrow.1", b'{"recorded_at": "2026-03-02T11:00:00Z"}')
    outcome = await log.append(Append(merchant=PLATFORM, events=(event,), guards={event.stream: 0}))
    assert isinstance(outcome, Written)
    assert outcome.position is not None
    return outcome.position


# ---- processes ----------------------------------------------------------------------------------------------------


def environment(database_url: str, name: str = "loyalty") -> dict[str, str]:
    """What makes a `loyalty` command work on a database, under a name that the database knows it by."""
    settings = Settings(database_url=database_url, **SECRETS)
    return environment_of(settings) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PGAPPNAME": name}


@contextmanager
def projecting(database_url: str, name: str, said: Any = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    """A `loyalty project` that is gone when the block ends."""
    command = [sys.executable, "-m", "loyalty", "project"]
    child = subprocess.Popen(command, cwd=ROOT, env=environment(database_url, name), stdout=said, stderr=said)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def ran(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A `loyalty` command, at its end."""
    command = [sys.executable, "-m", "loyalty", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(database_url), capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def outage(server_url: str, database_url: str) -> Iterator[None]:
    """Ends all connections into a database and lets none in until the block ends."""
    database = urlsplit(database_url).path.removeprefix("/")
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false".encode())
        end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
        connection.execute(end, [database])
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: connection.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true".encode()))
            yield
