"""`python -m tests.bench.reads`: telling read models and asking them, each against a peer in the same run.

Telling the log: the feed from the beginning of the log, with all models and their indexes, and a rebuild, against COPY
of the rows that they make into empty tables with the same indexes. Lag: from a commit to its being visible, while two
processes write as fast as they can. Asking: a merchant of many cards against one of a thousand, by turns.
"""

import asyncio
import contextlib
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import psycopg
import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ledger.actor import Role
from ledger.entropy import SystemClock, SystemEntropy
from ledger.store.keys import Keyring, key_from_text
from loyalty.embedded import EmbeddedServers
from loyalty.garbage import OBJECTS_OF_BATCHES, collect_less
from migrations import migrate
from projections.applying import LIVE, Applying, connected, wanted_by
from projections.batches import Batches
from projections.feed import Feed
from projections.models import MODELS
from projections.reading import Reader
from projections.rebuild import build, rebuild
from tests.bench import ledger_load
from tests.bulk_history import fill
from tests.served import SECRETS, STORE, ServedShop, serving
from tests.shop import Shop, ledger_on

FEW_CARDS = 1_000
EVENTS_A_CARD = 4
WRITERS, CLIENTS = 2, 32
PROBE_SECONDS = 0.005
SECRET: dict[str, bytes] = {
    "master_key": key_from_text(SECRETS["master_key"]),
    "pepper": SECRETS["pepper"].encode(),
}
QUESTIONS = {
    "cards, newest first": "cards?limit=50",
    "cards, used last": "cards?limit=50&sort=activity",
    "search by a first name of a tenth of all": "cards?limit=50&q=anna",
    "search by an e-mail address": "cards?limit=50&q=c77@mail",
    "a card's transactions": "cards/{card}/transactions?limit=50",
    "all transactions": "transactions?limit=50",
    "a card by its number": None,
}


def keyring() -> Keyring:
    """People's keys, as the benches write them."""
    return Keyring(SECRET["master_key"], SystemEntropy())


async def told_from_the_beginning(url: str) -> float:
    """Seconds that the feed takes for the whole log, with every model's indexes in place."""
    await build(url, keyring(), MODELS)
    models = {model.name: model for model in MODELS}
    async with await connected(url, LIVE) as leading, await connected(url, LIVE) as reading:
        for model in MODELS:
            for table in model.tables:
                await leading.execute(f"TRUNCATE {table}".encode())
        await leading.execute("UPDATE checkpoints SET position = 0, generation = generation + 1")
        began = time.perf_counter()
        async with Applying(leading, Batches(reading, keyring(), wanted_by(models)), models) as applying:
            while await applying.step() is not None:
                pass
        return time.perf_counter() - began


async def rebuilt(url: str) -> float:
    """Seconds that a rebuild of all models takes, comparing and taking over included."""
    began = time.perf_counter()
    comparisons = await rebuild(url, keyring(), MODELS)
    took = time.perf_counter() - began
    differing = [found for found in comparisons.values() if found is None or found.differing]
    if differing:
        raise SystemExit(f"a rebuild differs: {differing}")
    return took


def copied(url: str) -> float:
    """Seconds that COPY takes for the same rows into empty tables with the same indexes."""
    with psycopg.connect(url) as source, psycopg.connect(url) as target:
        target.execute("CREATE SCHEMA IF NOT EXISTS copied")
        tables = [table for model in MODELS for table in model.tables]
        for table in tables:
            target.execute(f"DROP TABLE IF EXISTS copied.{table}".encode())
            target.execute(f"CREATE TABLE copied.{table} (LIKE {LIVE}.{table} INCLUDING ALL)".encode())
        target.commit()
        began = time.perf_counter()
        for table in tables:
            out = f"COPY (TABLE {LIVE}.{table}) TO STDOUT (FORMAT BINARY)".encode()
            into = f"COPY copied.{table} FROM STDIN (FORMAT BINARY)".encode()
            with source.cursor().copy(out) as read, target.cursor().copy(into) as written:
                for piece in read:
                    written.write(piece)
        target.commit()
        return time.perf_counter() - began


@contextlib.contextmanager
def feeding(url: str) -> Iterator[None]:
    """A process that keeps the read models told of what `ledger_load` writes."""
    process = multiprocessing.get_context("spawn").Process(target=follow, args=(url,))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def follow(url: str) -> None:
    """Follows the log until it is killed."""
    collect_less(OBJECTS_OF_BATCHES)
    uvloop.run(Feed(url, ledger_on(url, SystemClock()).log.keyring).follow())


async def lags(url: str, writing: "list[Future[float]]") -> list[float]:
    """Seconds from a commit to its being visible in every model, probed while others write."""
    reader = Reader(url)
    await reader.open()
    found: list[float] = []
    while not all(run.done() for run in writing):
        ((head,),) = await reader.rows("SELECT max(notification_id) FROM events", {})
        began = time.perf_counter()
        await reader.reached(MODELS, head)
        found.append(time.perf_counter() - began)
        await asyncio.sleep(PROBE_SECONDS)
    await reader.close()
    return sorted(found)


def lag_under_load(url: str, seconds: int) -> tuple[float, list[float]]:
    """Commands a second of two processes, and the lags meanwhile."""
    spawned = multiprocessing.get_context("spawn")
    uvloop.run(build(url, keyring(), MODELS))
    with feeding(url), ProcessPoolExecutor(WRITERS, mp_context=spawned) as pool:
        ledger_load.in_processes(pool, url, CLIENTS, WRITERS, seconds=1)
        share = CLIENTS // WRITERS
        writing = [pool.submit(ledger_load.commands_per_second, url, share, seconds) for _ in range(WRITERS)]
        found = uvloop.run(lags(url, writing))
        return sum(run.result() for run in writing), found


def asked(shop: ServedShop, card: dict[str, Any], question: str | None) -> float:
    """Seconds that one answer takes."""
    headers = {"Authorization": f"Bearer {shop.manager.credential if question else shop.till.credential}"}
    began = time.perf_counter()
    if question is None:
        body = {"card_number": card["card_number"]}
        response = shop.served.http.post(f"{STORE}/cards/lookup", json=body, headers=headers)
    else:
        response = shop.served.http.get(f"{STORE}/{question.format(card=card['id'])}", headers=headers)
    took = time.perf_counter() - began
    if response.status_code != 200:
        raise SystemExit(response.text)
    return took


def flat(shops: list[tuple[Shop, str]], times: int) -> dict[str, list[float]]:
    """Median seconds of each question at a merchant of few cards and at one of many, asked by turns."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_again(shop, url)) for shop, url in shops]
        figures: dict[str, list[float]] = {}
        for name, question in track(QUESTIONS.items(), "Asking"):
            took = [[asked(shop, card, question) for shop, card in opened] for _ in range(times)]
            figures[name] = [statistics.median(column) for column in zip(*took, strict=True)]
        return figures


@contextlib.contextmanager
def open_again(shop: Shop, url: str) -> Iterator[tuple[ServedShop, dict[str, Any]]]:
    """A shop that has traded, served over HTTP once its read models are told; and one of its cards."""
    with serving(url) as served:
        manager = served.account(Role.MANAGER, shop.merchant.merchant_id)
        opened = ServedShop(served, shop, served.client(shop.terminal_key), manager)
        while (response := opened.manager.get("cards?limit=1")).status_code == 503:
            time.sleep(0.1)
        yield opened, response.json()["items"][0]


@click.command()
@click.option("--events", default=1_000_000, help="Events of the log that is told.")
@click.option("--cards", default=1_000_000, help="Cards of the merchant of many.")
@click.option("--rounds", default=3, help="How often telling is measured.")
@click.option("--seconds", default=10, help="How long lags are measured.")
@click.option("--times", default=300, help="How often each question is asked.")
def main(events: int, cards: int, rounds: int, seconds: int, times: int) -> None:
    """Measures in turn and prints medians."""
    collect_less(OBJECTS_OF_BATCHES)
    folder = Path(tempfile.mkdtemp(prefix="loyalty-bench-", dir="/tmp"))
    folder.chmod(0o755)
    servers = EmbeddedServers(folder)
    try:
        url = servers.start().database_url
        told = database(url, "told")
        fill(told, events, max(1, events // EVENTS_A_CARD // 5), **SECRET)
        telling: dict[str, list[float]] = {"feed": [], "rebuild": [], "copy": []}
        for _ in track(range(rounds), "Telling"):
            telling["feed"].append(uvloop.run(told_from_the_beginning(told)))
            telling["rebuild"].append(uvloop.run(rebuilt(told)))
            telling["copy"].append(copied(told))
        show_telling(events, telling)
        show_lags(*lag_under_load(database(url, "written"), seconds))
        shops = []
        for name, count in (("few", FEW_CARDS), ("many", cards)):
            filled = database(url, name)
            shops.append((fill(filled, count * EVENTS_A_CARD, count, **SECRET), filled))
            uvloop.run(build(filled, keyring(), MODELS))
        show_flat(cards, flat(shops, times))
    finally:
        servers.stop()
        shutil.rmtree(folder)


def database(url: str, name: str) -> str:
    """A database of the bench's own."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    named = url.replace("/loyalty?", f"/{name}?")
    migrate(named)
    return named


def show_telling(events: int, telling: dict[str, list[float]]) -> None:
    """Events a second, and how much longer it takes than COPY of what it makes."""
    table = Table(f"telling {events:,} events", "seconds", "events a second", "times COPY", "each round")
    for name, seconds in telling.items():
        ratios = [took / copy for took, copy in zip(seconds, telling["copy"], strict=True)]
        middle = statistics.median(seconds)
        each = " ".join(f"{took:.1f}" for took in seconds)
        table.add_row(name, f"{middle:.1f}", f"{events / middle:,.0f}", f"{statistics.median(ratios):.1f}", each)
    Console().print(table)


def show_lags(per_second: float, found: list[float]) -> None:
    """The middle and the worst of a hundred."""
    p50, p99 = found[len(found) // 2] * 1000, found[len(found) * 99 // 100] * 1000
    print(
        f"Commit to visible, with {per_second:,.0f} commands a second written by {WRITERS} processes:"
        f" p50 {p50:.0f} ms, p99 {p99:.0f} ms, of {len(found)} probes"
    )


def show_flat(cards: int, figures: dict[str, list[float]]) -> None:
    """The ratio of many to few."""
    table = Table("asked over HTTP, median", f"{FEW_CARDS:,} cards, ms", f"{cards:,} cards, ms", "ratio")
    for name, (few, many) in figures.items():
        table.add_row(name, f"{few * 1000:.1f}", f"{many * 1000:.1f}", f"{many / few:.2f}")
    Console().print(table)
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
