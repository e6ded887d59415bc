"""Figures of the whole platform by day, whoever's the cards are."""

from datetime import date

from ledger.store.names import topics_of
from projections.figures import CLOSING, COLUMNS, Figures, upsert
from projections.movements import TOPICS
from projections.read_model import Batch, Connection, Memory, ReadModel

UPSERT = upsert("platform_days", {"day": "date"})


async def apply(batch: Batch, connection: Connection, _memory: Memory) -> None:
    """Adds what moved, by day."""
    rows: dict[date, Figures] = {}
    for movement in batch.movements:
        figures = rows.get(movement.day)
        if figures is None:
            figures = rows[movement.day] = Figures()
        figures.count(movement)
    for _, read, day in batch.events:
        if type(read.event) in CLOSING:
            assert day is not None, "events of cards have a day"
            rows.setdefault(day, Figures()).closures += 1
    if rows:
        columns = zip(*((day, *figures.values()) for day, figures in sorted(rows.items())), strict=True)
        await connection.execute(UPSERT, [list(column) for column in columns])


MODEL = ReadModel(
    name="platform",
    version=1,
    tables={
        "platform_days": f"""
            CREATE TABLE platform_days (
                day date PRIMARY KEY,
                {COLUMNS.strip()}
            )"""
    },
    indexes="",
    topics=frozenset([*TOPICS, *(topic for event_type in CLOSING for topic in topics_of(event_type))]),
    apply=apply,
)
