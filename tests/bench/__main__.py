"""`make bench`: the log, the door and HTTP against pgbench's one-row commits, interleaved; medians of rounds."""

import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import click
import psycopg
import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ledger import card
from ledger.entropy import SystemClock
from ledger.entry import Result
from ledger.store.recorder import Append, NewEvent
from loyalty.embedded import EmbeddedServers
from migrations import migrate
from tests.bench import pgbench
from tests.shop import PIN, ledger_on, open_shop

CLIENTS = 32
STATE = b"x" * 500


async def appends_per_second(database_url: str, seconds: float) -> float:
    """One-event commands straight into the log."""
    ledger = ledger_on(database_url, SystemClock())
    await ledger.log.open()
    merchant, until, done = uuid4(), time.perf_counter() + seconds, 0

    async def client() -> None:
        nonlocal done
        stream, version = uuid4(), 0
        while time.perf_counter() < until:
            event = NewEvent(stream, version + 1, "bench.1", STATE)
            await ledger.log.append(Append(merchant=merchant, events=(event,), guards={stream: version}))
            version += 1
            done += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    await ledger.log.close()
    return done / seconds


async def commands_per_second(database_url: str, seconds: float) -> float:
    """Points commands through the door, with staff PIN, guards, idempotency keys and sealed answers."""
    clock = SystemClock()
    ledger = ledger_on(database_url, clock)
    await ledger.log.open()
    shop = await open_shop(ledger, clock)
    cards = [await shop.enrol() for _ in range(CLIENTS)]
    await shop.ask(cards[0], card.EarnPoints(2500, None))
    until, done = time.perf_counter() + seconds, 0

    def answer(_: Result) -> bytes:
        return STATE

    async def client(mine: card.Card) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await shop.ask(mine, card.EarnPoints(2500, None), answer=answer)
            done += 1

    await asyncio.gather(*(client(mine) for mine in cards))
    await ledger.log.close()
    return done / seconds


def http_figures(demo: dict[str, str], cards: list[str], clients: int, seconds: float) -> dict[str, float]:
    """Points commands over HTTP from a process beside the server's."""
    host, port = demo["base_url"].removeprefix("http://").split(":")
    command = [sys.executable, "-m", "tests.bench.http_load", host, port, str(clients), str(seconds)]
    given = json.dumps({"terminal_key": demo["terminal_key"], "cards": cards})
    run = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


def served(data_dir: Path) -> tuple["subprocess.Popen[str]", dict[str, str]]:
    """`loyalty up --demo` on that folder, ready, and its credentials."""
    environment = os.environ | {"LOYALTY_DATA_DIR": str(data_dir), "LOYALTY_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "loyalty", "up", "--demo"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("API at"):
            break
    demo: dict[str, str] = json.loads((data_dir / "demo.json").read_text())
    wait_until_ready(demo["base_url"])
    return process, demo


def wait_until_ready(base_url: str) -> None:
    """Returns once the API answers."""
    import httpx

    for _ in range(200):
        try:
            if httpx.get(f"{base_url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise SystemExit("the API does not answer")


def enrolled(demo: dict[str, str], count: int) -> list[str]:
    """Card numbers to stamp."""
    import httpx

    with httpx.Client(base_url=demo["base_url"], headers={"Authorization": f"Bearer {demo['terminal_key']}"}) as client:
        answers = (client.post("/api/v1/store/loyalty/cards/enroll", json={}) for _ in range(count))
        return [answer.json()["card_number"] for answer in answers]


@click.command()
@click.option("--rounds", default=3, help="How often each is measured.")
@click.option("--seconds", default=5, help="How long each measurement takes.")
def main(rounds: int, seconds: int) -> None:
    """Measures in turn and prints medians."""
    folder = Path(tempfile.mkdtemp(prefix="loyalty-bench-", dir="/tmp"))
    folder.chmod(0o755)
    process, demo = served(folder / "data")
    try:
        cards = enrolled(demo, 64)
        url = bench_database(folder / "data")
        measures: dict[str, Callable[[], float]] = {
            "pgbench, 32 clients": lambda: pgbench.commits_per_second(url, folder, clients=CLIENTS, seconds=seconds),
            "appends through the log": lambda: uvloop.run(appends_per_second(url, seconds)),
            "commands through handle": lambda: uvloop.run(commands_per_second(url, seconds)),
            "commands through HTTP": lambda: http_figures(demo, cards, CLIENTS, seconds)["per_second"],
        }
        figures: dict[str, list[float]] = {name: [] for name in measures}
        for _ in track(range(rounds), "Measuring"):
            for name, measure in measures.items():
                figures[name].append(measure())
        show(figures)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def bench_database(data_dir: Path) -> str:
    """A database of the benchmark's own on the servers that run."""
    urls = EmbeddedServers(data_dir).urls
    with psycopg.connect(urls.database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bench")
    url = urls.database_url.replace("/loyalty?", "/bench?")
    migrate(url)
    return url


def show(figures: dict[str, list[float]]) -> None:
    """A table of medians, and of the medians of each round's ratio to its own pgbench."""
    peer = next(iter(figures.values()))
    table = Table("what", "a second", "ratio to pgbench", "each round")
    for name, values in figures.items():
        ratios = [value / other for value, other in zip(values, peer, strict=True)]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        table.add_row(name, f"{statistics.median(values):,.0f}", f"{statistics.median(ratios):.2f}", each)
    Console().print(table)
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; PIN of every command: {PIN}"
    )


if __name__ == "__main__":
    main()
