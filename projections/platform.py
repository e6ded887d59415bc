"""Figures of the whole platform by day, whoever's the cards are."""

from datetime import UTC, date, datetime

from projections.figures import (
    COLUMNS,
    NAMES,
    STANDING,
    TOPICS,
    Standing,
    add,
    closed_cards,
    figures_of,
    summed,
    totals,
    upsert,
)
from projections.read_model import Batch, Connection, Memory, ReadModel
from projections.reading import Reader
from projections.visits import active_of_all
from schemas.statistics import PlatformStatistics

UPSERT = upsert("platform_days", {"day": "date"})


async def apply(batch: Batch, connection: Connection, _memory: Memory) -> None:
    """Adds what moved, by day."""
    rows = await summed(batch, connection, "platform_closed_cards", lambda _merchant, day, _store, _staff: day)
    await add(connection, UPSERT, (((day,), figures) for day, figures in sorted(rows.items())))


MODEL = ReadModel(
    name="platform",
    version=1,
    tables={
        "platform_days": f"""
            CREATE TABLE platform_days (
                day date PRIMARY KEY,
                {COLUMNS.strip()}
            )""",
        "platform_closed_cards": closed_cards("platform_closed_cards"),
    },
    indexes="",
    topics=TOPICS,
    apply=apply,
)

# ---- queries ------------------------------------------------------------------------------------------------------

DAYS = f"SELECT day, {', '.join(NAMES)} FROM platform_days WHERE day >= %(from)s AND day <= %(to)s"  # noqa: S608 names of our own
BEFORE = f"SELECT {STANDING} FROM platform_days WHERE day < %(from)s"  # noqa: S608 names of our own
COUNTS = """
    SELECT (SELECT count(*) FROM merchants), (SELECT count(*) FROM programs), (SELECT count(*) FROM stores)
"""


async def of_all(reader: Reader, first_day: date | None, last_day: date | None, now: datetime) -> PlatformStatistics:
    """The figures of all merchants of some days, from the first one on and until now where nothing else is said."""
    asked = {"from": first_day or date.min, "to": last_day or date.max}
    before = Standing(*map(int, (await reader.rows(BEFORE, asked))[0])) if first_day is not None else Standing()
    days = {day: figures_of(sums) for day, *sums in await reader.rows(DAYS, asked)}
    active = await active_of_all(reader, first_day, last_day)
    (merchants, programs, stores), *_ = await reader.rows(COUNTS, {})
    return PlatformStatistics(
        from_=first_day or min(days, default=None),
        # East of here it may be another day already.
        to=last_day or max(now.astimezone(UTC).date(), *days, first_day or date.min),
        merchants=merchants,
        programs=programs,
        stores=stores,
        **totals(before, days, active),
    )
