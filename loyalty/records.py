"""Reads the records of a CSV or JSON Lines file one by one; what is no record is told apart and passed over.

No file is read whole, whatever is in it: lines and records are bounded.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, NamedTuple

import click
import msgspec

RECORD_CHARACTERS_MAX = 16_384
BLOCK_BYTES = 1_048_576
SHOWN_CHARACTERS_MAX = 40
BROKEN_QUOTES = "A quotation mark is missing, or stands where none may."
NOT_UTF8 = "This is not text in UTF-8."
TOO_LONG = f"A line has at most {RECORD_CHARACTERS_MAX} characters."


class Format(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSON_LINES = "jsonl"


ENDINGS = {".csv": Format.CSV, ".jsonl": Format.JSON_LINES, ".ndjson": Format.JSON_LINES}


class Record(NamedTuple):
    """What a record says, and the number of the line where it begins."""

    line: int
    values: dict[str, Any]


class BadLine(NamedTuple):
    """Why there is nothing to take from a record; `field` is empty where no single one is to blame."""

    line: int
    field: str
    code: str
    reason: str


class Line(NamedTuple):
    """A line of text with its end, as far as the file has one."""

    number: int
    text: str


def format_of(path: Path) -> Format:
    """The format that a file's name tells; raises UsageError where it tells none."""
    known = ENDINGS.get(path.suffix.lower())
    if known is None:
        raise click.UsageError(f"{path.name} ends in none of {', '.join(ENDINGS)}: say which it is with --format.")
    return known


def records_in(path: Path, file_format: Format, columns: Sequence[str]) -> Iterator[Record | BadLine]:
    """The records of a file, in order; blank lines are passed over.

    Raises ClickException where the file is of no use at all.
    """
    # Bytes that are no UTF-8 come as what no UTF-8 can be, so that one bad line does not end the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = lines_of(file)
        if file_format is Format.JSON_LINES:
            yield from json_records(lines)
            return
        first = next(lines, None)
        delimiter = ";" if isinstance(first, Line) and ";" in first.text else ","
        header = header_of(first, delimiter, columns)
        for found in csv_rows(lines, delimiter):
            if isinstance(found, BadLine):
                yield found
            elif any(cell.strip() for cell in found[1]):
                yield as_record(header, *found)


def count_lines(path: Path) -> int:
    """How many lines a file has; one that is not ended counts."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            count, last = count + block.count(b"\n"), block[-1:]
    return count + (last != b"\n")


def lines_of(file: IO[str]) -> Iterator[Line | BadLine]:
    """The lines of a file with their numbers, whatever ends them."""
    number = 0
    while text := file.readline(RECORD_CHARACTERS_MAX + 1):
        number += 1
        if len(text) > RECORD_CHARACTERS_MAX and not text.endswith("\n"):
            while (more := file.readline(RECORD_CHARACTERS_MAX)) and not more.endswith("\n"):
                pass
            yield BadLine(number, "", "line_too_long", TOO_LONG)
        elif "\0" in text:
            yield BadLine(number, "", "nul_byte", "There is a NUL byte in it.")
        elif not is_utf8(text):
            yield BadLine(number, "", "not_utf8", NOT_UTF8)
        else:
            yield Line(number, text)


def is_utf8(text: str) -> bool:
    """Whether text that was decoded with `surrogateescape` came from good UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """A name from a file, fit for a terminal."""
    cut = name if len(name) <= SHOWN_CHARACTERS_MAX else f"{name[:SHOWN_CHARACTERS_MAX]}…"
    return cut if cut.isprintable() else ascii(cut)


# ---- CSV ------------------------------------------------------------------------------------------------------


def header_of(first: Line | BadLine | None, delimiter: str, columns: Sequence[str]) -> list[str]:
    """The names in the first line; raises ClickException unless all are known, and the first known one is there."""
    if first is None:
        raise click.ClickException("Nothing was imported: the file is empty, without even a line of column names.")
    found = first if isinstance(first, BadLine) else next(csv_rows(iter([first]), delimiter))
    if isinstance(found, BadLine):
        raise click.ClickException(f"Nothing was imported. The first line must name the columns. {found.reason}")
    header = [name.strip() for name in found[1]]
    unknown = [shown(name) for name in header if name not in columns]
    if unknown:
        raise click.ClickException(
            f"Nothing was imported. Unknown columns: {', '.join(unknown)}. Known are {', '.join(columns)}."
        )
    if len(set(header)) < len(header):
        raise click.ClickException("Nothing was imported. The first line names a column twice.")
    if columns[0] not in header:
        raise click.ClickException(f"Nothing was imported. There is no column {columns[0]}.")
    return header


def csv_rows(lines: Iterable[Line | BadLine], delimiter: str) -> Iterator[tuple[int, list[str]] | BadLine]:
    """The rows with the numbers of the lines where they begin.

    A quoted cell may go over several lines. Where one is never closed, only the line that opens it is bad: those
    after it are looked at again.
    """
    following = iter(lines)
    again: deque[Line | BadLine] = deque()
    while (first := again.popleft() if again else next(following, None)) is not None:
        if isinstance(first, BadLine):
            yield first
            continue
        used: list[Line | BadLine] = []
        try:
            row = next(csv.reader(quoted_lines(first, again, following, used), delimiter=delimiter, strict=True))
        except csv.Error:
            again.extendleft(reversed(used))
            yield BadLine(first.number, "", "invalid_csv", BROKEN_QUOTES)
        else:
            yield first.number, row


def quoted_lines(
    first: Line, again: deque[Line | BadLine], following: Iterator[Line | BadLine], used: list[Line | BadLine]
) -> Iterator[str]:
    """A line and, as far as they are asked for, those after it, which are noted in `used`."""
    yield first.text
    length = len(first.text)
    while (line := again.popleft() if again else next(following, None)) is not None:
        used.append(line)
        length += len(line.text) if isinstance(line, Line) else 0
        if isinstance(line, BadLine) or length > RECORD_CHARACTERS_MAX:
            return
        yield line.text


def as_record(header: Sequence[str], line: int, row: Sequence[str]) -> Record | BadLine:
    """A row's cells under their names; an empty one says nothing."""
    if len(row) != len(header):
        return BadLine(line, "", "wrong_columns", f"There are {len(row)} columns instead of {len(header)}.")
    return Record(line, {name: cell for name, cell in zip(header, row, strict=True) if cell})


# ---- JSON Lines -----------------------------------------------------------------------------------------------


def json_records(lines: Iterable[Line | BadLine]) -> Iterator[Record | BadLine]:
    """The objects, one a line; a member that is null says nothing."""
    for line in lines:
        if isinstance(line, BadLine):
            yield line
        elif line.text.strip():
            try:
                values = msgspec.json.decode(line.text)
            except (msgspec.DecodeError, RecursionError):
                yield BadLine(line.number, "", "invalid_json", "This is not JSON.")
                continue
            if isinstance(values, dict):
                yield Record(line.number, {name: value for name, value in values.items() if value is not None})
            else:
                yield BadLine(line.number, "", "invalid_json", "This is not a JSON object.")
