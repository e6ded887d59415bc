"""Figures of a merchant's program by store, staff member and day of the store; and who its active customers are."""

from datetime import date
from uuid import UUID

from ledger.actor import PLATFORM
from ledger.store.names import topics_of
from projections.figures import CLOSING, COLUMNS, Figures, upsert
from projections.movements import TOPICS
from projections.read_model import Batch, Connection, Memory, ReadModel

NOBODY = PLATFORM
"""Stands for the store in what happened in none, and for the staff member where nobody was named."""

KEYS = {"merchant_id": "uuid", "day": "date", "store_id": "uuid", "staff_id": "uuid"}
UPSERT = upsert("statistics", KEYS)


async def apply(batch: Batch, connection: Connection, _memory: Memory) -> None:
    """Adds what moved, by merchant, day, store and staff member."""
    rows: dict[tuple[int, date, int, int], Figures] = {}
    for movement in batch.movements:
        key = key_of(movement.merchant_id, movement.day, movement.store_id, movement.staff_id)
        figures = rows.get(key)
        if figures is None:
            figures = rows[key] = Figures()
        figures.count(movement)
    for _, read, day in batch.events:
        if type(read.event) in CLOSING:
            assert day is not None, "events of cards have a day"
            actor = read.at.actor
            key = key_of(read.at.merchant_id, day, actor.store_id, actor.staff_id)
            rows.setdefault(key, Figures()).closures += 1
    if rows:
        columns = zip(*(row(key, figures) for key, figures in rows.items()), strict=True)
        await connection.execute(UPSERT, [list(column) for column in columns])


def key_of(merchant: UUID, day: date, store: UUID | None, staff: UUID | None) -> tuple[int, date, int, int]:
    """A key that is compared quickly, of numbers in place of ids."""
    return merchant.int, day, (store or NOBODY).int, (staff or NOBODY).int


def row(key: tuple[int, date, int, int], figures: Figures) -> tuple[object, ...]:
    """A row of the table."""
    merchant, day, store, staff = key
    return UUID(int=merchant), day, UUID(int=store), UUID(int=staff), *figures.values()


MODEL = ReadModel(
    name="statistics",
    version=1,
    tables={
        "statistics": f"""
            CREATE TABLE statistics (
                merchant_id uuid NOT NULL,
                day date NOT NULL,
                store_id uuid NOT NULL,
                staff_id uuid NOT NULL,
                {COLUMNS.strip()},
                PRIMARY KEY (merchant_id, day, store_id, staff_id)
            )"""
    },
    indexes="",
    topics=frozenset([*TOPICS, *(topic for event_type in CLOSING for topic in topics_of(event_type))]),
    apply=apply,
)
