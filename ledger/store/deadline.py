"""Waiting for the database no longer than a till waits for an answer, and on sessions that are set up for it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from psycopg.conninfo import conninfo_to_dict

from ledger.errors import Unavailable

T = TypeVar("T")

ANSWER_SECONDS_MAX = 2.5
SESSION = (
    "-c statement_timeout=2000 -c lock_timeout=2000"
    # Under the append's lock every statement must see what was committed before it, whatever the server's default is.
    " -c default_transaction_isolation=read\\ committed"
)

_left: set[asyncio.Task[Any]] = set()


def session_options(database_url: str) -> str:
    """What each session sets, after what the connection string itself asks for."""
    return f"{conninfo_to_dict(database_url).get('options') or ''} {SESSION}".strip()


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
