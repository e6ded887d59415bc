"""Waiting for the database no longer than a till waits for an answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ledger.errors import Unavailable

T = TypeVar("T")

ANSWER_SECONDS_MAX = 2.5
STATEMENT_TIMEOUT = "-c statement_timeout=2000 -c lock_timeout=2000"

_left: set[asyncio.Task[Any]] = set()


async def within(seconds_max: float, work: Coroutine[Any, Any, T]) -> T:
    """What the work comes to, or `Unavailable` when the time is over.

    A cancelled query still waits for the server to confirm, which a server that hangs never does. So whoever waits is
    let go at once, and the work is cancelled behind them.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds_max)
    except asyncio.CancelledError:
        leave(task)
        raise
    if not done:
        leave(task)
        raise Unavailable("the log does not answer")
    return task.result()


def leave(task: asyncio.Task[Any]) -> None:
    """Cancels a task that nobody waits for any more; how it ends is of no interest."""
    task.cancel()
    _left.add(task)
    task.add_done_callback(forget)


async def settle(seconds_max: float = 1.0) -> None:
    """Waits, but not for long, until what was left behind has ended and closed its connections."""
    if _left:
        await asyncio.wait(_left, timeout=seconds_max)


def forget(task: asyncio.Task[Any]) -> None:
    """Lets a task go that has ended, its exception looked at."""
    _left.discard(task)
    if not task.cancelled():
        task.exception()
