"""`loyalty export events`: every event once, whatever interrupts it, in a form that anybody can check."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.installed import LOYALTY, ROOT, Installation, Up, installed, wait_until
from tests.journeys.test_import_purchases import HEADER

pytestmark = pytest.mark.slow

PURCHASES = 4_000


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Installation, Up]]:
    """An installation with some thousands of events."""
    with installed() as place, place.up("--demo") as up:
        path = place.folder / "purchases.csv"
        lines = [f"{number % 50:03},{1997 + number // 1_000}-01-01,1,{number}" for number in range(PURCHASES)]
        path.write_text("\n".join([HEADER, *lines, ""]))
        assert place.run("import", "purchases", path, "--store", up.demo["store_code"]).returncode == 0
        refused = up.ask(
            "POST",
            "/api/v1/store/loyalty/points/redeem",
            {"card_number": up.demo["card_number"], "reward_id": "no-such-reward", "staff_pin": "1234"},
            key="refused",
        )
        assert refused.status_code == 404
        yield place, up


def stored(place: Installation) -> list[tuple[int, bytes]]:
    return [
        (position, bytes(state))
        for position, state in place.rows("SELECT notification_id, state FROM events ORDER BY notification_id")
    ]


def exported(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def export(place: Installation, *options: str | Path) -> subprocess.CompletedProcess[str]:
    ran = place.run("export", "events", *options)
    assert ran.returncode == 0, ran.stderr
    return ran


def checked(path: Path) -> subprocess.CompletedProcess[str]:
    """What the script in the documentation says of a file."""
    text = (ROOT / "docs" / "log.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    program = path.with_name("check.py")
    program.write_text(script, encoding="utf-8")
    # -I and -S: nothing but the standard library.
    command = [sys.executable, "-I", "-S", str(program), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_event_is_written_once_in_order_with_the_bytes_that_were_hashed(shop: tuple[Installation, Up]) -> None:
    place, up = shop
    ran = export(place)
    lines = exported(ran.stdout)
    assert [(line["position"], base64.b64decode(line["stored"])) for line in lines] == stored(place)
    assert "Exporting events" in ran.stderr
    assert f"{len(lines)}/{len(lines)}" in ran.stderr
    assert "command_refused" in {line["name"] for line in lines}
    token = up.sign_in(up.demo["auditor_email"], up.demo["auditor_password"]).json()["access_token"]
    path = f"/api/v1/audit/loyalty/events?format=jsonl&merchant_id={up.demo['merchant_id']}"
    answered = up.ask("GET", path, token=token)
    assert answered.text == export(place, "--merchant", up.demo["merchant_id"]).stdout
    assert exported(answered.text) == [line for line in lines if line["merchant_id"] == up.demo["merchant_id"]]


def test_a_line_is_as_documented_to_the_byte(shop: tuple[Installation, Up]) -> None:
    place, _ = shop
    lines = export(place).stdout.splitlines()
    for text, (position, state) in zip(lines, stored(place), strict=True):
        line = json.loads(text)
        assert text == json.dumps(line, separators=(",", ":"), ensure_ascii=False)
        frame = state.decode()
        for name in ("actor", "data"):
            assert f'"{name}":{json.dumps(line[name], separators=(",", ":"), ensure_ascii=False)}' in frame
        assert line["position"] == position


def test_the_documented_script_finds_an_export_good_and_any_change_in_it_bad(
    shop: tuple[Installation, Up], tmp_path: Path
) -> None:
    place, _ = shop
    path = tmp_path / "log.jsonl"
    export(place, "--output", path)
    good = checked(path)
    count = len(stored(place))
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith(f"{count} events in ")
    assert good.stdout.endswith(f"up to position {count}\n0 positions up to there are not in the file\n")

    lines = path.read_text().splitlines(keepends=True)
    chained = next(number for number, line in enumerate(lines) if json.loads(line)["version"] == 3)
    other_points = lines[chained].replace('"points_balance":', '"points_balance":1')
    place_of = (json.loads(lines[chained])["stream"], 2)
    dropped = next(
        number for number, line in enumerate(map(json.loads, lines)) if (line["stream"], line["version"]) == place_of
    )
    spoiled = {
        "something else than its stored bytes": [*lines[:chained], other_points, *lines[chained + 1 :]],
        "not after the one before": [lines[1], lines[0]],
        "does not follow": [*lines[:dropped], *lines[dropped + 1 :]],
        "not that of its stored bytes": [lines[0].replace('"hash":"', '"hash":"00')],
    }
    for said, content in spoiled.items():
        path.write_text("".join(content))
        bad = checked(path)
        assert bad.returncode == 1
        assert said in bad.stderr, said
    path.write_text("".join(lines[count // 2 :]))
    part = checked(path)
    assert part.returncode == 0
    assert part.stdout.endswith(f"{count // 2} positions up to there are not in the file\n")


def test_an_export_goes_on_after_its_last_whole_line(shop: tuple[Installation, Up], tmp_path: Path) -> None:
    place, up = shop
    path, whole = tmp_path / "log.jsonl", tmp_path / "whole.jsonl"
    export(place, "--output", whole)
    text = whole.read_bytes()
    for cut in (0, 10, len(text) // 3, len(text) - 1, len(text)):
        path.write_bytes(text[:cut])
        lines = text.count(b"\n", 0, cut)
        ran = export(place, "--output", path)
        assert path.read_bytes() == text
        assert ran.stdout == f"{text.count(bytes([10])) - lines} events were written to {path}.\n"
    assert up.earn(1_000).status_code == 200
    export(place, "--output", path)
    assert path.read_bytes().startswith(text)
    new = exported(path.read_bytes()[len(text) :].decode())
    assert [line["name"] for line in new] == ["points_earned"]
    last = exported(text.decode())[-1]["position"]
    assert exported(export(place, "--after", str(last)).stdout) == new


def test_an_export_that_is_killed_is_gone_on_with(shop: tuple[Installation, Up], tmp_path: Path) -> None:
    place, _ = shop
    path = tmp_path / "log.jsonl"
    for _ in range(3):
        with place.start("export", "events", "--output", path) as process:
            wait_until(lambda: path.exists() or process.poll() is not None, "it began")
            process.send_signal(signal.SIGKILL)
            process.wait()
    export(place, "--output", path)
    assert path.read_text() == export(place).stdout


def test_a_file_that_is_not_its_own_stays_as_it_is(shop: tuple[Installation, Up], tmp_path: Path) -> None:
    place, up = shop
    path = tmp_path / "log.jsonl"
    export(place, "--output", path)
    last = exported(path.read_text())[-1]
    merchant = up.demo["merchant_id"]
    of_one = export(place, "--merchant", merchant).stdout
    assert len(exported(of_one)) < last["position"]
    refusals = [
        ("a letter\n", (), "no export of events"),
        (json.dumps({**last, "hash": "0" * 64}) + "\n", (), "of another log"),
        (json.dumps({**last, "position": 10**9}) + "\n", (), "of another log"),
        (of_one, (), "another --merchant"),
        (path.read_text(), ("--after", str(last["position"] + 1)), "would be missing"),
    ]
    for content, options, said in refusals:
        path.write_text(content)
        ran = place.run("export", "events", "--output", path, *options)
        assert ran.returncode in (1, 2)
        assert said in ran.stderr, said
        assert path.read_text() == content


def test_a_merchant_that_is_not_there_has_no_export(shop: tuple[Installation, Up], tmp_path: Path) -> None:
    place, _ = shop
    path = tmp_path / "log.jsonl"
    ran = place.run("export", "events", "--merchant", str(uuid4()), "--output", path)
    assert ran.returncode == 1
    assert "There is no merchant" in ran.stderr
    assert not path.exists()


def test_whoever_reads_only_the_beginning_ends_the_export_quietly(shop: tuple[Installation, Up]) -> None:
    place, _ = shop
    reading, writing = os.pipe()
    with subprocess.Popen(
        [*LOYALTY, "export", "events"],
        cwd=ROOT,
        env=place.environment({}),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writing)
        assert os.read(reading, 100).startswith(b'{"position":1,')
        os.close(reading)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
