"""A load on the ledger from within: appends to the log, and commands through the door in as many processes as asked."""

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from uuid import uuid4

import uvloop

from ledger import card
from ledger.entropy import SystemClock
from ledger.entry import Result
from ledger.store.recorder import Append, NewEvent
from tests.shop import ledger_on, open_shop

STATE = b"x" * 500


def appends_per_second(database_url: str, clients: int, seconds: float) -> float:
    """One-event commands straight into the log."""
    return uvloop.run(appends(database_url, clients, seconds)) / seconds


def commands_per_second(database_url: str, clients: int, seconds: float) -> float:
    """Points commands through the door, with staff PIN, guards, idempotency keys and sealed answers."""
    return uvloop.run(commands(database_url, clients, seconds)) / seconds


def in_processes(pool: ProcessPoolExecutor, database_url: str, clients: int, processes: int, seconds: float) -> float:
    """Commands a second of several processes together, each with its share of the clients."""
    share = clients // processes
    runs = [pool.submit(commands_per_second, database_url, share, seconds) for _ in range(processes)]
    return sum(run.result() for run in runs)


async def appends(database_url: str, clients: int, seconds: float) -> int:
    """Appends until the time is over, and says how many."""
    ledger = ledger_on(database_url, SystemClock())
    await ledger.log.open()
    merchant, until, done = uuid4(), time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal done
        stream, version = uuid4(), 0
        while time.perf_counter() < until:
            event = NewEvent(stream, version + 1, "bench.1", STATE)
            await ledger.log.append(Append(merchant=merchant, events=(event,), guards={stream: version}))
            version += 1
            done += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    await ledger.log.close()
    return done


async def commands(database_url: str, clients: int, seconds: float) -> int:
    """Sends commands until the time is over, and says how many."""
    clock = SystemClock()
    ledger = ledger_on(database_url, clock)
    await ledger.log.open()
    shop = await open_shop(ledger, clock)
    cards = [await shop.enrol() for _ in range(clients)]
    await shop.ask(cards[0], card.EarnPoints(2500, None))
    until, done = time.perf_counter() + seconds, 0

    def answer(_: Result) -> bytes:
        return STATE

    async def client(mine: card.Card) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await shop.ask(mine, card.EarnPoints(2500, None), answer=answer)
            done += 1

    await asyncio.gather(*(client(mine) for mine in cards))
    await ledger.log.close()
    return done
