"""Read models as those see them who ask: rows, how far they are, and waiting until they are far enough."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from ledger.errors import Rejected, Unavailable
from ledger.store.pool import Pool
from projections.applying import KEEPALIVE, LIVE
from projections.read_model import ReadModel

LOG = logging.getLogger("loyalty")

CONNECTIONS_MAX = 4
OPTIONS = (
    f"-c search_path={LIVE},public -c default_transaction_read_only=on"
    # Filters that are left out count for nothing, and statistics may sort and hash in memory.
    " -c plan_cache_mode=force_custom_plan -c work_mem=64MB -c jit=off"
)
WAIT_SECONDS_MAX = 2.0
LOOK_SECONDS = 0.5
"""While it waits to be told, a reader looks by itself this often, in case that nobody could tell it."""

RECONNECT_SECONDS = 1.0
CHECKPOINTS = "SELECT model, identity, position, replaced FROM projections.checkpoints"


class Checkpoint(NamedTuple):
    """How far the tables of a model are, and of which shape they are and were."""

    identity: str
    position: int
    replaced: list[str]


Checkpoints = dict[str, Checkpoint]


class Reader:
    """Reads the tables of read models, and hears of it when they were changed."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._pool = Pool(database_url, CONNECTIONS_MAX, OPTIONS)
        self._told = asyncio.Event()
        self._heard: Checkpoints | None = None
        self._listening: asyncio.Task[None] | None = None
        self.rows = self._pool.rows

    async def open(self) -> None:
        """Connects, in the background where the database is not there yet."""
        await self._pool.open()
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def close(self) -> None:
        """Disconnects."""
        try:
            if self._listening is not None:
                self._listening.cancel()
                with suppress(asyncio.CancelledError):
                    await self._listening
        finally:
            await self._pool.close()

    async def reached(self, models: Iterable[ReadModel], wanted: int = 0) -> int:
        """How far all of these models are at least, once they are as far as wanted.

        Waits a moment where they are not: raises `behind` with how far they are when that was in vain, and
        `Unavailable` while one of them is being built.
        """
        asked = list(models)
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT_SECONDS_MAX
        checkpoints = self._heard
        while True:
            # Taken before it is looked: whatever is told from now on wakes.
            told = self._told
            position = await self._position_of(asked, checkpoints)
            if position >= wanted:
                return position
            left = until - loop.time()
            if left <= 0:
                raise Rejected("behind", position=position)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_SECONDS)):
                    await told.wait()
            checkpoints = self._heard if told.is_set() else None

    async def _position_of(self, models: Sequence[ReadModel], heard: Checkpoints | None) -> int:
        """How far models are by what was heard; where that is not enough to tell, by the table itself."""
        if heard is not None:
            with suppress(Unavailable):
                return position_of(models, heard)
        return position_of(models, await self._checkpoints())

    async def _checkpoints(self) -> Checkpoints:
        rows = await self.rows(CHECKPOINTS, {})
        return {model: Checkpoint(identity, position, replaced) for model, identity, position, replaced in rows}

    async def _listen(self) -> None:
        """Hears of every change of the tables, and wakes those who wait.

        What was heard once stays true: read models only go on. When nobody can be heard, readers look by themselves.
        """
        conninfo = make_conninfo(self._database_url, **KEEPALIVE)
        said: set[type[Exception]] = set()
        while True:
            try:
                async with await AsyncConnection.connect(conninfo, autocommit=True) as connection:
                    await connection.execute("LISTEN projected")
                    while True:
                        cursor = await connection.execute(CHECKPOINTS)
                        self._heard = {row[0]: Checkpoint(*row[1:]) for row in await cursor.fetchall()}
                        said.clear()
                        self._told.set()
                        self._told = asyncio.Event()
                        async for _ in connection.notifies(stop_after=1):
                            pass
            except psycopg.OperationalError as error:
                LOG.warning("readers hear of no change for now (%s) and look by themselves", error)
            # Nobody awaits this task before the end: what ended it would not be seen.
            except Exception as error:
                if type(error) not in said:
                    LOG.error("readers hear of no change and look by themselves", exc_info=error)
                said.add(type(error))
            finally:
                self._heard = None
            await asyncio.sleep(RECONNECT_SECONDS)


def position_of(models: Iterable[ReadModel], checkpoints: Checkpoints) -> int:
    """How far all of some models are; raises `Unavailable` while one of them is not this release's or a newer one's."""
    positions = []
    for model in models:
        found = checkpoints.get(model.name)
        # A newer release's tables have at least what this release's had.
        if found is None or (found.identity != model.identity and model.identity not in found.replaced):
            raise Unavailable(f"the read model {model.name} is being built")
        positions.append(found.position)
    return min(positions)
