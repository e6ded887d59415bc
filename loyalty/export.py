"""`loyalty export events`: the log as JSON Lines in the order of positions, to go on with wherever it ended."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple
from uuid import UUID

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ledger.store.codec import hash_of
from ledger.store.log import Log
from ledger.store.names import MERCHANT
from projections.audit.lines import texts


class Exported(msgspec.Struct, frozen=True):
    """What of a line says where to go on after it."""

    position: int
    merchant_id: UUID
    hash: str


class Begun(NamedTuple):
    """What a file holds already: its first and last whole line, how many there are, and how many bytes they take."""

    first: Exported
    last: Exported
    lines: int
    size_bytes: int


_lines = msgspec.json.Decoder(Exported)


async def export_events(log: Log, merchant: UUID | None, after: int, output: Path | None) -> int:
    """Writes the events past a position, of one merchant or of all, to a file or to standard output; how many.

    A file that an earlier export left is continued after its last whole line.
    """
    if merchant is not None and await log.load(MERCHANT, merchant) is None:
        raise click.ClickException(f"There is no merchant {merchant}.")
    if output is None:
        try:
            return await written(log, merchant, after, sys.stdout.buffer)
        except BrokenPipeError:
            # Whoever read has seen enough. What is still buffered must not be tried again when the process ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
    try:
        with opened(output) as file:
            begun = begun_in(file, output)
            if begun is not None:
                await refuse_another_log(log, merchant, after, begun, output)
                after = begun.last.position
            size_bytes = begun.size_bytes if begun is not None else 0
            file.truncate(size_bytes)
            file.seek(size_bytes)
            count = await written(log, merchant, after, file)
            os.fsync(file.fileno())
            return count
    except OSError as error:
        raise click.ClickException(
            f"{output} cannot be written: {error.strerror}. The same command goes on where it ended."
        ) from None


async def written(log: Log, merchant: UUID | None, after: int, file: BinaryIO) -> int:
    """Writes everything past a position up to the log's end of now, and shows on standard error how far it is."""
    head = await log.head()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    count = 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        # Positions have no gaps, so that they tell how far it is even where only one merchant's events are written.
        task = progress.add_task("Exporting events", total=max(head - after, 0))
        async for events, position, text in texts(log, merchant, after, head):
            file.write(text)
            count += events
            progress.update(task, completed=position - after)
        file.flush()
        progress.update(task, completed=max(head - after, 0))
    return count


@contextmanager
def opened(output: Path) -> Iterator[BinaryIO]:
    """The file, made if it is not there, for this export alone."""
    with open(os.open(output, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(f"Another export is writing {output}.") from None
        yield file


def begun_in(file: BinaryIO, output: Path) -> Begun | None:
    """What whole lines a file holds; None where it holds none."""
    first = last = b""
    lines = size_bytes = 0
    for line in file:
        if line.endswith(b"\n"):
            first, last = first or line, line
            lines += 1
            size_bytes += len(line)
    if not lines:
        return None
    try:
        return Begun(_lines.decode(first), _lines.decode(last), lines, size_bytes)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise click.ClickException(f"{output} is no export of events, and stays as it is.") from None


async def refuse_another_log(log: Log, merchant: UUID | None, after: int, begun: Begun, output: Path) -> None:
    """Ends the command with a message where going on would leave a file that is of two logs, or has a gap."""
    first, last = begun.first, begun.last
    stored = await log.records.at(last.position)
    if stored is None or hash_of(stored) != last.hash:
        raise click.ClickException(
            f"{output} is of another log: at position {last.position} it has another event. Give another file."
        )
    if after > last.position:
        raise click.UsageError(f"{output} ends at position {last.position}; from there to {after} would be missing.")
    of_all = last.position - first.position + 1 == begun.lines
    if (merchant is None and not of_all) or (merchant is not None and last.merchant_id != merchant):
        raise click.ClickException(f"{output} was exported with another --merchant. Give another file.")
