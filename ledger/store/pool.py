"""Connections to read by: asked again where one turns out to be dead, and never waited for longer than a till waits."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from ledger.errors import Unavailable
from ledger.store.deadline import ANSWER_SECONDS_MAX, session_options, within

FREE_SECONDS_MAX = 2.0
TOO_LONG = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable)
"""What the time limits of sessions end; the connection is well, and asking again would only take as long again."""

INDEXED = "-c enable_seqscan=off"
"""Every question has its index; whether that is used must not depend on what a young table looked like."""


class Pool:
    """Some connections to one database, with further options for their sessions."""

    def __init__(self, database_url: str, connections_max: int, options: str = "") -> None:
        self._pool: AsyncConnectionPool[AsyncConnection[TupleRow]] = AsyncConnectionPool(
            database_url,
            min_size=1,
            max_size=connections_max,
            timeout=FREE_SECONDS_MAX,
            # A longer one would have the pool wait ever longer between attempts, and readers after an outage with it.
            reconnect_timeout=1.0,
            open=False,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 1,
                "connect_timeout": 2,
                "options": f"{session_options(database_url)} {INDEXED} {options}".strip(),
            },
        )

    async def open(self) -> None:
        """Connects, in the background where the database is not there yet."""
        await self._pool.open()

    async def close(self) -> None:
        """Disconnects."""
        await self._pool.close()

    def connection(self) -> AbstractAsyncContextManager[AsyncConnection[TupleRow]]:
        """A connection for a while."""
        return self._pool.connection()

    async def rows(self, query: str, parameters: dict[str, Any]) -> list[TupleRow]:
        """What a query finds; raises `Unavailable` where the database does not answer, or not in time."""
        try:
            return await within(ANSWER_SECONDS_MAX, self._rows_twice(query, parameters))
        except TOO_LONG as error:
            raise Unavailable("the question takes too long") from error
        except psycopg.OperationalError as error:
            raise Unavailable("the database cannot be reached") from error

    async def _rows_twice(self, query: str, parameters: dict[str, Any]) -> list[TupleRow]:
        """Connections that died while they were idle show it only when they are used; then all are looked at."""
        try:
            return await self._rows_once(query, parameters)
        except TOO_LONG:
            raise
        except psycopg.OperationalError:
            await self._pool.check()
            return await self._rows_once(query, parameters)

    async def _rows_once(self, query: str, parameters: dict[str, Any]) -> list[TupleRow]:
        async with self._pool.connection() as connection:
            cursor = connection.cursor(binary=True)
            await cursor.execute(query.encode(), parameters)
            return await cursor.fetchall()
