"""Imports purchases from a CSV file, each once however often it is run and wherever it was interrupted."""

import asyncio
import csv
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ledger import card
from ledger.actor import PLATFORM, Caller, Role
from ledger.commands import EnrolCard, OnCard, WhichCard
from ledger.errors import Rejected
from ledger.handle import Ledger
from ledger.merchant import Store
from ledger.store.names import MERCHANT
from ledger.view import holder_of
from loyalty.demo import OPERATOR

COLUMNS = ["customer_id", "date", "items", "amount_cents"]
CHUNK_LINES = 512
BAD_LINES_SHOWN = 20
NOON = time(12)
"""A day without a time of day is taken as its noon, which is on that date in every time zone near the store's."""


class Purchase(NamedTuple):
    """One line of the file; `key` is the same whenever the same line is read."""

    line: int
    customer_id: str
    day: date
    amount_cents: int
    key: str


@dataclass
class Summary:
    """What an import came to."""

    cards: int = 0
    earnings: int = 0
    points: int = 0
    known: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def purchases_in(path: Path) -> Iterator[Purchase]:
    """The file's purchases; raises ClickException that names every bad line, before anything else is done with it.

    Some people buy the same twice on one day, so a line's key counts equal lines before it.
    """
    seen: Counter[str] = Counter()
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        if next(rows, None) != COLUMNS:
            raise click.ClickException(f"The first line must be: {','.join(COLUMNS)}")
        for row in rows:
            text = ",".join(row)
            seen[text] += 1
            key = hashlib.sha256(f"{text}#{seen[text]}".encode()).hexdigest()
            yield Purchase(rows.line_num, row[0], date.fromisoformat(row[1]), int(row[3]), f"import-{key}")


def refuse_bad_lines(path: Path) -> int:
    """Counts the purchases; raises ClickException that names the bad lines, so that they are mended before a start."""
    bad: list[str] = []
    good = 0
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows, None)
        for row in rows:
            reason = what_is_wrong(row)
            good += reason is None
            if reason is not None:
                bad.append(f"line {rows.line_num}: {reason}")
    if bad:
        more = [f"... and {len(bad) - BAD_LINES_SHOWN} more"] if len(bad) > BAD_LINES_SHOWN else []
        raise click.ClickException("\n".join(["Nothing was imported.", *bad[:BAD_LINES_SHOWN], *more]))
    return good


def what_is_wrong(row: list[str]) -> str | None:
    """Why a line cannot be a purchase; None if it can."""
    if len(row) != len(COLUMNS):
        return f"{len(row)} columns instead of {len(COLUMNS)}"
    if not 1 <= len(row[0]) <= 64 or not row[0].isprintable():
        return "customer_id must be 1 to 64 printable characters"
    try:
        date.fromisoformat(row[1])
    except ValueError:
        return "date must be YYYY-MM-DD"
    if not row[3].isascii() or not row[3].isdigit() or int(row[3]) > card.PURCHASE_CENTS_MAX:
        return f"amount_cents must be a whole number from 0 to {card.PURCHASE_CENTS_MAX}"
    return None


async def store_by_code(ledger: Ledger, code: str) -> tuple[UUID, Store]:
    """The store with that code and its merchant."""
    value = await ledger.log.claim(PLATFORM, "store_code", code)
    merchant = await ledger.log.load(MERCHANT, holder_of(value).stream) if value is not None else None
    for store in merchant.state.stores.values() if merchant is not None else ():
        if store.code == code and merchant is not None:
            return merchant.stream, store
    raise click.ClickException(f"There is no store {code}.")


async def import_purchases(ledger: Ledger, path: Path, store_code: str) -> Summary:
    """Enrols who is new and earns each purchase at its own date, with a progress bar."""
    total = refuse_bad_lines(path)
    merchant_id, store = await store_by_code(ledger, store_code)
    caller = Caller(role=Role.OPERATOR, id=OPERATOR, merchant_id=merchant_id, store_id=store.id)
    importer = Importer(ledger, caller, ZoneInfo(store.time_zone))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(f"Importing {path.name}", total=total)
        purchases = purchases_in(path)
        while chunk := list(islice(purchases, CHUNK_LINES)):
            await importer.take(chunk)
            progress.advance(task, len(chunk))
    return importer.summary


class Importer:
    """Takes purchases a chunk at a time, the new ones of a chunk at once."""

    def __init__(self, ledger: Ledger, caller: Caller, zone: ZoneInfo) -> None:
        self.summary = Summary()
        self._ledger = ledger
        self._caller = caller
        self._zone = zone
        self._cards: dict[str, UUID] = {}

    async def take(self, chunk: list[Purchase]) -> None:
        """Enrols and earns what the ledger does not have yet."""
        names = {f"{self._caller.role}:{self._caller.id}:{purchase.key}": purchase for purchase in chunk}
        known = await self._ledger.log.claims(self._caller.merchant_id, "idempotency", list(names))
        new = [purchase for name, purchase in names.items() if name not in known]
        self.summary.known += len(known)
        first = {
            purchase.customer_id: purchase for purchase in reversed(new) if purchase.customer_id not in self._cards
        }
        async with asyncio.TaskGroup() as group:
            for purchase in first.values():
                group.create_task(self._enrol(purchase))
        async with asyncio.TaskGroup() as group:
            for purchase in new:
                group.create_task(self._earn(purchase))

    async def _enrol(self, purchase: Purchase) -> None:
        handled = await self._ledger.handle(
            EnrolCard(customer_id=purchase.customer_id), self._caller, occurred_at=self._noon(purchase.day)
        )
        assert handled.result is not None, "a command without a key is never a replay"
        self._cards[purchase.customer_id] = handled.result.main.stream
        self.summary.cards += handled.created

    async def _earn(self, purchase: Purchase) -> None:
        command = OnCard(
            which=WhichCard(card_id=self._cards[purchase.customer_id]),
            command=card.EarnPoints(purchase.amount_cents, None),
        )
        try:
            handled = await self._ledger.handle(
                command, self._caller, key=purchase.key, occurred_at=self._noon(purchase.day)
            )
        except Rejected as refusal:
            self.summary.refused[refusal.code] += 1
            return
        if handled.result is None:
            self.summary.known += 1
            return
        self.summary.earnings += 1
        self.summary.points += handled.result.events[-1][1].points

    def _noon(self, day: date) -> datetime:
        return datetime.combine(day, NOON, self._zone).astimezone(UTC)
