"""Reads the records of a CSV or JSON Lines file one by one; what is no record is told apart and passed over.

A record is a line. No file is read whole, whatever is in it: lines are bounded.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, NamedTuple

import click
import msgspec

LINE_CHARACTERS_MAX = 16_384
BLOCK_BYTES = 1_048_576
SHOWN_CHARACTERS_MAX = 40
BROKEN_QUOTES = "A quotation mark is missing, or stands where none may."
NOT_UTF8 = "This is not text in UTF-8."
TOO_LONG = f"A line has at most {LINE_CHARACTERS_MAX} characters."


class Format(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSON_LINES = "jsonl"


ENDINGS = {".csv": Format.CSV, ".jsonl": Format.JSON_LINES, ".ndjson": Format.JSON_LINES}


class Record(NamedTuple):
    """What a record says, and the number of its line."""

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
        for line in lines:
            found = line if isinstance(line, BadLine) else csv_record(line, delimiter, header)
            if found is not None:
                yield found


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
    while text := file.readline(LINE_CHARACTERS_MAX + 1):
        number += 1
        if len(text) > LINE_CHARACTERS_MAX and not text.endswith("\n"):
            while (more := file.readline(LINE_CHARACTERS_MAX)) and not more.endswith("\n"):
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
    found = first if isinstance(first, BadLine) else cells_of(first, delimiter)
    if isinstance(found, BadLine):
        raise click.ClickException(f"Nothing was imported. The first line must name the columns. {found.reason}")
    header = [name.strip() for name in found]
    unknown = sum(name not in columns for name in header)
    if unknown:
        # They are not shown: where the line of names is missing, they are somebody's name and number.
        raise click.ClickException(
            "Nothing was imported. The first line must name the columns."
            f" It has {unknown} unknown of {len(header)}; known are {', '.join(columns)}."
        )
    if len(set(header)) < len(header):
        raise click.ClickException("Nothing was imported. The first line names a column twice.")
    if columns[0] not in header:
        raise click.ClickException(f"Nothing was imported. There is no column {columns[0]}.")
    return header


def cells_of(line: Line, delimiter: str) -> list[str] | BadLine:
    """A line's cells. None goes on in the next line, so that a missing quotation mark spoils its own line only."""
    try:
        return next(csv.reader([line.text], delimiter=delimiter, strict=True))
    except csv.Error:
        return BadLine(line.number, "", "invalid_csv", BROKEN_QUOTES)


def csv_record(line: Line, delimiter: str, header: Sequence[str]) -> Record | BadLine | None:
    """A line's cells under their names, where an empty one says nothing; None for a blank line."""
    cells = cells_of(line, delimiter)
    if isinstance(cells, BadLine):
        return cells
    if not any(cell.strip() for cell in cells):
        return None
    if len(cells) != len(header):
        reason = f"There are {len(cells)} columns instead of {len(header)}."
        return BadLine(line.number, "", "wrong_columns", reason)
    return Record(line.number, {name: cell for name, cell in zip(header, cells, strict=True) if cell})


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
