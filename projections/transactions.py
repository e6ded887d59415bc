"""Transactions: what happened to cards, as tills, managers and customers read it."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.rows import TupleRow

from ledger.entry import transaction_id
from ledger.store import END_OF_LOG
from ledger.store.log import Log
from ledger.store.names import CARD, MERCHANT, STAFF_PIN
from projections.movements import TOPICS, Movement
from projections.read_model import Batch, Connection, Memory, ReadModel
from projections.reading import Reader
from schemas.cards import CardTransaction, Transaction, TransactionKind

# ---- the table ----------------------------------------------------------------------------------------------------

COLUMNS = {
    "position": "bigint PRIMARY KEY",
    "merchant_id": "uuid NOT NULL",
    "card_id": "uuid NOT NULL",
    "version": "bigint NOT NULL",
    "kind": 'text COLLATE "C" NOT NULL',
    "occurred_at": "timestamptz NOT NULL",
    "recorded_at": "timestamptz NOT NULL",
    "day": "date NOT NULL",
    "store_id": "uuid",
    "terminal_id": "uuid",
    "staff_id": "uuid",
    "order_reference": 'text COLLATE "C"',
    "purchase_amount_cents": "bigint",
    "points": "bigint NOT NULL",
    "stamps": "bigint NOT NULL",
    "points_balance": "bigint NOT NULL",
    "stamp_count": "bigint NOT NULL",
    "reverses_card": "uuid",
    "reverses_version": "bigint",
    "visit": "boolean NOT NULL",
}
assert tuple(COLUMNS) == Movement._fields, "a movement is a row"
CARD_ID, STAFF = Movement._fields.index("card_id"), Movement._fields.index("staff_id")
TYPES = [kind.split()[0] for kind in COLUMNS.values()]
COPY = f"COPY transactions ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)".encode()


async def apply(batch: Batch, connection: Connection, _memory: Memory) -> None:
    """Adds a row for each movement; none is ever changed."""
    if not batch.movements:
        return
    async with connection.cursor().copy(COPY) as copy:
        copy.set_types(TYPES)
        for movement in batch.movements:
            await copy.write_row(movement)


MODEL = ReadModel(
    name="transactions",
    version=1,
    tables={"transactions": f"CREATE TABLE transactions ({', '.join(f'{name} {COLUMNS[name]}' for name in COLUMNS)})"},
    indexes="""
        CREATE INDEX IF NOT EXISTS transactions_card ON transactions (card_id, position);
        CREATE INDEX IF NOT EXISTS transactions_day ON transactions (merchant_id, day, position)
            INCLUDE (card_id, store_id, staff_id, visit);
        CREATE INDEX IF NOT EXISTS transactions_order ON transactions (merchant_id, order_reference, position)
            WHERE order_reference IS NOT NULL;
    """,
    topics=frozenset(TOPICS),
    apply=apply,
)

# ---- queries ------------------------------------------------------------------------------------------------------

SELECTED = ", ".join(f"t.{name}" for name in COLUMNS)
OF_CARDS = f"""
    SELECT page.* FROM unnest(%(cards)s::uuid[]) AS asked (card_id)
    CROSS JOIN LATERAL (
        SELECT {SELECTED} FROM transactions t
        WHERE t.card_id = asked.card_id AND t.position < %(before)s
            AND (%(kind)s::text IS NULL OR t.kind = %(kind)s)
        ORDER BY t.position DESC LIMIT %(limit)s
    ) AS page
    ORDER BY page.position DESC LIMIT %(limit)s
"""  # noqa: S608 names of our own
NO_BOUND = (date.max, END_OF_LOG)
OF_MERCHANT = f"""
    SELECT page.*, cards.card_number FROM (
        SELECT {SELECTED} FROM transactions t
        WHERE t.merchant_id = %(merchant)s AND (t.day, t.position) < (%(before_day)s, %(before)s)
            AND t.day >= %(from)s
            AND (%(kind)s::text IS NULL OR t.kind = %(kind)s)
            AND (%(store)s::uuid IS NULL OR t.store_id = %(store)s)
            AND (%(staff)s::uuid IS NULL OR t.staff_id = %(staff)s)
            AND (%(order)s::text IS NULL OR t.order_reference = %(order)s)
        ORDER BY t.day DESC, t.position DESC LIMIT %(limit)s
    ) AS page
    LEFT JOIN cards ON cards.id = page.card_id
    ORDER BY page.day DESC, page.position DESC
"""  # noqa: S608 names of our own


class Wanted(NamedTuple):
    """Which transactions of a merchant: of some days, inclusive, of a kind, a store, a staff member, an order."""

    first_day: date | None = None
    last_day: date | None = None
    kind: TransactionKind | None = None
    store_id: UUID | None = None
    staff_id: UUID | None = None
    order_reference: str | None = None


async def of_card(
    reader: Reader,
    log: Log,
    merchant: UUID,
    cards: Sequence[UUID],
    before: int | None,
    limit: int,
    kind: TransactionKind | None = None,
) -> tuple[list[Transaction], int | None]:
    """The transactions of a card and of those merged into it, newest first, before a position.

    And from where the next page goes on.
    """
    asked = {"cards": list(cards), "before": END_OF_LOG if before is None else before, "kind": kind, "limit": limit + 1}
    rows = await reader.rows(OF_CARDS, asked)
    names = await Names.of(log, merchant, rows[:limit])
    items = [Transaction(**names.shown(Movement(*row))) for row in rows[:limit]]
    return items, items[-1].position if len(rows) > limit else None


async def of_merchant(
    reader: Reader, log: Log, merchant: UUID, wanted: Wanted, before: tuple[date, int] | None, limit: int
) -> tuple[list[CardTransaction], tuple[date, int] | None]:
    """A merchant's transactions, those of the latest day first and within it the newest, before a day and position.

    And from where the next page goes on.
    """
    # One bound, so that a page far down begins at its place in the index.
    last = wanted.last_day
    after_last = (last + timedelta(days=1), 0) if last is not None and last < date.max else NO_BOUND
    before_day, before_position = min(before or NO_BOUND, after_last)
    asked = {
        "merchant": merchant,
        "before_day": before_day,
        "before": before_position,
        "from": wanted.first_day or date.min,
        "kind": wanted.kind,
        "store": wanted.store_id,
        "staff": wanted.staff_id,
        "order": wanted.order_reference,
        "limit": limit + 1,
    }
    rows = await reader.rows(OF_MERCHANT, asked)
    movements = [Movement(*row[:-1]) for row in rows[:limit]]
    names = await Names.of(log, merchant, movements)
    numbers = await card_numbers(log, {row[CARD_ID]: row[-1] for row in rows[:limit]})
    items = [
        CardTransaction(**names.shown(each), card_id=each.card_id, card_number=numbers[each.card_id])
        for each in movements
    ]
    following = (movements[-1].day, movements[-1].position) if len(rows) > limit else None
    return items, following


async def card_numbers(log: Log, known: dict[UUID, str | None]) -> dict[UUID, str]:
    """The numbers of some cards, from the log where their own table does not tell of them yet."""
    unknown = [card for card, number in known.items() if number is None]
    found = {each.stream: each.state.card_number for each in await log.load_many(CARD, unknown)} if unknown else {}
    return {card: number for card, number in known.items() if number is not None} | found


class Names(NamedTuple):
    """What the stores and the staff of some transactions are called."""

    stores: dict[UUID, str]
    staff: dict[UUID, str]

    @staticmethod
    async def of(log: Log, merchant: UUID, rows: Sequence[TupleRow]) -> "Names":
        """The names as they are now."""
        tenant = await log.load(MERCHANT, merchant, fresh=True)
        stores = {store.id: store.code for store in tenant.state.stores.values()} if tenant is not None else {}
        ids = {staff_id for row in rows if (staff_id := row[STAFF]) is not None}
        pins = await log.load_many(STAFF_PIN, list(ids)) if ids else []
        return Names(stores, {pin.stream: pin.state.name for pin in pins})

    def shown(self, movement: Movement) -> dict[str, Any]:
        """A movement as the members of a transaction."""
        reverses = None
        if movement.reverses_card is not None and movement.reverses_version is not None:
            reverses = transaction_id(movement.reverses_card, movement.reverses_version)
        return {
            "id": transaction_id(movement.card_id, movement.version),
            "kind": movement.kind,
            "occurred_at": movement.occurred_at,
            "recorded_at": movement.recorded_at,
            "store_code": self.stores.get(movement.store_id) if movement.store_id is not None else None,
            "terminal_id": movement.terminal_id,
            "staff_id": movement.staff_id,
            "staff_name": self.staff.get(movement.staff_id) if movement.staff_id is not None else None,
            "order_reference": movement.order_reference,
            "purchase_amount_cents": movement.purchase_amount_cents,
            "points": movement.points,
            "stamps": movement.stamps,
            "points_balance": movement.points_balance,
            "stamp_count": movement.stamp_count,
            "reverses": reverses,
            "position": movement.position,
        }
