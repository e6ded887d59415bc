"""Coroutines as tests, and the ledger as one server process has it, opened and closed around a block."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ParamSpec

from ledger.entropy import SystemEntropy
from ledger.handle import Ledger
from ledger.store.keys import Keyring
from ledger.store.log import Log
from tests.shop import SettableClock, ledger_on

P = ParamSpec("P")

MASTER_KEY = b"m" * 32


def running(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Makes a test of a coroutine function; fixtures reach it under their names as ever."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def open_log(database_url: str, master_key: bytes = MASTER_KEY) -> AsyncIterator[Log]:
    """A log with caches of its own: two of them on one database are two servers."""
    log = Log(database_url, Keyring(master_key, SystemEntropy()))
    await log.open()
    try:
        yield log
    finally:
        await log.close()


@asynccontextmanager
async def open_ledger(database_url: str, clock: Any = None) -> AsyncIterator[Ledger]:
    """A ledger with caches of its own: two of them on one database are two servers."""
    ledger = ledger_on(database_url, clock or SettableClock())
    await ledger.log.open()
    try:
        yield ledger
    finally:
        await ledger.log.close()
        ledger.secrecy.close()
