"""`make bench`: the log, the door and HTTP against pgbench's one-row commits, interleaved; medians of rounds.

The log is measured in one process. The door and HTTP are measured as deployed on two cores, with one process a core,
and the clients divided between them.
"""

import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
import psycopg
from rich.console import Console
from rich.progress import track
from rich.table import Table

from loyalty.embedded import EmbeddedServers
from migrations import migrate
from tests.bench import ledger_load, pgbench
from tests.shop import PIN

CLIENTS = 32
PROCESSES = 2


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
    settings = {"LOYALTY_DATA_DIR": str(data_dir), "LOYALTY_PORT": "0", "LOYALTY_WORKERS": str(PROCESSES)}
    environment = os.environ | settings
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
    # Spawned, as a forked copy of this process would share its event loops and connections.
    pool = ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn"))
    try:
        cards = enrolled(demo, CLIENTS)
        url = bench_database(folder / "data")
        ledger_load.in_processes(pool, url, CLIENTS, PROCESSES, seconds=0.5)
        measures: dict[str, Callable[[], float]] = {
            "pgbench, 32 clients": lambda: pgbench.commits_per_second(url, folder, clients=CLIENTS, seconds=seconds),
            "appends through the log, 1 process": lambda: ledger_load.appends_per_second(url, CLIENTS, seconds),
            f"commands through handle, {PROCESSES} processes": lambda: ledger_load.in_processes(
                pool, url, CLIENTS, PROCESSES, seconds
            ),
            f"commands through HTTP, {PROCESSES} processes": lambda: http_figures(demo, cards, CLIENTS, seconds)[
                "per_second"
            ],
        }
        figures: dict[str, list[float]] = {name: [] for name in measures}
        for _ in track(range(rounds), "Measuring"):
            for name, measure in measures.items():
                figures[name].append(measure())
        show(figures)
    finally:
        pool.shutdown()
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
