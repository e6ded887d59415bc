"""Imports purchases from a CSV file, each once however often it is run and wherever it was interrupted."""

import asyncio
import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import click

from ledger import card
from ledger.actor import Caller
from ledger.commands import EnrolCard, OnCard, WhichCard
from ledger.errors import Rejected
from ledger.handle import Ledger
from loyalty.importing import FIRST_YEAR, operator_at, store_by_code, take_in_chunks

COLUMNS = ["customer_id", "date", "items", "amount_cents"]
BAD_LINES_SHOWN = 20
LINES_AT_ONCE = 256
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
AMOUNT = re.compile(r"[0-9]{1,9}")
NOON = time(12)
"""A day without a time of day is taken as its noon, which is on that date in every time zone near the store's.

Today's noon may be to come: then it is now.
"""


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


def rows_in(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines after the first, with their numbers; blank ones, as spreadsheets leave at the end, are passed over.

    Raises ClickException where the file is no such CSV file at all. A byte order mark and any line ends will do.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, strict=True)
        try:
            if next(rows, None) != COLUMNS:
                raise click.ClickException(f"Nothing was imported. The first line must be: {','.join(COLUMNS)}")
            for row in rows:
                if any(column.strip() for column in row):
                    yield rows.line_num, row
        except UnicodeDecodeError:
            raise click.ClickException(f"Nothing was imported. {path} is not text in UTF-8.") from None
        except csv.Error as error:
            raise click.ClickException(f"Nothing was imported.\nline {rows.line_num}: {error}") from None


def purchases_in(path: Path, store: UUID) -> Iterator[Purchase]:
    """The purchases of a file without bad lines.

    Some people buy the same twice on one day, so a line's key counts equal lines before it; and what was bought in
    one store was not bought in another.
    """
    seen: Counter[str] = Counter()
    for number, row in rows_in(path):
        text = ",".join(row)
        seen[text] += 1
        key = hashlib.sha256(f"{store}:{text}#{seen[text]}".encode()).hexdigest()
        yield Purchase(number, row[0], date.fromisoformat(row[1]), int(row[3]), f"import-{key}")


def refuse_bad_lines(path: Path, today: date) -> int:
    """Counts the purchases; raises ClickException that names the bad lines, so that they are mended before a start."""
    bad: list[str] = []
    good = 0
    for number, row in rows_in(path):
        reason = what_is_wrong(row, today)
        good += reason is None
        if reason is not None:
            bad.append(f"line {number}: {reason}")
    if bad:
        more = [f"... and {len(bad) - BAD_LINES_SHOWN} more"] if len(bad) > BAD_LINES_SHOWN else []
        raise click.ClickException("\n".join(["Nothing was imported.", *bad[:BAD_LINES_SHOWN], *more]))
    return good


def what_is_wrong(row: list[str], today: date) -> str | None:
    """Why a line cannot be a purchase; None if it can."""
    if len(row) != len(COLUMNS):
        return f"{len(row)} columns instead of {len(COLUMNS)}"
    if not 1 <= len(row[0]) <= 64 or not row[0].isprintable() or row[0] != row[0].strip():
        return "customer_id must be 1 to 64 printable characters, without a space before or after them"
    day = day_of(row[1])
    if day is None or not date(FIRST_YEAR, 1, 1) <= day <= today:
        return f"date must be YYYY-MM-DD, from {FIRST_YEAR} until today"
    if not AMOUNT.fullmatch(row[3]) or int(row[3]) > card.PURCHASE_CENTS_MAX:
        return f"amount_cents must be a whole number from 0 to {card.PURCHASE_CENTS_MAX}"
    return None


def day_of(text: str) -> date | None:
    """The date that a text is; None if it is none."""
    try:
        return date.fromisoformat(text) if DATE.fullmatch(text) else None
    except ValueError:
        return None


async def import_purchases(ledger: Ledger, path: Path, store_code: str) -> Summary:
    """Enrols who is new and earns each purchase at its own date, with a progress bar."""
    merchant_id, store = await store_by_code(ledger, store_code)
    zone = ZoneInfo(store.time_zone)
    total = refuse_bad_lines(path, ledger.clock.now().astimezone(zone).date())
    importer = Importer(ledger, operator_at(merchant_id, store), zone)
    await take_in_chunks(f"Importing {path.name}", total, purchases_in(path, store.id), LINES_AT_ONCE, importer.take)
    return importer.summary


class Importer:
    """Takes purchases a chunk at a time, the new ones of a chunk at once."""

    def __init__(self, ledger: Ledger, caller: Caller, zone: ZoneInfo) -> None:
        self.summary = Summary()
        self._ledger = ledger
        self._caller = caller
        self._zone = zone
        self._cards: dict[str, UUID] = {}
        self._refused: dict[str, str] = {}

    async def take(self, chunk: list[Purchase]) -> None:
        """Enrols and earns what the ledger does not have yet."""
        known = await self._ledger.replays.used_keys([purchase.key for purchase in chunk], self._caller)
        new = [purchase for purchase in chunk if purchase.key not in known]
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
        try:
            handled = await self._ledger.handle(
                EnrolCard(customer_id=purchase.customer_id), self._caller, occurred_at=self._noon(purchase.day)
            )
        except Rejected as refusal:
            self._refused[purchase.customer_id] = refusal.code
            return
        assert handled.result is not None, "a command without a key is never a replay"
        self._cards[purchase.customer_id] = handled.result.main.stream
        self.summary.cards += handled.created

    async def _earn(self, purchase: Purchase) -> None:
        if purchase.customer_id not in self._cards:
            self.summary.refused[self._refused[purchase.customer_id]] += 1
            return
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
        noon = datetime.combine(day, NOON, self._zone).astimezone(UTC)
        return min(noon, self._ledger.clock.now())
