"""The rows that each read model makes of one and the same history, checked in by model and version.

`python -m tests.projections.golden` writes the rows that are missing, and refuses where those that are there are not
what today's code makes: tables that were told otherwise are another version of their model, and are built anew.

The history is what the door once wrote; its bytes, ids, times and keys are checked in and never change. Rows depend on
them and on nothing else. What it lacks, as events that are new, goes into another file beside it.
"""

import asyncio
import base64
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import psycopg

from ledger.card import (
    AddStamp,
    Adjust,
    Close,
    EarnPoints,
    Event,
    Reactivate,
    RedeemPoints,
    RedeemStamps,
    Reverse,
    Suspend,
)
from ledger.commands import MergeCards, OnCard, StaffEntry, VerifyPin, WhichCard
from ledger.errors import Rejected
from ledger.staff_pin import StaffPinFailed
from ledger.store.names import topics_of
from ledger.terminal import TerminalPinFailed
from loyalty.embedded import EmbeddedServers
from migrations import migrate
from projections.models import MODELS
from projections.read_model import ReadModel
from projections.rebuild import rebuild
from tests.projections.random_trade import trade_in
from tests.projections.telling import KEYRING, shop_on

FOLDER = Path(__file__).resolve().parents[2] / "schemas" / "examples" / "projections"
HISTORY = "history.jsonl"
STEPS = 60
WANTED = [topics_of(event)[-1] for event in (*Event.__args__, StaffPinFailed, TerminalPinFailed)]
"""What has to happen in the history."""

LOGGED = """
    SELECT notification_id, originator_id::text, originator_version, topic, convert_from(state, 'UTF8'),
        events.merchant_id::text, events.subject_id::text, wrapped
    FROM events LEFT JOIN subject_keys USING (subject_id) ORDER BY notification_id
"""
NAMES = ("position", "stream", "version", "topic", "state", "merchant_id", "subject_id")
LOG = """
    INSERT INTO events (
        notification_id, originator_id, originator_version, topic, state, merchant_id, subject_id
    )
    VALUES (%(position)s, %(stream)s, %(version)s, %(topic)s, convert_to(%(state)s, 'UTF8'), %(merchant_id)s,
        %(subject_id)s)
"""
KEYS = """
    INSERT INTO subject_keys (subject_id, merchant_id, wrapped) VALUES (%(subject_id)s, %(merchant_id)s, %(wrapped)s)
    ON CONFLICT DO NOTHING
"""
ROWS = "SELECT to_jsonb(t) FROM projections.{} t"


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, each of them JSON."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Writes each as a line of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


# ---- the history ----------------------------------------------------------------------------------------------


async def trade(database_url: str, seed: int) -> None:
    """Does what seldom happens, and then anything."""
    options: dict[str, Any] = {"welcome_bonus_points": 50, "cooldown_minutes": 0, "stamps_target": 1}
    async with shop_on(database_url, points_expiration_days=10, **options) as shop:
        traded = await trade_in(shop, Random(seed))  # noqa: S311 any history will do
        first, second, third = [await shop.enrol() for _ in range(3)]
        for asked in (Suspend(), Reactivate(), Adjust(points=5, reason="Counted again"), Close()):
            await shop.send(OnCard(which=WhichCard(card_id=first.id), command=asked), shop.merchant)
        earned = await shop.ask(second, EarnPoints(5_000))
        assert earned.result is not None
        version = earned.result.main.version
        await shop.ask(second, Reverse(card=second.id, version=version, purchase_amount_cents=2_000))
        await shop.ask(second, RedeemPoints("coffee"))
        await shop.ask(second, AddStamp())
        await shop.ask(second, RedeemStamps())
        await shop.send(MergeCards(WhichCard(card_id=second.id), third.id), shop.merchant)
        for staff_id in (shop.staff_id, None):
            with suppress(Rejected):
                await shop.send(VerifyPin(StaffEntry(staff_id=staff_id, staff_pin="9999")))
        await traded.steps(STEPS)
        with psycopg.connect(database_url, autocommit=True) as connection:
            told = {topic for (topic,) in connection.execute("SELECT DISTINCT topic FROM events")}
        assert set(WANTED) <= told, f"try another seed, for {set(WANTED) - told}"


def logged(database_url: str) -> list[dict[str, Any]]:
    """The log as it stands, with the keys of its people."""
    lines = []
    with psycopg.connect(database_url) as connection:
        for *values, wrapped in connection.execute(LOGGED):
            line = dict(zip(NAMES, values, strict=True))
            if wrapped is not None:
                key = KEYRING.master.open(bytes(wrapped), UUID(line["subject_id"]).bytes)
                line["key"] = base64.b64encode(key).decode()
            lines.append(line)
    return lines


def log(database_url: str, lines: Sequence[dict[str, Any]]) -> None:
    """Puts a history into an empty log."""
    with psycopg.connect(database_url) as connection:
        for line in lines:
            connection.execute(LOG, line)
            if "key" in line:
                key, subject = base64.b64decode(line["key"]), UUID(line["subject_id"])
                connection.execute(KEYS, line | {"wrapped": KEYRING.master.seal(key, subject.bytes)})


# ---- the rows -------------------------------------------------------------------------------------------------


def name_of(model: ReadModel) -> str:
    """The file of a model's rows."""
    return f"{model.name}.{model.version}.jsonl"


def rows_of(database_url: str, model: ReadModel) -> list[dict[str, Any]]:
    """The rows of a model's tables, in order."""
    rows = []
    with psycopg.connect(database_url, options="-c timezone=UTC") as connection:
        for table in model.tables:
            found = connection.execute(ROWS.format(table).encode())
            rows += [{"table": table} | row for (row,) in found]
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


def made(database_url: str, models: Sequence[ReadModel], folder: Path = FOLDER) -> dict[str, list[dict[str, Any]]]:
    """The rows that models make today of the history in a folder, by file."""
    log(database_url, lines_of(folder / HISTORY))
    asyncio.run(rebuild(database_url, KEYRING, models))
    return {name_of(model): rows_of(database_url, model) for model in models}


def differing(rows: dict[str, list[dict[str, Any]]], folder: Path = FOLDER) -> list[str]:
    """Which files say otherwise than what was made, and what to do then."""
    return [
        f"{name} is not what the model's apply makes of the history today: raise the model's version in projections/,"
        " then run `make generate`; its tables are then built anew everywhere"
        for name, made_today in rows.items()
        if (folder / name).exists() and lines_of(folder / name) != made_today
    ]


def write_missing(database_url: str, folder: Path = FOLDER) -> int:
    """Writes what is missing unless something that is there is made otherwise today."""
    rows = made(database_url, MODELS, folder)
    wrong = differing(rows, folder)
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    for name, lines in rows.items():
        if not (folder / name).exists():
            write_lines(folder / name, lines)
            print(f"wrote {name}")
    return 0


def main(arguments: list[str]) -> int:
    """Writes what is missing, on servers of its own."""
    if arguments:
        print("usage: python -m tests.projections.golden", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="loyalty-golden-", dir="/tmp"))
    folder.chmod(0o755)
    servers = EmbeddedServers(folder)
    try:
        own = servers.start().database_url
        with psycopg.connect(own, autocommit=True) as connection:
            for name in ("trade", "rows"):
                connection.execute(f"CREATE DATABASE {name}".encode())
        trading, telling = (own.replace("/loyalty?", f"/{name}?") for name in ("trade", "rows"))
        migrate(trading)
        migrate(telling)
        if not (FOLDER / HISTORY).exists():
            asyncio.run(trade(trading, seed=5))
            write_lines(FOLDER / HISTORY, logged(trading))
            print(f"wrote {HISTORY}")
        return write_missing(telling)
    finally:
        servers.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
