"""What README.md shows is what happens, on a real `loyalty up --demo`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installed import ROOT, Installation, Up, installed
from tests.readme import Ran, Step, checkout_in, is_as_shown, programs_in, run_steps, steps_in, without_volatile

README = ROOT / "README.md"

SAMPLE = """\
Text with `$ code` in it.

```
$ this is for reading
```

```console
$ WHAT=stamp
$ printf '%s\\n' \\
    "{\\"kind\\": \\"$WHAT\\"}"
{"kind": "stamp"}
$ echo one; echo two
one
two
```

```python
print("a program")
```

```sh
this is for reading too
```

```console
$ echo $WHAT > written
$ cat written
stamp
```
"""
CARD = {
    "transaction_id": "01a20425-605d-72fc-8be1-989abf465274-2",
    "points": 250,
    "card": {"card_number": "805873397337", "qr_code": "6b29868227f1838b90707a5d2feaef7c", "next_expiry": None},
    "at": "2026-11-22T16:44:47.665418Z",
    "type": "http://127.0.0.1:8000/problems/x",
}
SAME_CARD = {
    "type": "http://127.0.0.1:54321/problems/x",
    "transaction_id": "01a20999-605d-72fc-8be1-989abf465275-2",
    "points": 250,
    "card": {"card_number": "111111111117", "qr_code": "ab29868227f1838b90707a5d2feaef7c", "next_expiry": None},
    "at": "2027-01-01T00:00:00Z",
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return checkout_in(tmp_path)


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Installation, Up]]:
    with installed() as installation, installation.up("--demo") as up:
        yield installation, up


# ---- how a page is read -------------------------------------------------------------------------------------------


def test_commands_are_found_with_their_answers() -> None:
    assert steps_in(SAMPLE) == [
        Step("WHAT=stamp", ""),
        Step('printf \'%s\\n\' \\\n    "{\\"kind\\": \\"$WHAT\\"}"', '{"kind": "stamp"}'),
        Step("echo one; echo two", "one\ntwo"),
        Step("echo $WHAT > written", ""),
        Step("cat written", "stamp"),
    ]
    assert programs_in(SAMPLE) == ['print("a program")\n']
    with pytest.raises(ValueError, match="without a command"):
        steps_in("```console\nan answer\n```\n")


def test_commands_run_in_one_shell_in_a_checkout_that_they_may_write_to(place: Path) -> None:
    done = run_steps(steps_in(SAMPLE), place, dict(os.environ))
    assert [is_as_shown(ran) for ran in done] == [True] * 5
    assert not (ROOT / "written").exists()
    assert (place / "README.md").samefile(README)


@pytest.mark.parametrize(
    ("command", "shown"),
    [("echo one", "two"), ("false", ""), ("echo one", "one\ntwo"), ("no-such-program", "")],
    ids=["another answer", "a failure", "a shorter answer", "no program"],
)
def test_what_is_not_as_shown_is_noticed(place: Path, command: str, shown: str) -> None:
    (ran,) = run_steps([Step(command, shown)], place, dict(os.environ))
    assert not is_as_shown(ran)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"points": 251}, False),
        ({"transaction_id": "01a20999-605d-72fc-8be1-989abf465275-3"}, False),
        ({"more": None}, False),
        ({"at": None}, False),
        ({"type": "http://127.0.0.1:54321/problems/y"}, False),
        ({"card": {"card_number": "111111111117", "qr_code": None, "next_expiry": None}}, False),
    ],
    ids=["the same", "a value", "a version", "a key more", "no time", "an address", "no token"],
)
def test_answers_are_the_same_but_for_what_is_new_each_time(change: dict[str, object], same: bool) -> None:
    answer = json.dumps(SAME_CARD | change, indent=2)
    assert is_as_shown(Ran(Step("", json.dumps(CARD)), 0, answer)) is same


def test_only_what_is_new_each_time_is_passed_over() -> None:
    assert without_volatile("ORD-12345 2500 2026-01-02 250 C-1") == "ORD-12345 2500 2026-01-02 250 C-1"
    assert without_volatile("lt_01ab_23cd eyJh.b-c.d_e") == "<terminal key> <token>"


# ---- README.md ----------------------------------------------------------------------------------------------------


def test_readme_begins_with_make_run_and_shows_commands() -> None:
    page = README.read_text(encoding="utf-8")
    assert "make run" in page.split("```console")[0]
    assert [step for step in steps_in(page) if step.shown]


@pytest.mark.slow
def test_what_readme_shows_is_what_happens(shop: tuple[Installation, Up], place: Path) -> None:
    page = README.read_text(encoding="utf-8")
    done = run_steps(steps_in(page), place, shop[0].environment({}))
    assert done
    for ran in done:
        assert is_as_shown(ran), (
            f"\n$ {ran.step.command}\nexit code {ran.code}\nshown: {ran.step.shown}\nreal:  {ran.answer}"
        )


@pytest.mark.slow
def test_the_programs_of_readme_run(shop: tuple[Installation, Up], place: Path) -> None:
    installation, up = shop
    variables = {name.upper(): value for name, value in up.demo.items()}
    for program in programs_in(README.read_text(encoding="utf-8")):
        ran = subprocess.run(
            [sys.executable, "-c", program],
            cwd=place,
            env=installation.environment({}) | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
