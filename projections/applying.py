"""Applying the log to tables, rows and checkpoint in one transaction: the same for those that are read and for those
that are being built.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple

import msgspec
import psycopg
from psycopg.conninfo import make_conninfo

from ledger.store import END_OF_LOG
from ledger.store.deadline import session_options
from projections.batches import Batches
from projections.read_model import Batch, Connection, Memory, ReadModel, Untellable

LIVE, REBUILDING = "projections", "rebuilding"
"""The schemas of tables that are read, and of tables that are being built."""

BATCH_EVENTS_MAX = 5_000

LOCKED_CHECKPOINTS = """
    SELECT model, identity, position, generation, replaced FROM checkpoints WHERE model = ANY(%(models)s)
    ORDER BY model FOR UPDATE
"""
ADVANCE = "UPDATE checkpoints SET position = %(position)s WHERE model = ANY(%(models)s)"
TELL = "SELECT pg_notify('projected', %(position)s::text)"


CONTRADICTIONS = (AssertionError, msgspec.MsgspecError, psycopg.IntegrityError, psycopg.ProgrammingError)
"""What applying ends with where rows are missing, cannot be read or are there already, or tables gone or altered."""


class Overtaken(Exception):
    """A newer release has its own tables in place of this release's."""


class Progress(NamedTuple):
    """How far a model's tables are, and how often they were replaced."""

    model: ReadModel
    position: int
    generation: int


KEEPALIVE = {"connect_timeout": 2, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
"""How soon it is noticed that the other machine is gone, in seconds (tcp(7), keepalive)."""


async def connected(database_url: str, schema: str) -> Connection:
    """A connection for which the names of tables mean those of a schema.

    Nothing is lost when a crash takes the last moments of a read model: rows and checkpoint go back together.
    """
    options = (
        f"{session_options(database_url)} -c statement_timeout=0 -c lock_timeout=0 -c search_path={schema},public"
        " -c synchronous_commit=off"
    )
    conninfo = make_conninfo(database_url, options=options, **KEEPALIVE)
    return await psycopg.AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=2)


def wanted_by(models: Mapping[str, ReadModel]) -> frozenset[str]:
    """What some models want to be told of."""
    return frozenset[str]().union(*(model.topics for model in models.values()))


class Applying:
    """Applies one batch after another, and reads the next while the database works on the last.

    `live` says whether the tables are those that are read, so that those who wait for them are told; `catching_up`
    whether the last batch was as large as it may be, so that more is sure to follow.
    """

    def __init__(
        self, connection: Connection, batches: Batches, models: Mapping[str, ReadModel], *, live: bool = True
    ) -> None:
        self._connection = connection
        self._batches = batches
        self._models = models
        self._live = live
        self.catching_up = False
        self._memories: dict[str, tuple[tuple[int, int], Memory]] = {}
        self._generations: dict[str, int] = {}
        self._left_out: dict[str, int] = {}
        self._next: asyncio.Task[Batch | None] | None = None
        self._next_after = -1

    async def __aenter__(self) -> "Applying":
        """Nothing is to be prepared."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Leaves no reading behind."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})
            if not self._next.cancelled():
                # What it met is met again by whoever reads there next.
                self._next.exception()

    async def step(self, until: int = END_OF_LOG, events_max: int = BATCH_EVENTS_MAX) -> int | None:
        """Applies the next batch up to a position and tells how far that led; None where there was nothing.

        Raises `Overtaken` where the tables are a newer release's, and `Untellable` where a model's rows contradict the
        log or an event cannot be opened; nothing of the batch is applied then.
        """
        try:
            async with self._connection.transaction():
                return await self._applied(until, events_max)
        except BaseException:
            self._memories.clear()
            raise

    def leave_out(self, model: str) -> None:
        """Goes on without a model until its tables were replaced; it stays where it is."""
        self._left_out[model] = self._generations[model]

    async def _applied(self, until: int, events_max: int) -> int | None:
        found = await self._progress()
        start = min((each.position for each in found), default=until)
        batch = await self._batch(start, events_max, until) if start < until else None
        if batch is None:
            return None
        self.catching_up = batch.end - batch.start >= events_max
        if self.catching_up:
            self._next_after = batch.end
            self._next = asyncio.create_task(self._batches.after(batch.end, events_max, until))
        self._generations = {each.model.name: each.generation for each in found}
        behind = [each for each in found if each.position < batch.end]
        for model, position, generation in behind:
            memory = self._memory(model.name, position, generation)
            try:
                await model.apply(batch.after(position), self._connection, memory)
            except CONTRADICTIONS as error:
                raise Untellable(
                    f"the read model {model.name} cannot be told of what stands after position {position}, since its"
                    f" rows are not as the log has them ({type(error).__name__}): run `loyalty rebuild {model.name}`",
                    model.name,
                ) from error
            self._memories[model.name] = ((batch.end, generation), memory)
        advance = {"position": batch.end, "models": [each.model.name for each in behind]}
        await self._connection.execute(ADVANCE, advance)
        if self._live:
            await self._connection.execute(TELL, {"position": batch.end})
        return batch.end

    async def _batch(self, start: int, events_max: int, until: int) -> Batch | None:
        """The next batch, which was perhaps read already."""
        task, self._next = self._next, None
        if task is not None:
            batch = await task
            if batch is not None and self._next_after == start and batch.end <= until:
                return batch
        return await self._batches.after(start, events_max, until)

    async def _progress(self) -> list[Progress]:
        """The models whose tables are this release's; those of an earlier one wait until they were built anew."""
        cursor = await self._connection.execute(LOCKED_CHECKPOINTS, {"models": list(self._models)})
        found = []
        for name, identity, position, generation, replaced in await cursor.fetchall():
            model = self._models[name]
            if model.identity in replaced:
                raise Overtaken(name)
            if model.identity == identity and self._left_out.get(name) != generation:
                found.append(Progress(model, position, generation))
        return found

    def _memory(self, name: str, position: int, generation: int) -> Memory:
        """What a model remembers, if it is of these very rows."""
        known, memory = self._memories.get(name, ((0, 0), {}))
        return memory if known == (position, generation) else {}
