"""Writers to race with: each is a process of its own, as servers are.

`parts` appends commands of one to four events, whose states say which command they are part of and how many parts it
has; `earn` and `change` send commands through the door. Each prints what it was answered, a line a command, and ends
by itself, is told to by the end of its standard input, or is killed.
"""

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import IO, Any
from uuid import UUID, uuid4

import msgspec
import psycopg

from ledger.actor import Caller
from ledger.card import Card, EarnPoints
from ledger.commands import OnProgram
from ledger.entropy import SystemClock
from ledger.errors import Unavailable
from ledger.program import ChangeProgram
from ledger.store.recorder import Append, Claim, NewEvent, Written
from tests.running import open_ledger, open_log
from tests.shop import Shop

AT_ONCE = 8
PARTS_MAX = 4
ANSWERS_BYTES_MAX = 16 * 1024 * 1024
STREAMS = tuple(UUID(int=number) for number in range(1, 33))
MERCHANT = UUID(int=99)
CLAIM = "command"
NEWEST = "SELECT originator_id, max(originator_version) FROM events WHERE originator_id = ANY (%s) GROUP BY 1"


class Part(msgspec.Struct, frozen=True):
    """What the state of an event says: it is part `number` of `parts` of a command."""

    command: UUID
    number: int
    parts: int


class Counter(msgspec.Struct, frozen=True):
    """A shop as another process needs it to send commands as its till and its admin."""

    merchant: Caller
    till: Caller
    staff_id: UUID
    store_id: UUID
    terminal_key: str
    cards: tuple[Card, ...]


def counter_of(shop: Shop, cards: tuple[Card, ...]) -> str:
    """The shop and some cards of it, to be handed to a process."""
    counter = Counter(shop.merchant, shop.till, shop.staff_id, shop.store_id, shop.terminal_key, cards)
    return msgspec.json.encode(counter).decode()


# ---- the processes ------------------------------------------------------------------------------------------------


async def parts(database_url: str) -> None:
    """Appends commands to several of the same few streams as everybody else, several commands at once, for good."""
    numbers = itertools.count(os.getpid())
    versions = dict.fromkeys(STREAMS, 0)

    async def write() -> None:
        while True:
            number, command = next(numbers), uuid4()
            streams = [STREAMS[(number * 7 + step * 5) % len(STREAMS)] for step in range(1 + number % PARTS_MAX)]
            guards = {stream: versions[stream] for stream in streams}
            events = tuple(
                NewEvent(stream, guards[stream] + 1, "part.1", msgspec.json.encode(Part(command, part, len(streams))))
                for part, stream in enumerate(streams, start=1)
            )
            claims = (Claim(MERCHANT, CLAIM, str(command)),)
            outcome = await log.append(Append(merchant=MERCHANT, events=events, guards=guards, claims=claims))
            if isinstance(outcome, Written):
                print(command, flush=True)
                newest = {stream: version + 1 for stream, version in guards.items()}
            else:
                newest = dict(await (await beside.execute(NEWEST, [streams])).fetchall())
            for stream, version in newest.items():
                versions[stream] = max(versions[stream], version)

    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as beside,
        open_log(database_url) as log,
    ):
        await until_told([write() for _ in range(AT_ONCE)])


async def earn(database_url: str, counter: str) -> None:
    """Earns points for each card by turns, several cards at once, for good."""
    async with behind(database_url, counter) as (shop, cards):

        async def earn_for(card: Card) -> None:
            while True:
                with contextlib.suppress(Unavailable):
                    handled = await shop.ask(card, EarnPoints(1_000, None))
                    print(handled.position, flush=True)

        await until_told([earn_for(card) for card in cards])


async def change(database_url: str, counter: str) -> None:
    """Changes the program each time that others have written a little more, for good."""
    async with behind(database_url, counter) as (shop, _):

        async def change_rules() -> None:
            points = 0
            while True:
                points += 1
                with contextlib.suppress(Unavailable):
                    handled = await shop.send(OnProgram(ChangeProgram({"points_per_euro": points})), shop.merchant)
                    print(handled.position, flush=True)
                    while await shop.ledger.log.head() < handled.position + 3:
                        await asyncio.sleep(0)

        await until_told([change_rules()])


@contextlib.asynccontextmanager
async def behind(database_url: str, counter: str) -> AsyncIterator[tuple[Shop, tuple[Card, ...]]]:
    """The shop that was handed over, on a ledger of this process."""
    known = msgspec.json.decode(counter, type=Counter)
    clock = SystemClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = Shop(ledger, clock, known.merchant, known.till, known.staff_id, known.store_id, known.terminal_key)
        yield shop, known.cards


async def until_told(work: list[Coroutine[Any, Any, None]]) -> None:
    """Works until standard input ends, and ends what it began."""
    loop = asyncio.get_running_loop()
    working = [asyncio.create_task(part) for part in work]
    told = loop.run_in_executor(None, sys.stdin.read)
    await asyncio.wait([*working, told], return_when=asyncio.FIRST_COMPLETED)
    for task in working:
        task.cancel()
    for outcome in await asyncio.gather(*working, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


# ---- who starts them ----------------------------------------------------------------------------------------------


class Racer:
    """One such process, started."""

    def __init__(self, process: subprocess.Popen[bytes], answers: IO[bytes]) -> None:
        self._process = process
        self._answers = answers

    def answers(self) -> list[str]:
        """What it was answered until now."""
        text = os.pread(self._answers.fileno(), ANSWERS_BYTES_MAX, 0).decode()
        return [line.removesuffix("\n") for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def finish(self) -> list[str]:
        """Tells it to end and returns what it was answered."""
        self._process.communicate()
        assert self._process.returncode == 0
        return self.answers()

    def kill(self) -> list[str]:
        """Ends it as a power cut would and returns what it was answered until then."""
        self._process.kill()
        self._process.communicate()
        return self.answers()


@contextlib.contextmanager
def racing(*arguments: str) -> Iterator[Racer]:
    """A writer that is gone when the block ends, whatever happens in it."""
    command = [sys.executable, "-m", "tests.racing", *arguments]
    with (
        tempfile.TemporaryFile() as answers,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=answers) as process,
    ):
        try:
            yield Racer(process, answers)
        finally:
            process.kill()


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    roles: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"parts": parts, "earn": earn, "change": change}
    asyncio.run(roles[role](*arguments))
