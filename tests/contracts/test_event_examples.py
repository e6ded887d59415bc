"""What was stored once is read for ever: examples of every event in every version, checked in and never edited."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.store.codec import decode, encode
from ledger.store.names import CURRENT, STORED
from tests import checksums, examples
from tests.examples import EXAMPLES, FOLDER

FILES = sorted(FOLDER.glob("*"))


def test_every_event_has_an_example_of_each_of_its_versions() -> None:
    wanted = {f"{name}.{version}.json" for name, newest in STORED.values() for version in range(1, newest + 1)}
    assert {path.name for path in FILES} == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_read_and_stored_again_as_it_is(path: Path) -> None:
    stored = examples.read(path)
    envelope = json.loads(stored)
    assert path.name == f"{envelope['name']}.{envelope['event_version']}.json"
    key = examples.key_with(base64.b64decode(envelope["sealed"])) if "sealed" in envelope else None
    read = decode(stored, key)
    assert type(read.event) is CURRENT[envelope["name"]][0]
    topic, again = encode(read.event, read.at, read.previous_hash, key, read.origin)
    if topic == path.stem:
        assert again == stored
    else:
        lifted = decode(again, key)
        assert (lifted.event, lifted.at, lifted.origin) == (read.event, read.at, read.origin)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: STORED[type(event)][0])
def test_an_example_tells_what_the_event_told(event: msgspec.Struct) -> None:
    name, stored = examples.example(event)
    envelope = json.loads(stored)
    key = examples.key_with(b"") if "sealed" in envelope else None
    assert decode(examples.read(FOLDER / name), key).event == event
    assert not has_gaps(event)


def has_gaps(value: Any) -> bool:
    """Whether a struct leaves a field empty, at any depth."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        return any(has_gaps(getattr(value, field.name)) for field in fields)
    if isinstance(value, tuple):
        return not value or any(map(has_gaps, value))
    return value is None or value == ""


def test_no_example_was_edited() -> None:
    (listing,) = [listing for listing in checksums.listings() if listing.path.parent == FOLDER.parent]
    assert listing.broken() == []
    assert listing.unlisted() == []
    assert len(listing.listed()) == len(FILES)


def test_missing_examples_are_written_and_those_that_are_there_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examples.main([], tmp_path) == 0
    assert {path.name for path in tmp_path.iterdir()} == {examples.example(event)[0] for event in EXAMPLES}
    older = tmp_path / "stamp_added.0.json"
    older.write_text("of another time")
    (tmp_path / "stamp_added.1.json").unlink()
    capsys.readouterr()
    assert examples.main([], tmp_path) == 0
    assert capsys.readouterr().out == "wrote stamp_added.1.json\n"
    assert older.read_text() == "of another time"


def test_an_example_that_is_stored_otherwise_today_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert examples.main([], tmp_path) == 0
    changed = tmp_path / "stamp_added.1.json"
    changed.write_text("another shape")
    (tmp_path / "card_enrolled.1.json").unlink()
    assert examples.main([], tmp_path) == 1
    assert "stamp_added.1.json" in capsys.readouterr().err
    assert changed.read_text() == "another shape"
    assert not (tmp_path / "card_enrolled.1.json").exists()
