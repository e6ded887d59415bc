"""Shops on one server and on two, and what commands sent to them came to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ledger.entry import Handled, Result
from ledger.errors import Rejected
from tests.running import open_ledger
from tests.shop import SettableClock, Shop, open_shop


@asynccontextmanager
async def shop_on(database_url: str, **options: Any) -> AsyncIterator[Shop]:
    """A shop on one server."""
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        yield await open_shop(ledger, clock, **options)


@asynccontextmanager
async def two_servers(database_url: str, **options: Any) -> AsyncIterator[tuple[Shop, Shop]]:
    """The same shop through two servers, each with what it remembers."""
    async with shop_on(database_url, **options) as here, open_ledger(database_url, here.clock) as other:
        yield here, here.on(other)


async def refused(handling: Awaitable[Any]) -> tuple[str, dict[str, Any]]:
    """The code and facts of a refusal."""
    with pytest.raises(Rejected) as refusal:
        await handling
    return refusal.value.code, dict(refusal.value.facts)


async def all_at_once(handlings: Iterable[Awaitable[Handled]]) -> tuple[list[Handled], Counter[str]]:
    """What was handled, and how often which code was refused."""
    outcomes = await asyncio.gather(*handlings, return_exceptions=True)
    codes: Counter[str] = Counter()
    handled = []
    for outcome in outcomes:
        if isinstance(outcome, Rejected):
            codes[outcome.code] += 1
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            handled.append(outcome)
    return handled, codes


def told(result: Result) -> bytes:
    """An answer that no later rendering would give again."""
    return msgspec.json.encode((result.main.stream, result.main.version, uuid4()))


def of(handled: Handled) -> Any:
    """The state of what a command was about, after it."""
    assert handled.result is not None
    return handled.result.main.state
