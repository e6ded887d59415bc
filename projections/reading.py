"""Read models as those see them who ask: rows, how far they are, and waiting until they are far enough."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress

import psycopg
from psycopg import AsyncConnection

from ledger.errors import Rejected, Unavailable
from ledger.store.pool import Pool
from projections.applying import LIVE
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
POSITIONS = "SELECT model, identity, position, replaced FROM checkpoints WHERE model = ANY(%(models)s)"


class Reader:
    """Reads the tables of read models, and hears of it when they were changed."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._pool = Pool(database_url, CONNECTIONS_MAX, OPTIONS)
        self._told = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self.rows = self._pool.rows

    async def open(self) -> None:
        """Connects, in the background where the database is not there yet."""
        await self._pool.open()
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    async def close(self) -> None:
        """Disconnects."""
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening
        await self._pool.close()

    async def reached(self, models: Iterable[ReadModel], wanted: int = 0) -> int:
        """How far all of these models are, once they are as far as wanted.

        Waits a moment where they are not: raises `behind` with how far they are when that was in vain, and
        `Unavailable` while one of them is being built.
        """
        asked = list(models)
        loop = asyncio.get_running_loop()
        until = loop.time() + WAIT_SECONDS_MAX
        while True:
            # Taken before it is looked: whatever is told from now on wakes.
            told = self._told
            position = await self._position(asked)
            if position >= wanted:
                return position
            left = until - loop.time()
            if left <= 0:
                raise Rejected("behind", position=position)
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_SECONDS)):
                    await told.wait()

    async def _position(self, models: list[ReadModel]) -> int:
        rows = await self.rows(POSITIONS, {"models": [model.name for model in models]})
        known = {name: (identity, position, replaced) for name, identity, position, replaced in rows}
        for model in models:
            identity, _, replaced = known.get(model.name, ("", 0, ()))
            # A newer release's tables have at least what this release's had.
            if identity != model.identity and model.identity not in replaced:
                raise Unavailable(f"the read model {model.name} is being built")
        return int(min(position for _, position, _ in known.values()))

    async def _listen(self) -> None:
        """Wakes those who wait, every time that the tables changed."""
        while True:
            try:
                async with await AsyncConnection.connect(
                    self._database_url, autocommit=True, connect_timeout=2
                ) as connection:
                    await connection.execute("LISTEN projected")
                    async for _ in connection.notifies():
                        self._told.set()
                        self._told = asyncio.Event()
            except psycopg.OperationalError as error:
                LOG.warning("readers hear of no change for now (%s) and look by themselves", error)
            await asyncio.sleep(RECONNECT_SECONDS)
