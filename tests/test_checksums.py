"""The list of checksums grows and never changes."""

from pathlib import Path

import pytest

from tests import checksums


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0001_log.sql").write_text("create table log ();\n")
    (tmp_path / "schemas" / "examples" / "events" / "card").mkdir(parents=True)
    (tmp_path / "schemas" / "examples" / "events" / "card" / "stamp_added.1.json").write_text("{}")
    return tmp_path


def test_new_files_are_listed_once(checkout: Path) -> None:
    assert len(checksums.problems(checkout)) == 2
    assert checksums.main(["--check"], checkout) == 1
    assert checksums.main([], checkout) == 0
    assert checksums.problems(checkout) == []
    before = (checkout / "migrations" / "checksums.txt").read_text()
    (checkout / "migrations" / "0002_cards.sql").write_text("create table cards ();\n")
    assert checksums.main([], checkout) == 0
    after = (checkout / "migrations" / "checksums.txt").read_text()
    assert after.startswith(before)
    assert after.splitlines()[1].endswith("  0002_cards.sql")


@pytest.mark.parametrize("text", ["create table log (id int);\n", None])
def test_a_listed_file_stays_as_it_is(checkout: Path, text: str | None) -> None:
    assert checksums.main([], checkout) == 0
    listed = (checkout / "migrations" / "checksums.txt").read_text()
    migration = checkout / "migrations" / "0001_log.sql"
    if text is None:
        migration.unlink()
    else:
        migration.write_text(text)
    (checkout / "migrations" / "0002_cards.sql").write_text("create table cards ();\n")
    assert checksums.main([], checkout) == 1
    assert (checkout / "migrations" / "checksums.txt").read_text() == listed


def test_a_checkout_without_either_folder_is_well(tmp_path: Path) -> None:
    assert checksums.main(["--check"], tmp_path) == 0
    assert checksums.main([], tmp_path) == 0
