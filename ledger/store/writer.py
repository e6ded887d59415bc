"""One connection that writes what queued up while it wrote: a batch a commit, never waiting to fill one."""

import asyncio
from collections import deque
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from ledger.errors import Unavailable
from ledger.store.recorder import APPEND, Append, Outcome, outcomes, pack

BATCH_MAX = 256
QUEUE_MAX = 4_000
ANSWER_SECONDS_MAX = 2.5
CONNECT_SECONDS_MAX = 2


class Pending:
    """A command waiting to be written, and who waits for it."""

    __slots__ = ("answer", "append")

    def __init__(self, append: Append, answer: "asyncio.Future[Outcome]") -> None:
        self.append = append
        self.answer = answer


class Writer:
    """Queues appends and writes them in batches, in the order they came."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url
        self._queue: deque[Pending] = deque()
        self._connection: AsyncConnection[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    async def append(self, append: Append) -> Outcome:
        """Writes one command, durably when this returns.

        Raises `Unavailable` if that is not known within a few seconds; it may then have been written all the same.
        """
        if len(self._queue) >= QUEUE_MAX:
            raise Unavailable("too many commands are waiting to be written")
        loop = asyncio.get_running_loop()
        pending = Pending(append, loop.create_future())
        self._queue.append(pending)
        if self._task is None:
            self._task = loop.create_task(self._write_all())
        return await pending.answer

    async def close(self) -> None:
        """Writes what is queued, then lets the connection go."""
        if self._task is not None:
            await self._task
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _write_all(self) -> None:
        try:
            while self._queue:
                batch = independent(self._queue)
                try:
                    async with asyncio.timeout(ANSWER_SECONDS_MAX):
                        await self._write(batch)
                except TimeoutError:
                    # Whoever queued up behind this batch has waited as long, and would again behind the next.
                    await self._give_up([*batch, *self._queue])
                except psycopg.Error as error:
                    await self._after_failure(batch, error)
        finally:
            self._task = None

    async def _write(self, batch: list[Pending]) -> None:
        connection = await self._connected()
        appends = [pending.append for pending in batch]
        cursor = connection.cursor(binary=True)
        await cursor.execute(APPEND, pack(appends), prepare=True)
        row = await cursor.fetchone()
        assert row is not None, "the function always answers with one row"
        for pending, outcome in zip(batch, outcomes(appends, *row), strict=True):
            if not pending.answer.done():
                pending.answer.set_result(outcome)

    async def _after_failure(self, batch: list[Pending], error: psycopg.Error) -> None:
        """Without a connection nobody in the batch knows; otherwise one command spoiled it for the others."""
        if self._connection is None or self._connection.broken or isinstance(error, psycopg.OperationalError):
            await self._give_up(batch)
            return
        for pending in batch:
            try:
                await self._write([pending])
            except psycopg.Error as own:
                if not pending.answer.done():
                    pending.answer.set_exception(own)

    async def _give_up(self, pendings: list[Pending]) -> None:
        await self._disconnect()
        for pending in pendings:
            if not pending.answer.done():
                pending.answer.set_exception(Unavailable("the log does not answer"))

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.broken:
            self._connection = await AsyncConnection.connect(
                self._database_url,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS_MAX,
                options="-c statement_timeout=2000 -c lock_timeout=2000",
            )
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def independent(queue: deque[Pending]) -> list[Pending]:
    """Takes from the queue, in order, what can be written together; what must come after one of them stays.

    Within a batch no command may write what another read or claim what another claims: the one that came later is
    left for the next batch, where the log refuses it if its facts have moved.
    """
    batch: list[Pending] = []
    left: list[Pending] = []
    written: set[UUID] = set()
    claimed: set[tuple[UUID, str, str]] = set()
    while queue and len(batch) < BATCH_MAX:
        pending = queue.popleft()
        if pending.answer.done():
            continue
        append = pending.append
        claims = {(claim.merchant, claim.kind, claim.key) for claim in append.claims + append.releases}
        if not written.isdisjoint(append.guards) or not claimed.isdisjoint(claims):
            left.append(pending)
            continue
        batch.append(pending)
        written.update(event.stream for event in append.events)
        claimed |= claims
    queue.extendleft(reversed(left))
    return batch
