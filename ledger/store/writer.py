"""One connection that writes what queued up while it wrote: a batch a commit, never waiting to fill one."""

import asyncio
from collections import deque
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection

from ledger.errors import Unavailable
from ledger.store.deadline import ANSWER_SECONDS_MAX, session_options, within
from ledger.store.recorder import APPEND, Append, Outcome, outcomes, pack

BATCH_MAX = 64
QUEUE_MAX = 4_000
CONNECT_SECONDS_MAX = 2
# A standby that has not been promoted yet answers as if the statement were at fault.
OUTAGES = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)


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
                if not batch:
                    continue
                try:
                    await within(ANSWER_SECONDS_MAX, self._write(batch))
                except Unavailable as error:
                    # Whoever queued up behind this batch has waited as long, and would again behind the next; the
                    # connection is left to the write that hangs on it.
                    self._connection = None
                    give_up([*batch, *self._queue], error)
                except Exception as error:  # whatever it was, somebody waits for an answer
                    await self._after_failure(batch, error)
        finally:
            self._task = None

    async def _write(self, batch: list[Pending]) -> None:
        connection = await self._connected()
        appends = [pending.append for pending in batch]
        try:
            cursor = connection.cursor(binary=True)
            await cursor.execute(APPEND, pack(appends), prepare=True)
            row = await cursor.fetchone()
        except BaseException:
            await connection.close()
            raise
        assert row is not None, "the function always answers with one row"
        for pending, outcome in zip(batch, outcomes(appends, *row), strict=True):
            if not pending.answer.done():
                pending.answer.set_result(outcome)

    async def _after_failure(self, batch: list[Pending], error: Exception) -> None:
        """Without a connection nobody in the batch knows; otherwise one command spoiled it for the others."""
        if isinstance(error, OUTAGES):
            give_up(batch, Unavailable("the log cannot be reached"))
            return
        for pending in batch:
            try:
                await within(ANSWER_SECONDS_MAX, self._write([pending]))
            except OUTAGES:
                give_up([pending], Unavailable("the log cannot be reached"))
            except Exception as own:  # whatever it was, somebody waits for an answer
                give_up([pending], own)

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(
                self._database_url,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS_MAX,
                options=session_options(self._database_url),
            )
        return self._connection


def give_up(pendings: list[Pending], error: Exception) -> None:
    """Tells whoever still waits what went wrong."""
    for pending in pendings:
        if not pending.answer.done():
            pending.answer.set_exception(error)


def independent(queue: deque[Pending]) -> list[Pending]:
    """Takes from the queue, in order, what can be written together; what must come after one of them stays.

    Within a batch no command may write what another read or claim what another claims: the one that came later is
    left for the next batch, where the log refuses it if its facts have moved. Nor does anyone overtake one that was
    left and that they depend on.
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
        depends = not written.isdisjoint(append.guards) or not claimed.isdisjoint(claims)
        (left if depends else batch).append(pending)
        written.update(event.stream for event in append.events)
        claimed |= claims
    queue.extendleft(reversed(left))
    return batch
