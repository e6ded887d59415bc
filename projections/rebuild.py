"""Builds read models from the log, beside those that are read, and puts them in their place.

The new tables are filled in the schema `rebuilding`, from where they can be filled further after any interruption.
Then both are compared row by row at one and the same position, and the new ones take over in one transaction. Reading
and writing go on meanwhile; nobody waits but for moments.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import IsolationLevel, sql

from ledger.errors import Unavailable
from ledger.store import END_OF_LOG
from ledger.store.keys import Keyring
from projections.applying import LIVE, REBUILDING, Applying, connected, wanted_by
from projections.batches import Batches
from projections.read_model import Connection, ReadModel

BUILDER = 73108687
TAKEOVER_ATTEMPTS_MAX = 20
BATCH_EVENTS = 20_000
"""More at once than the feed takes: nobody waits for them, and a card that changes often is written less often."""

EXAMPLES_MAX = 10
STAND_BY_SECONDS = 0.5
HEAD = b"SELECT coalesce(max(notification_id), 0) FROM events"
LIVE_CHECKPOINT = b"""
    SELECT identity, position, generation, tables, replaced FROM projections.checkpoints WHERE model = %s
"""
TAKE_OVER = """
    INSERT INTO projections.checkpoints (model, identity, position, generation, tables, replaced)
    VALUES (%(model)s, %(identity)s, %(position)s, 1, %(tables)s, %(replaced)s)
    ON CONFLICT (model) DO UPDATE SET
        identity = excluded.identity, position = excluded.position, generation = checkpoints.generation + 1,
        tables = excluded.tables, replaced = excluded.replaced
"""
SHAPES = """
    SELECT array_agg(attname::text || ' ' || format_type(atttypid, atttypmod) ORDER BY attnum), (
        SELECT array_agg(indkey::text) FROM pg_index WHERE indrelid = to_regclass(asked.name) AND indisprimary
    )
    FROM unnest(%s::text[]) AS asked (name)
    LEFT JOIN pg_attribute ON attrelid = to_regclass(asked.name) AND attnum > 0 AND NOT attisdropped
    GROUP BY asked.name
"""
DIFFERING = """
    SELECT count(*) OVER (), ROW({shown})::text FROM {old} AS old FULL JOIN {new} AS new USING ({key})
    WHERE old IS DISTINCT FROM new LIMIT {examples_max}
"""
DIGEST = "left(encode(sha256(convert_to({}::text, 'UTF8')), 'hex'), 8)"
PRIMARY_KEY = """
    SELECT array_agg(attname::text ORDER BY array_position(indkey::int2[], attnum))
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)
    WHERE indrelid = %s::regclass AND indisprimary
"""


class Watcher:
    """Sees how a rebuild goes; this one makes nothing of it."""

    def waits(self, name: str, why: str) -> None:
        """A model waits for somebody else."""

    def goes_on(self, name: str, position: int) -> None:
        """The tables that an interrupted rebuild left are there, told up to a position."""

    def reached(self, position: int, head: int) -> None:
        """The log was told up to a position, of as many as there are to tell."""


UNWATCHED = Watcher()


@dataclass
class Comparison:
    """What telling the log anew made of the tables: how many rows there are, how many differ, and some of them."""

    rows: int = 0
    differing: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Live:
    """The tables of a model that are read."""

    identity: str
    position: int
    generation: int
    tables: list[str]
    replaced: list[str]


async def live(connection: Connection, model: ReadModel, *, lock: bool = False) -> Live | None:
    """What is read of a model; None where it was never built. Locked, it stays at its position."""
    cursor = await connection.execute(LIVE_CHECKPOINT + (b" FOR UPDATE" if lock else b""), [model.name])
    row = await cursor.fetchone()
    return Live(*row) if row is not None else None


async def build(database_url: str, keyring: Keyring, models: Sequence[ReadModel]) -> None:
    """Builds what is not in place as this release has it, or as a newer one has."""
    async with await connected(database_url, REBUILDING) as building:
        missing = [model for model in models if not await in_place(building, model)]
        for model in missing:
            await alone(building, model)
        missing = [model for model in missing if not await in_place(building, model)]
        await Rebuild(database_url, keyring, missing, building).build()


async def in_place(connection: Connection, model: ReadModel) -> bool:
    """Whether what is read of a model is of this release or of a newer one."""
    found = await live(connection, model)
    return found is not None and (found.identity == model.identity or model.identity in found.replaced)


async def rebuild(
    database_url: str,
    keyring: Keyring,
    models: Sequence[ReadModel],
    *,
    watcher: Watcher = UNWATCHED,
    takes_over: bool = True,
) -> dict[str, Comparison | None]:
    """Builds models anew in one go, compares them with those that are read, and puts them in their place or drops them.

    Tells by name what the comparison found; None where there was nothing of the same shape to compare with. May be
    interrupted at any time: the next one goes on from there. Raises `Unavailable` where the database goes away, or
    readers never let go of a table.
    """
    try:
        async with await connected(database_url, REBUILDING) as building:
            for model in models:
                await alone(building, model, watcher)
            return await Rebuild(database_url, keyring, models, building, watcher).run(takes_over=takes_over)
    except psycopg.OperationalError as error:
        raise Unavailable("read models cannot be built now") from error


async def alone(building: Connection, model: ReadModel, watcher: Watcher = UNWATCHED) -> None:
    """Waits until nobody else builds that model; for as long as the connection lasts, nobody else will."""
    told = False
    while True:
        cursor = await building.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", [BUILDER, model.name])
        if (await cursor.fetchone()) == (True,):
            return
        if not told:
            watcher.waits(model.name, "it is being built elsewhere")
        told = True
        await asyncio.sleep(STAND_BY_SECONDS)


class Rebuild:
    """Models being built, each of them by the only one who builds it."""

    def __init__(
        self,
        database_url: str,
        keyring: Keyring,
        models: Sequence[ReadModel],
        building: Connection,
        watcher: Watcher = UNWATCHED,
    ) -> None:
        self._database_url = database_url
        self._keyring = keyring
        self._models = {model.name: model for model in models}
        self._building = building
        self._watcher = watcher

    async def run(self, *, takes_over: bool) -> dict[str, Comparison | None]:
        """Fills all of them, then compares one after the other, which takes over or leaves nothing behind."""
        comparisons: dict[str, Comparison | None] = {}
        async with await connected(self._database_url, LIVE) as reading:
            await self._fill_all(reading)
            for name, model in self._models.items():
                async with self._applying(reading, {name: model}) as applying:
                    comparisons[name] = await self._compared(model, applying)
                    if takes_over:
                        await self._take_over(model, applying)
                    else:
                        await self._give_up(model)
        return comparisons

    async def build(self) -> None:
        """Fills all of them before any takes over, and then each at once.

        As soon as one of another release's models is replaced, that release's feed rests, and nobody tells its other
        ones until they are replaced, too.
        """
        async with await connected(self._database_url, LIVE) as reading:
            await self._fill_all(reading)
            for name, model in self._models.items():
                async with self._applying(reading, {name: model}) as applying:
                    await self._take_over(model, applying)

    async def _fill_all(self, reading: Connection) -> None:
        """Has all new tables with their indexes, nearly as far as they can be."""
        models = list(self._models.values())
        for model in models:
            await self._prepare(model)
        async with self._applying(reading, self._models) as applying:
            await self._fill(applying, await self._goal(models))
            for model in models:
                await self._building.execute(model.indexes.encode())
                for table in model.tables:
                    await self._building.execute(f"ANALYZE {table}".encode())
            await self._fill(applying, await self._goal(models))

    def _applying(self, reading: Connection, models: Mapping[str, ReadModel]) -> Applying:
        batches = Batches(reading, self._keyring, wanted_by(models))
        return Applying(self._building, batches, models, live=False)

    async def _prepare(self, model: ReadModel) -> None:
        """Goes on with what an interrupted rebuild left, or begins with empty tables."""
        building = self._building
        cursor = await building.execute("SELECT identity, tables FROM checkpoints WHERE model = %s", [model.name])
        known = await cursor.fetchone()
        if known is not None and known[0] == model.identity:
            self._watcher.goes_on(model.name, await self._position(model))
            return
        async with building.transaction():
            await self._drop(model, known[1] if known is not None else [])
            for definition in model.tables.values():
                await building.execute(definition.encode())
            await building.execute(
                "INSERT INTO checkpoints (model, identity, position, generation, tables) VALUES (%s, %s, 0, 0, %s)",
                [model.name, model.identity, list(model.tables)],
            )

    async def _give_up(self, model: ReadModel) -> None:
        """Leaves nothing behind of a model that is not wanted."""
        async with self._building.transaction():
            await self._drop(model, list(model.tables))

    async def _drop(self, model: ReadModel, tables: Sequence[str]) -> None:
        for table in tables:
            await self._building.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(REBUILDING, table)))
        await self._building.execute("DELETE FROM checkpoints WHERE model = %s", [model.name])

    async def _goal(self, models: Sequence[ReadModel]) -> int:
        """How far models can be filled so that each can still be compared with what is read of it.

        What gets ahead of that could be compared only when a feed has come as far, and perhaps none runs.
        """
        found = [(model, await live(self._building, model)) for model in models]
        positions = [known.position for model, known in found if known is not None and known.identity == model.identity]
        return min(positions, default=END_OF_LOG)

    async def _fill(self, applying: Applying, until: int) -> None:
        """Applies the log up to a position, or as far as it goes."""
        cursor = await self._building.execute(HEAD)
        head = min(until, int((await cursor.fetchone() or (0,))[0]))
        while (reached := await applying.step(until, BATCH_EVENTS)) is not None:
            self._watcher.reached(reached, max(reached, head))

    async def _position(self, model: ReadModel) -> int:
        cursor = await self._building.execute("SELECT position FROM checkpoints WHERE model = %s", [model.name])
        return int((await cursor.fetchone() or (0,))[0])

    # ---- comparing --------------------------------------------------------------------------------------------

    async def _compared(self, model: ReadModel, applying: Applying) -> Comparison | None:
        """Compares both in one snapshot of the database that has both at the same position.

        The feed waits only while the last events are applied and the snapshot is taken, not while it is looked at.
        """
        async with (
            await connected(self._database_url, LIVE) as holding,
            await connected(self._database_url, LIVE) as seeing,
        ):
            await seeing.set_isolation_level(IsolationLevel.REPEATABLE_READ)
            told = False
            while True:
                # What came while the models before this one were compared is told first, since the feed waits below.
                await self._fill(applying, await self._goal([model]))
                async with holding.transaction():
                    found = await live(holding, model, lock=True)
                    if found is None or found.identity != model.identity:
                        return None
                    await self._fill(applying, found.position)
                    if await self._position(model) == found.position:
                        await seeing.set_autocommit(False)
                        await seeing.execute("SELECT FROM checkpoints")
                        break
                # A rebuild that was interrupted had come further than what is read has come by now.
                if not told:
                    self._watcher.waits(
                        model.name, "what is read of it is not as far yet; `loyalty project` has to run"
                    )
                told = True
                await asyncio.sleep(STAND_BY_SECONDS)
            comparison = Comparison()
            for table in model.tables:
                await compare(seeing, table, model.private, comparison)
            await seeing.rollback()
            return comparison

    # ---- taking over ------------------------------------------------------------------------------------------

    async def _take_over(self, model: ReadModel, applying: Applying) -> None:
        """Puts the new tables in place of the old, in one transaction; tries again where readers hold it up."""
        for attempt in range(TAKEOVER_ATTEMPTS_MAX):
            await self._fill(applying, await self._goal([model]))
            try:
                async with self._building.transaction():
                    await self._replace(model, applying)
                return
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                if attempt + 1 == TAKEOVER_ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(STAND_BY_SECONDS)

    async def _replace(self, model: ReadModel, applying: Applying) -> None:
        building = self._building
        await building.execute("SET LOCAL lock_timeout = '1s'")
        found = await live(building, model, lock=True)
        if found is not None:
            await self._fill(applying, found.position)
            for table in found.tables:
                await building.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(LIVE, table)))
        for table in model.tables:
            moved = sql.SQL("ALTER TABLE {} SET SCHEMA {}")
            await building.execute(moved.format(sql.Identifier(REBUILDING, table), sql.Identifier(LIVE)))
        known = {found.identity, *found.replaced} if found is not None else set()
        await building.execute(
            TAKE_OVER,
            {
                "model": model.name,
                "identity": model.identity,
                "position": await self._position(model),
                "tables": list(model.tables),
                "replaced": sorted(known - {model.identity}),
            },
        )
        await building.execute("DELETE FROM checkpoints WHERE model = %s", [model.name])
        await building.execute("SELECT pg_notify('projected', '0')")


async def compare(seeing: Connection, table: str, private: frozenset[str], comparison: Comparison) -> None:
    """Adds what differs between a table that is read and the one that is to take its place.

    Rows are named by their key, with digests in place of what is private. Of a table that is gone or has other columns,
    every row differs.
    """
    new = sql.Identifier(REBUILDING, table)
    cursor = await seeing.execute(sql.SQL("SELECT count(*) FROM {}").format(new))
    rows = int((await cursor.fetchone() or (0,))[0])
    comparison.rows += rows
    cursor = await seeing.execute(SHAPES, [[f"{LIVE}.{table}", f"{REBUILDING}.{table}"]])
    old_shape, new_shape = await cursor.fetchall()
    if old_shape != new_shape:
        comparison.differing += max(rows, 1)
        comparison.examples = [f"{table} is gone or altered", *comparison.examples][:EXAMPLES_MAX]
        return
    cursor = await seeing.execute(PRIMARY_KEY, [f"{LIVE}.{table}"])
    (key,) = await cursor.fetchone() or ([],)
    shown = [sql.SQL(DIGEST if name in private else "{}").format(sql.Identifier(name)) for name in key]
    both = {
        "key": sql.SQL(", ").join(map(sql.Identifier, key)),
        "shown": sql.SQL(", ").join(shown),
        "old": sql.Identifier(LIVE, table),
        "new": new,
        "examples_max": sql.Literal(EXAMPLES_MAX),
    }
    cursor = await seeing.execute(sql.SQL(DIFFERING).format(**both))
    differing = await cursor.fetchall()
    comparison.differing += differing[0][0] if differing else 0
    comparison.examples += [f"{table} {row}" for _, row in differing]
    del comparison.examples[EXAMPLES_MAX:]
