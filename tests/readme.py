"""Runs what a page shows: each command of its `console` blocks in one shell, its answers held against those shown.

In a block ```` ```console ```` a line that begins with `$ ` is a command, continued after a backslash at its end, and
the lines up to the next command are its answer. A command without a shown answer only has to succeed. A block
```` ```python ```` is run as a program. Other blocks are for reading.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tests.installed import ROOT

SHELL_SECONDS_MAX = 120
BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
VOLATILE = {
    "<id>": re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"),
    "<terminal key>": re.compile(r"\blt_[0-9a-f]+_[0-9a-f]+\b"),
    "<token>": re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+|\b[0-9a-f]{24,64}\b"),
    "<time>": re.compile(r"\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|\+00:00)"),
    "<card number>": re.compile(r"(?<![\w.-])\d{12}(?![\w.-])"),
    "<address>": re.compile(r"http://(127\.0\.0\.1|localhost):\d+"),
}


class Step(NamedTuple):
    """A command, and the answer shown after it."""

    command: str
    shown: str


class Ran(NamedTuple):
    """What a command came to."""

    step: Step
    code: int
    answer: str


def steps_in(page: str) -> list[Step]:
    """The commands of a page, in order; ValueError where a block begins with an answer."""
    steps: list[Step] = []
    for block in BLOCK.finditer(page):
        if block["language"] != "console":
            continue
        command: list[str] = []
        shown: list[str] = []
        for line in block["text"].splitlines():
            if command and not shown and command[-1].endswith("\\"):
                command.append(line)
            elif line.startswith("$ "):
                steps += [Step("\n".join(command), "\n".join(shown))] if command else []
                command, shown = [line[2:]], []
            elif command:
                shown.append(line)
            else:
                raise ValueError(f"an answer without a command: {line}")
        steps += [Step("\n".join(command), "\n".join(shown))] if command else []
    return steps


def programs_in(page: str) -> list[str]:
    """The Python programs of a page."""
    return [block["text"] for block in BLOCK.finditer(page) if block["language"] == "python"]


def without_volatile(text: str) -> str:
    """The text with what is different each time replaced by what it is."""
    for name, pattern in VOLATILE.items():
        text = pattern.sub(name, text)
    return text


def comparable(text: str) -> Any:
    """JSON as what it holds, however it is laid out; other text as its lines."""
    plain = without_volatile(text)
    try:
        return json.loads(plain)
    except ValueError:
        return [line.rstrip() for line in plain.strip().splitlines()]


def is_as_shown(ran: Ran) -> bool:
    """Whether the command succeeded and answered what the page shows, if it shows anything."""
    return ran.code == 0 and (not ran.step.shown.strip() or comparable(ran.answer) == comparable(ran.step.shown))


def checkout_in(folder: Path) -> Path:
    """A folder that looks like this checkout to commands, and takes what they write; `.venv` runs this very code."""
    place = folder / "checkout"
    place.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in (".venv", ".git"):
            (place / entry.name).symlink_to(entry)
    programs = place / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, what in {"loyalty": " -m loyalty", "python": ""}.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}"{what} "$@"\n')
        program.chmod(0o755)
    return place


def run_steps(steps: list[Step], place: Path, environment: dict[str, str]) -> list[Ran]:
    """Runs the commands one after the other in one shell, since each may set what the next ones use."""
    marker = "=== end of step ==="
    script = "".join(f'{step.command}\nprintf "\\n%s %s\\n" "{marker}" "$?"\n' for step in steps)
    shell = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=SHELL_SECONDS_MAX,
        check=False,
    )
    ended = re.findall(rf"(.*?)\n{marker} (\d+)\n", shell.stdout, re.DOTALL)
    assert len(ended) == len(steps), shell.stdout
    return [Ran(step, int(code), answer) for step, (answer, code) in zip(steps, ended, strict=True)]
