"""How files of records are read: whatever is in them, line by line, with the good told from the bad."""

import contextlib
import tempfile
import tracemalloc
from itertools import islice
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loyalty.records import LINE_CHARACTERS_MAX, BadLine, Format, Record, count_lines, format_of, records_in

COLUMNS = ["name", "town"]
ANN, BOB = Record(2, {"name": "Ann", "town": "Wiltz"}), Record(3, {"name": "Bob", "town": "Mersch"})
PLAIN = b"name,town\nAnn,Wiltz\nBob,Mersch\n"


def read(tmp_path: Path, content: bytes, name: str = "people.csv") -> list[Record | BadLine]:
    path = tmp_path / name
    path.write_bytes(content)
    return list(records_in(path, format_of(path), COLUMNS))


def told(found: list[Record | BadLine]) -> list[tuple[int, str]]:
    """The number of each record, and what it says or is wrong with it."""
    return [(each.line, each.code if isinstance(each, BadLine) else str(each.values.get("name"))) for each in found]


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b",", b";"),
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        PLAIN.rstrip(b"\n"),
        b'name,"town"\n"Ann","Wiltz"\nBob,"Mersch"\n',
        PLAIN + b"\n,\n  ,  \n\n",
        b"town,name\nWiltz,Ann\nMersch,Bob\n",
        b" name , town \nAnn,Wiltz\nBob,Mersch\n",
    ],
    ids=[
        *("plain", "a byte order mark", "semicolons", "Windows", "old Macintosh", "no last line end", "quoted"),
        *("blank lines", "another order", "spaces in the header"),
    ],
)
def test_a_csv_file_is_read_however_it_was_saved(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == [ANN, BOB]


def test_a_json_lines_file_is_read(tmp_path: Path) -> None:
    lines = b'{"name": "Ann", "town": "Wiltz"}\n\n{"town": null, "name": "Bob"}'
    assert read(tmp_path, lines, "people.jsonl") == [
        Record(1, {"name": "Ann", "town": "Wiltz"}),
        Record(3, {"name": "Bob"}),
    ]


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b"7", b"Ann", b"NaN", b'{"name": "\\ud800"}', b"[" * 10_000, b'{"a": ' * 2_000, b"1" * 9_000]
)
def test_what_is_no_json_object_is_a_bad_line(tmp_path: Path, line: bytes) -> None:
    found = read(tmp_path, b'{"name": "Ann"}\n' + line + b'\n{"name": "Bob"}\n', "people.jsonl")
    assert told(found) == [(1, "Ann"), (2, "invalid_json"), (3, "Bob")]


@pytest.mark.parametrize("name", ["people.csv", "people.jsonl"])
@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"M\xfcller,Wiltz", "not_utf8"),
        (b"\xed\xa0\x80,Wiltz", "not_utf8"),
        (b"Ann\0,Wiltz", "nul_byte"),
        (b"x" * (LINE_CHARACTERS_MAX + 1), "line_too_long"),
        (b"x" * (3 * LINE_CHARACTERS_MAX), "line_too_long"),
    ],
    ids=["Latin-1", "half a character", "a NUL byte", "just too long", "far too long"],
)
def test_a_line_that_is_no_text_does_not_end_the_file(tmp_path: Path, name: str, line: bytes, code: str) -> None:
    before, after = b"name,town\n", b"Bob,Mersch"
    if name.endswith("jsonl"):
        before, after = b'{"name": "Ann"}\n', b'{"name": "Bob"}'
    found = read(tmp_path, before + line + b"\n" + after, name)
    assert told(found)[-2:] == [(2, code), (3, "Bob")]


def test_a_quotation_that_is_closed_in_a_later_line_swallows_none_between(tmp_path: Path) -> None:
    content = b'name,town\n"Ann,Wiltz\nBob,Mersch\nCleo,Wiltz"\n"Dora\nMarie",Mersch\n'
    assert told(read(tmp_path, content)) == [
        *((2, "invalid_csv"), (3, "Bob"), (4, "Cleo")),
        *((5, "invalid_csv"), (6, 'Marie"')),
    ]


@pytest.mark.parametrize(
    "broken",
    ['"Ann,Wiltz', 'Ann,"Wiltz', '"Ann"a,Wiltz', '"Ann" ,Wiltz', '"'],
    ids=["at the start", "at the end", "after it", "a space", "alone"],
)
@pytest.mark.parametrize("following", [1, 5, 3_000])
def test_a_broken_quotation_spoils_its_own_line_only(tmp_path: Path, broken: str, following: int) -> None:
    lines = ["name,town", broken, *(f"Bob,{number}" for number in range(following)), '"Cleo","Mersch"']
    assert told(read(tmp_path, "\n".join(lines).encode())) == [
        (2, "invalid_csv"),
        *((3 + number, "Bob") for number in range(following)),
        (3 + following, "Cleo"),
    ]


def test_a_quotation_ends_at_a_line_that_is_no_text(tmp_path: Path) -> None:
    content = b'name,town\n"Ann,Wiltz\nBob,\xff\nCleo,"\nDora,\n'
    assert told(read(tmp_path, content)) == [(2, "invalid_csv"), (3, "not_utf8"), (4, "invalid_csv"), (5, "Dora")]


@given(st.lists(st.text(alphabet='a,"; ', max_size=8), max_size=12))
def test_every_line_that_is_not_blank_is_told_by_itself(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        alone = [read(Path(folder), f"name,town\n{text}".encode()) for text in texts]
        together = read(Path(folder), "\n".join(["name,town", *texts]).encode())
    wanted = [one._replace(line=number) for number, found in enumerate(alone, start=2) for one in found]
    assert together == wanted
    assert all(found for found, text in zip(alone, texts, strict=True) if text.strip('," '))


@pytest.mark.parametrize(
    "content", [b"x" * 20_000_000, b'name,town\n"' + b"x\n" * 5_000_000], ids=["a line", "a quote"]
)
def test_no_file_is_read_whole(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "endless.csv"
    path.write_bytes(content)
    del content
    tracemalloc.start()
    try:
        first_records(path)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def first_records(path: Path) -> list[Record | BadLine]:
    with contextlib.suppress(click.ClickException):
        return list(islice(records_in(path, Format.CSV, COLUMNS), 10))
    return []


@pytest.mark.parametrize(("content", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2)])
def test_lines_are_counted_with_the_last(tmp_path: Path, content: bytes, lines: int) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)
    assert count_lines(path) == lines
