"""Imports customers and their balances from another system, each once however often it is run."""

import asyncio
import csv
import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo

import click
import msgspec
from msgspec import Meta

from api.problems import KINDS
from ledger import card
from ledger.actor import Caller
from ledger.card_plans import luhn_digit
from ledger.commands import ImportCard
from ledger.entry import Result
from ledger.errors import Rejected
from ledger.handle import Ledger
from ledger.lots import LotName
from loyalty.importing import FIRST_YEAR, operator_at, store_by_code, take_in_chunks
from loyalty.records import BadLine, Format, Record, count_lines, records_in, shown
from schemas.kinds import PRINTABLE, CardNumber, Email, Instant, Locale, Name, Phone, Reference

QR_CHARACTERS_MIN, QR_CHARACTERS_MAX = 16, 128
Unguessable = Annotated[str, Meta(min_length=QR_CHARACTERS_MIN, max_length=QR_CHARACTERS_MAX, pattern=PRINTABLE)]
DIGEST_BYTES = 16
NO_TIME = "none"
LINES_AT_ONCE = 128
"""Fewer than purchases: whoever has a card already costs five questions more, and the last waits for the first."""
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
WHOLE = re.compile(r"[0-9]{1,10}")
FIELD_AT_FAULT = re.compile(r"`\$\.(\w+)`")
REPORT_COLUMNS = ("line", "field", "code", "reason")


class ImportedCard(msgspec.Struct, frozen=True, kw_only=True):
    """A customer as another system had them."""

    customer_id: Reference
    card_number: CardNumber | None = None
    qr_code: Unguessable | None = None
    name: Name | None = None
    email: Email | None = None
    phone: Phone | None = None
    locale: Locale | None = None
    points: Annotated[int, Meta(ge=0, le=card.POINTS_MAX)] = 0
    stamps: Annotated[int, Meta(ge=0, le=card.STAMPS_MAX)] = 0
    enrolled_at: Instant | None = None
    last_activity_at: Instant | None = None
    points_expire_at: Instant | None = None


COLUMNS = ImportedCard.__struct_fields__
TIMES = ("enrolled_at", "last_activity_at", "points_expire_at")
NUMBERS = ("points", "stamps")
NAMES = ("customer_id", "card_number", "qr_code")
"""What two lines cannot have alike."""

WANTED = {
    "customer_id": "1 to 64 characters on one line",
    "card_number": "12 digits",
    "qr_code": f"{QR_CHARACTERS_MIN} to {QR_CHARACTERS_MAX} characters on one line",
    "name": "1 to 100 characters on one line",
    "email": "an e-mail address",
    "phone": "a telephone number of 3 to 32 characters",
    "locale": "a locale like en or fr-LU",
    "points": f"a whole number from 0 to {card.POINTS_MAX}",
    "stamps": f"a whole number from 0 to {card.STAMPS_MAX}",
    **dict.fromkeys(TIMES, f"a date from {FIRST_YEAR} on, or an ISO 8601 time with its zone"),
}
AT_FAULT = {
    "card_number_taken": "card_number",
    "qr_code_taken": "qr_code",
    "points_not_offered": "points",
    "stamps_not_offered": "stamps",
    "expired_already": "points_expire_at",
    "expiry_date_not_used": "points_expire_at",
    "card_not_active": "customer_id",
}
OTHER_VALUES = "This customer came from this source before, with other values."


class CardLine(NamedTuple):
    """A good line: what is asked of the ledger, under a key that is the same whenever the line is read."""

    line: int
    command: ImportCard
    key: str


@dataclass
class Summary:
    """What an import came to, or would come to."""

    imported: int = 0
    points: int = 0
    ended: int = 0
    stamps: int = 0
    onto_known_cards: int = 0
    known: int = 0
    bad: int = 0


@dataclass(frozen=True, kw_only=True)
class CardFile:
    """A file, and what it says of itself or somebody says of it."""

    path: Path
    format: Format
    source: str
    zone: ZoneInfo = field(default=ZoneInfo("UTC"))


# ---- lines ----------------------------------------------------------------------------------------------------


def cards_in(file: CardFile, now: datetime) -> Iterator[CardLine | BadLine]:
    """The file's lines, good and bad; of two that name the same customer, number or QR code, the first is good."""
    with closing(NamesSoFar()) as names:
        for record in records_in(file.path, file.format, COLUMNS):
            found = record if isinstance(record, BadLine) else card_line(record, file, now)
            repeated = names.take(found) if isinstance(found, CardLine) else None
            yield repeated or found


def card_line(record: Record, file: CardFile, now: datetime) -> CardLine | BadLine:
    """A record as a command, or what is wrong with it by itself."""
    unknown = [shown(name) for name in record.values if name not in COLUMNS]
    if unknown:
        return BadLine(record.line, "", "unknown_field", f"Unknown: {', '.join(unknown)}.")
    values = {name: plain(name, value, file.zone) for name, value in record.values.items()}
    values = {name: value for name, value in values.items() if value != ""}
    if "customer_id" not in values:
        return BadLine(record.line, "customer_id", "missing_field", "Every customer has one.")
    try:
        imported = msgspec.convert(values, ImportedCard)
    except msgspec.ValidationError as error:
        found = FIELD_AT_FAULT.search(str(error))
        assert found is not None, "only a field can be at fault"
        return BadLine(record.line, found[1], "invalid_field", f"It must be {WANTED[found[1]]}.")
    wrong = what_is_wrong(imported, now)
    if wrong is not None:
        return BadLine(record.line, *wrong)
    key = hashlib.sha256(msgspec.json.encode([file.source, imported.customer_id])).hexdigest()
    command = ImportCard(source=file.source, **msgspec.structs.asdict(imported))
    return CardLine(record.line, command, f"import-card-{key}")


def plain(name: str, value: Any, zone: ZoneInfo) -> Any:
    """A value without the space around it, and where it is a text that tells a number or a time, as that."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if name in NUMBERS and WHOLE.fullmatch(text):
        return int(text)
    if name in TIMES:
        return instant(text, zone) if text else text
    return text


def instant(text: str, zone: ZoneInfo) -> datetime | str:
    """The instant in UTC that a text tells, a date being its first one in the zone; or a text that tells none."""
    try:
        when = datetime.fromisoformat(text)
        if DATE.fullmatch(text):
            when = when.replace(tzinfo=zone)
        return when.astimezone(UTC) if when.tzinfo is not None and when.year >= FIRST_YEAR else NO_TIME
    except (ValueError, OverflowError):
        return NO_TIME


def what_is_wrong(imported: ImportedCard, now: datetime) -> tuple[str, str, str] | None:
    """The field, code and reason for which values that are good each by itself make no card; None if they do."""
    number, joined, active = imported.card_number, imported.enrolled_at, imported.last_activity_at
    if number is not None and luhn_digit(number[:-1]) != number[-1]:
        return "card_number", "check_digit", "The last digit does not follow from the others (Luhn)."
    for name, when in (("enrolled_at", joined), ("last_activity_at", active)):
        if when is not None and when > now:
            return name, "in_the_future", "That is still to come."
    if joined is not None and active is not None and active < joined:
        return "last_activity_at", "before_enrolment", "That was before enrolled_at."
    return None


class NamesSoFar:
    """Which customers, numbers and QR codes there were in a file, on the disk, so that it may be of any length.

    They are kept as keyed digests: what is left of a temporary file tells nobody's name.
    """

    def __init__(self) -> None:
        # A database without a name is in a file that is gone when it is closed, or when the process ends.
        self._database = sqlite3.connect("")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE names (digest BLOB PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        self._key = os.urandom(DIGEST_BYTES)

    def close(self) -> None:
        """Lets the file go."""
        self._database.close()

    def take(self, line: CardLine) -> BadLine | None:
        """Notes the names in a line; or, noting none, what is wrong with it if an earlier one had one of them."""
        names = {kind: name for kind in NAMES if (name := getattr(line.command, kind)) is not None}
        digests = {kind: self._digest(kind, name) for kind, name in names.items()}
        for kind, digest in digests.items():
            first = self._database.execute("SELECT line FROM names WHERE digest = ?", (digest,)).fetchone()
            if first is not None:
                return BadLine(line.line, kind, "repeated", f"Line {first[0]} has the same.")
        noted = [(digest, line.line) for digest in digests.values()]
        self._database.executemany("INSERT INTO names VALUES (?, ?)", noted)
        return None

    def _digest(self, kind: str, name: str) -> bytes:
        return hashlib.blake2b(f"{kind} {name}".encode(), digest_size=DIGEST_BYTES, key=self._key).digest()


# ---- reports --------------------------------------------------------------------------------------------------


Tell = Callable[[BadLine], None]


def tell_on_screen(bad: BadLine) -> None:
    """Says what is wrong with a line to whoever looks on."""
    where = f"{bad.field}: " if bad.field else ""
    click.echo(f"line {bad.line}: {where}{bad.reason} ({bad.code})", err=True)


def teller(report: Path | None, open_files: ExitStack) -> Tell:
    """What takes note of bad lines: in the file if there is to be one."""
    if report is None:
        return tell_on_screen
    try:
        file = open_files.enter_context(report.open("w", newline="", encoding="utf-8"))
    except OSError as error:
        raise click.ClickException(f"Cannot write {report}: {error.strerror}.") from None
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(REPORT_COLUMNS)
    return writer.writerow


# ---- into the ledger ------------------------------------------------------------------------------------------


async def import_cards(
    ledger: Ledger,
    path: Path,
    store_code: str,
    *,
    file_format: Format,
    source: str,
    report: Path | None = None,
    dry_run: bool = False,
) -> Summary:
    """Imports the good lines of a file and tells of the bad ones, with a progress bar."""
    merchant_id, store = await store_by_code(ledger, store_code)
    file = CardFile(path=path, format=file_format, source=source, zone=ZoneInfo(store.time_zone))
    title = f"{'Checking' if dry_run else 'Importing'} {path.name}"
    with ExitStack() as open_files:
        lines = cards_in(file, ledger.clock.now())
        importer = Importer(ledger, operator_at(merchant_id, store), teller(report, open_files), dry_run=dry_run)
        await take_in_chunks(title, count_lines(path), lines, LINES_AT_ONCE, importer.take)
    return importer.summary


class Importer:
    """Takes lines a chunk at a time, the new ones of a chunk at once."""

    def __init__(self, ledger: Ledger, caller: Caller, tell: Tell, *, dry_run: bool) -> None:
        self.summary = Summary()
        self._ledger = ledger
        self._caller = caller
        self._tell = tell
        self._dry_run = dry_run

    async def take(self, chunk: list[CardLine | BadLine]) -> None:
        """Imports what the ledger does not have yet, or only finds out what would come of it."""
        bad = [line for line in chunk if isinstance(line, BadLine)]
        good = [line for line in chunk if isinstance(line, CardLine)]
        used = await self._ledger.replays.used_keys([line.key for line in good], self._caller)
        new = [line for line in good if line.key not in used]
        for line in good:
            if line.key in used and used[line.key] == self._ledger.digest(line.command, self._caller):
                self.summary.known += 1
            elif line.key in used:
                bad.append(refused(line.line, Rejected("idempotency_key_reused")))
        outcomes = await self._rehearsed(new) if self._dry_run else await self._recorded(new)
        for line, outcome in zip(new, outcomes, strict=True):
            if isinstance(outcome, Rejected):
                bad.append(refused(line.line, outcome))
            else:
                self._count(line.command, outcome)
        self.summary.bad += len(bad)
        for each in sorted(bad):
            self._tell(each)

    def _count(self, command: ImportCard, result: Result | None) -> None:
        """One card more; without a result somebody else imported it a moment ago."""
        if result is None:
            self.summary.known += 1
            return
        self.summary.imported += 1
        self.summary.points += command.points
        self.summary.ended += ended_of(result, self._ledger.clock.now())
        self.summary.stamps += command.stamps
        self.summary.onto_known_cards += not result.created

    async def _rehearsed(self, lines: list[CardLine]) -> list[Result | Rejected]:
        return await self._ledger.previews.rehearse([line.command for line in lines], self._caller)

    async def _recorded(self, lines: list[CardLine]) -> list[Result | Rejected | None]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._record(line)) for line in lines]
        return [task.result() for task in tasks]

    async def _record(self, line: CardLine) -> Result | Rejected | None:
        try:
            handled = await self._ledger.handle(line.command, self._caller, key=line.key)
        except Rejected as refusal:
            return refusal
        if handled.result is not None:
            # Nobody asks for a customer twice here, so that remembering them all would only take memory.
            state = handled.result.main.state
            self._ledger.log.forget([state.id, state.customer])
            self._ledger.log.keyring.forget(state.customer)
        return handled.result


def ended_of(result: Result, now: datetime) -> int:
    """How many of the points that an import brought the program's expiry had ended before they came."""
    ((version, event),) = (made for made in result.events if isinstance(made[1], card.BalanceImported))
    before = result.main.state
    after = card.standing(before, result.facts.program, now)
    # What a card had here may have ended as well, and is not what the file brought.
    lot = event.joins or LotName(version)
    return int(min(event.points, points_in(before, lot) - points_in(after, lot)))


def points_in(holder: card.Card, lot: LotName) -> int:
    """What a card has in a lot."""
    return sum(each.points for each in holder.lots if each.name == lot)


def refused(line: int, refusal: Rejected) -> BadLine:
    """A line that the ledger does not take."""
    code = refusal.code
    reason = OTHER_VALUES if code == "idempotency_key_reused" else KINDS[code].meaning
    return BadLine(line, AT_FAULT.get(code, ""), code, reason)
