"""Several processes write while others follow: nothing is skipped, halved or decided on what had passed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest

from ledger.card import Card, PointsEarned
from ledger.program import ProgramChanged, ProgramCreated
from ledger.store.codec import NO_PREVIOUS_HASH, Read, decode
from tests import racing
from tests.racing import Part, Racer
from tests.running import open_ledger, running
from tests.shop import SettableClock, open_shop

pytestmark = pytest.mark.slow

COMMANDS = 2_000
CARDS = 8
CHANGES = 60
EARNINGS = 300
KILLS = 5
ANSWERS_BEFORE_KILL = 30
SECONDS_MAX = 60.0

AFTER = "SELECT notification_id, state FROM events WHERE notification_id > %s ORDER BY notification_id"
HALVES = """
    SELECT originator_id FROM events GROUP BY originator_id
    HAVING min(originator_version) <> 1 OR max(originator_version) <> count(*)
"""
OTHERS = """
    SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
    AND pid <> pg_backend_pid()
"""


class Follower:
    """Reads past what it has seen, and holds what it sees against what the log promises."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.connection = connection
        self.position = 0
        self.looks = 0
        self.commands: set[UUID] = set()

    def ask(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query.encode(), parameters).fetchall()

    def look(self) -> None:
        """Takes what is new: positions without a gap, and of each command all its events beside each other."""
        rows = self.ask(AFTER, self.position)
        assert [position for position, _ in rows] == [self.position + 1 + index for index in range(len(rows))]
        self.position += len(rows)
        self.looks += bool(rows)
        parts = [msgspec.json.decode(state, type=Part) for _, state in rows]
        for command, group in groupby(parts, key=lambda part: part.command):
            of_command = list(group)
            assert of_command == [Part(command, number, len(of_command)) for number in range(1, len(of_command) + 1)]
            assert command not in self.commands
            self.commands.add(command)

    def look_until(self, commands: int) -> None:
        """Looks until that many commands were seen."""
        deadline = time.monotonic() + SECONDS_MAX
        while len(self.commands) < commands:
            assert time.monotonic() < deadline
            self.look()

    def look_at_all(self, answered: list[str]) -> None:
        """Once nobody writes: everything answered is there, and nothing is there by half."""
        deadline = time.monotonic() + SECONDS_MAX
        while self.ask(OTHERS):
            assert time.monotonic() < deadline
        self.look()
        assert self.ask("SELECT max(notification_id), count(*) FROM events") == [(self.position, self.position)]
        assert self.ask(HALVES) == []
        assert {UUID(key) for (key,) in self.ask("SELECT key FROM claims")} == self.commands
        assert self.commands >= {UUID(line) for line in answered}


@contextmanager
def following(database_url: str) -> Iterator[Follower]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield Follower(connection)


def test_who_follows_two_writers_skips_nothing_and_sees_whole_commands(database_url: str) -> None:
    with (
        following(database_url) as follower,
        racing.racing("parts", database_url) as one,
        racing.racing("parts", database_url) as two,
    ):
        follower.look_until(COMMANDS)
        assert follower.looks > COMMANDS / 50
        assert one.answers()
        assert two.answers()
        follower.look_at_all(one.finish() + two.finish())


def test_who_listens_hears_of_every_command(database_url: str) -> None:
    with (
        following(database_url) as follower,
        following(database_url) as listener,
        racing.racing("parts", database_url) as one,
        racing.racing("parts", database_url) as two,
    ):
        listener.connection.execute("LISTEN events")

        def look_when_told() -> None:
            assert list(listener.connection.notifies(timeout=SECONDS_MAX, stop_after=1))
            listener.look()

        while len(listener.commands) < COMMANDS:
            look_when_told()
        one.finish()
        two.finish()
        ((head,),) = follower.ask("SELECT max(notification_id) FROM events")
        while listener.position < head:
            look_when_told()


def answered_until(racer: Racer, count: int) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while len(racer.answers()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_killed_writer_leaves_no_half_command_and_takes_back_no_answer(database_url: str) -> None:
    answered: list[str] = []
    with following(database_url) as follower, racing.racing("parts", database_url) as survivor:
        for _ in range(KILLS):
            with racing.racing("parts", database_url) as victim:
                answered_until(victim, ANSWERS_BEFORE_KILL)
                answered += victim.kill()
                follower.look()
        before = len(survivor.answers())
        answered_until(survivor, before + ANSWERS_BEFORE_KILL)
        follower.look_at_all(answered + survivor.finish())


def all_events(database_url: str) -> list[Read]:
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(AFTER, (0,)).fetchall()
    assert [position for position, _ in rows] == list(range(1, len(rows) + 1))
    return [decode(state, None) for _, state in rows]


def refuse_stale_decisions(reads: list[Read]) -> None:
    """Each earning names and uses the newest program below it, on the newest balance of its card."""
    version = points_per_euro = 0
    balances: dict[UUID, int] = {}
    hashes: dict[UUID, str] = {}
    for read in reads:
        stream = read.at.stream
        assert read.previous_hash == hashes.get(stream, NO_PREVIOUS_HASH)
        hashes[stream] = read.hash
        match read.event:
            case ProgramCreated() | ProgramChanged():
                version, points_per_euro = read.at.version, read.event.rules.points_per_euro
            case PointsEarned():
                assert read.event.program_version == version
                assert read.event.points == read.event.purchase_amount_cents * points_per_euro // 100
                balances[stream] = balances.get(stream, 0) + read.event.points
                assert read.event.points_balance == balances[stream]


@running
async def test_nothing_is_decided_on_rules_that_had_passed(database_url: str) -> None:
    async with open_ledger(database_url) as ledger:
        shop = await open_shop(ledger, SettableClock())
        cards: list[Card] = [await shop.enrol() for _ in range(CARDS)]
    counter = racing.counter_of(shop, tuple(cards))
    with (
        racing.racing("earn", database_url, counter) as earner,
        racing.racing("change", database_url, counter) as changer,
    ):
        answered_until(changer, CHANGES)
        answered_until(earner, EARNINGS)
        answered = earner.finish() + changer.finish()
    reads = all_events(database_url)
    refuse_stale_decisions(reads)
    assert {int(position) for position in answered} <= set(range(1, len(reads) + 1))
    earned_under = {read.event.program_version for read in reads if isinstance(read.event, PointsEarned)}
    assert len(earned_under) > CHANGES / 4
