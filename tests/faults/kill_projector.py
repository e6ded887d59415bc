"""The process that keeps the read models told, killed with -9 in mid-batch under load, again and again.

`python -m tests.faults.kill_projector 50` does it fifty times and prints what came of it. A kill counts only if a
transaction of the feed was open in which rows of a read model had been changed, as PostgreSQL saw it with the process
stopped; whoever is killed beside that is killed once more.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ledger.card import AddStamp, EarnPoints
from ledger.errors import Rejected
from loyalty.embedded import EmbeddedServers
from migrations import migrate
from projections.models import MODELS
from projections.rebuild import rebuild
from tests.projections.random_trade import trade_in
from tests.projections.telling import KEYRING, Tables, caught_up, environment, shop_on, tables_of
from tests.shop import Shop, open_shop

ROUNDS = 3
WRITERS = 4
NAME = "the projector"
ROOT = Path(__file__).parents[2]
IN_MID_BATCH = """
    SELECT count(*) FROM pg_stat_activity a
    WHERE a.application_name = %s AND a.datname = current_database() AND a.xact_start IS NOT NULL AND EXISTS (
        SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        WHERE l.pid = a.pid AND l.granted AND l.mode = 'RowExclusiveLock'
            AND c.relnamespace = 'projections'::regnamespace AND c.relname <> 'checkpoints' AND c.relkind = 'r'
    )
"""
KILLS_BESIDE_MAX = 20


@dataclass
class Killed:
    """What came of it: kills in mid-batch and beside any, events that were written, rows that were compared."""

    in_mid_batch: int = 0
    beside: int = 0
    events: int = 0
    rows: int = 0
    differing: int = 0
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.in_mid_batch} kills in mid-batch (and {self.beside} beside one) while {WRITERS} writers wrote"
            f" {self.events} events; {self.rows} rows compared with a fresh rebuild, {self.differing} differ"
            f" {list(self.examples) or ''}".rstrip()
        )


@contextlib.contextmanager
def projector(database_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """One `loyalty project`."""
    command = [sys.executable, "-m", "loyalty", "project"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(database_url, NAME))
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kill_in_mid_batch(process: subprocess.Popen[bytes], tables: Tables, chance: Random) -> bool:
    """Kills the process as soon as it is seen in a batch; whether it still was when it had been stopped.

    It is stopped first, for what is seen may be over by the time that a signal arrives. PostgreSQL goes on with the
    statement that it has, so that whoever is stopped behind its last statement shows no open transaction any more.
    """
    deadline = time.monotonic() + 20
    waits = chance.randrange(4)
    while time.monotonic() < deadline:
        if tables.ask(IN_MID_BATCH, NAME) != [(0,)]:
            waits -= 1
        if waits < 0:
            break
    os.kill(process.pid, signal.SIGSTOP)
    tables.ask("SELECT pg_sleep(0.02)")
    caught = tables.ask(IN_MID_BATCH, NAME) != [(0,)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return caught


async def write(shop: Shop, stop: asyncio.Event) -> None:
    """Earns and stamps on cards of its own, one after the other, until it is told to stop."""
    cards = [await shop.enrol() for _ in range(5)]
    number = 0
    while not stop.is_set():
        card = cards[number % len(cards)]
        number += 1
        with contextlib.suppress(Rejected):
            await shop.ask(card, AddStamp() if number % 7 == 0 else EarnPoints(number % 1_000))


async def kill(database_url: str, rounds: int, seed: int) -> Killed:
    """Kills the projector so many times in mid-batch and compares every model with a fresh rebuild."""
    killed = Killed()
    chance = Random(seed)  # noqa: S311 any moment will do
    async with shop_on(database_url) as shop:
        await (await trade_in(shop, chance)).steps(60)
        shops = [
            await open_shop(shop.ledger, shop.clock, cooldown_minutes=0, max_daily_stamps=100) for _ in range(WRITERS)
        ]
        stop = asyncio.Event()
        writing = [asyncio.create_task(write(each, stop)) for each in shops]
        with tables_of(database_url) as tables, tables_of(database_url) as watching:
            while killed.in_mid_batch < rounds and killed.beside <= rounds * KILLS_BESIDE_MAX:
                with projector(database_url) as process:
                    if await asyncio.to_thread(kill_in_mid_batch, process, watching, chance):
                        killed.in_mid_batch += 1
                    else:
                        killed.beside += 1
            stop.set()
            await asyncio.gather(*writing)
            with projector(database_url):
                await caught_up(tables)
            killed.events = tables.head()
    found = await rebuild(database_url, KEYRING, MODELS, takes_over=False)
    for each in found.values():
        assert each is not None, "every model is in place"
        killed.rows += each.rows
        killed.differing += each.differing
        killed.examples += tuple(each.examples)
    return killed


def main(arguments: list[str]) -> int:
    """Kills it as often as is asked for, on servers of its own, and says what came of it."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    folder = Path(tempfile.mkdtemp(prefix="loyalty-kill-", dir="/tmp"))
    folder.chmod(0o755)
    servers = EmbeddedServers(folder)
    try:
        database_url = servers.start().database_url
        migrate(database_url)
        killed = asyncio.run(kill(database_url, rounds, seed=rounds))
    finally:
        servers.stop()
        shutil.rmtree(folder)
    print(killed)
    return 0 if killed.in_mid_batch == rounds and not killed.differing else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
