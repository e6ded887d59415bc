"""What a read model makes of the same events stays the same as long as its version does."""

from dataclasses import replace

import pytest

from projections import programs
from projections import rebuild as rebuild_module
from projections.models import MODELS
from projections.read_model import Batch, Connection, Memory
from tests import checksums
from tests.projections import golden

OF_BATCHES = (1, 20_000)


@pytest.mark.parametrize("batch_events", OF_BATCHES, ids=["one by one", "at once"])
def test_every_model_makes_the_rows_of_its_version(
    database_url: str, monkeypatch: pytest.MonkeyPatch, batch_events: int
) -> None:
    monkeypatch.setattr(rebuild_module, "BATCH_EVENTS", batch_events)
    rows = golden.made(database_url, MODELS)
    assert [name for name in rows if not (golden.FOLDER / name).exists()] == [], "run `make generate`"
    assert golden.differing(rows) == []


def test_the_history_has_everything_that_happens_to_cards() -> None:
    topics = {line["topic"] for line in golden.lines_of(golden.FOLDER / golden.HISTORY)}
    assert set(golden.WANTED) <= topics


def test_rows_that_changed_without_a_new_version_are_noticed_and_a_new_version_is_asked_for(database_url: str) -> None:
    async def apply(batch: Batch, connection: Connection, memory: Memory) -> None:
        await programs.MODEL.apply(batch, connection, memory)
        await connection.execute("UPDATE merchants SET position = position + 1")

    changed = replace(programs.MODEL, apply=apply)
    (said,) = golden.differing(golden.made(database_url, [changed]))
    assert said.startswith(f"programs.{programs.MODEL.version}.jsonl is not what")
    assert "raise the model's version" in said


def test_a_new_version_may_have_other_rows(database_url: str) -> None:
    newer = replace(programs.MODEL, version=programs.MODEL.version + 1_000)
    assert golden.differing(golden.made(database_url, [newer])) == []


def test_no_golden_rows_were_edited() -> None:
    (listing,) = [listing for listing in checksums.listings() if listing.path.parent == golden.FOLDER]
    assert listing.broken() == []
    assert listing.unlisted() == []
    assert {golden.HISTORY, *map(golden.name_of, MODELS)} <= listing.listed().keys()
