"""Transactions: what happened to cards, as tills, managers and customers read it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.rows import TupleRow

from ledger.actor import PLATFORM
from ledger.entry import transaction_id
from ledger.store import END_OF_LOG
from ledger.store.log import Log
from ledger.store.names import CARD, MERCHANT, STAFF_PIN
from projections.figures import Active
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
OF_MERCHANT = f"""
    SELECT page.*, cards.card_number FROM (
        SELECT {SELECTED} FROM transactions t
        WHERE t.merchant_id = %(merchant)s AND (t.day, t.position) < (%(before_day)s, %(before)s)
            AND t.day >= %(from)s AND t.day <= %(to)s
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
    asked = {"cards": list(cards), "before": before or END_OF_LOG, "kind": kind, "limit": limit + 1}
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
    before_day, before_position = before or (date.max, END_OF_LOG)
    asked = {
        "merchant": merchant,
        "before_day": before_day,
        "before": before_position,
        "from": wanted.first_day or date.min,
        "to": wanted.last_day or date.max,
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


# ---- which cards were used ----------------------------------------------------------------------------------------

VISITS = """
    FROM transactions t
    WHERE t.merchant_id = m.id AND t.day >= %(from)s AND t.day <= %(to)s AND t.visit
        AND (%(store)s::uuid IS NULL OR t.store_id = %(store)s)
        AND (%(staff)s::uuid IS NULL OR t.staff_id = %(staff)s)
"""
THESE, ALL = "unnest(%(merchants)s::uuid[])", "(SELECT id FROM merchants)"
USED_BY_DAY = """
    SELECT used.day, sum(used.cards)::bigint
    FROM {whose} AS m (id) CROSS JOIN LATERAL (
        SELECT t.day, count(DISTINCT t.card_id) AS cards {visits} GROUP BY t.day
    ) AS used
    GROUP BY used.day
"""
USED = """
    SELECT coalesce(sum(used.cards), 0)::bigint, coalesce(sum(used.returning), 0)::bigint
    FROM {whose} AS m (id) CROSS JOIN LATERAL (
        SELECT count(*) AS cards, count(*) FILTER (WHERE cards.first_visit_day < by_card.last_day) AS returning
        FROM (SELECT t.card_id, max(t.day) AS last_day {visits} GROUP BY t.card_id) AS by_card
        LEFT JOIN cards ON cards.id = by_card.card_id
    ) AS used
"""
USED_HERE = """
    SELECT {counted}
    FROM (
        SELECT t.card_id, max(t.day) AS last_day, bit_or(store.bit) AS stores, bit_or(staff.bit) AS staff
        {visits} GROUP BY t.card_id
    ) AS used
    LEFT JOIN cards ON cards.id = used.card_id
"""
WITH_BITS = """
    FROM unnest(%(merchants)s::uuid[]) AS m (id) JOIN transactions t ON t.merchant_id = m.id
    LEFT JOIN unnest(%(stores)s::uuid[], %(store_bits)s::bigint[]) AS store (id, bit)
        ON store.id = coalesce(t.store_id, %(nobody)s)
    LEFT JOIN unnest(%(staff_ids)s::uuid[], %(staff_bits)s::bigint[]) AS staff (id, bit)
        ON staff.id = coalesce(t.staff_id, %(nobody)s)
"""
USED_BY = f"""
    SELECT used.what, count(*) FROM {THESE} AS m (id) CROSS JOIN LATERAL (
        SELECT t.{{column}} AS what, t.card_id {VISITS} GROUP BY t.{{column}}, t.card_id
    ) AS used
    GROUP BY used.what
"""  # noqa: S608 names of our own
BITS_MAX = 62
USED_OF_EACH = f"""
    SELECT m.id, used.cards FROM {THESE} AS m (id) CROSS JOIN LATERAL (
        SELECT count(DISTINCT t.card_id) AS cards {VISITS}
    ) AS used
"""  # noqa: S608 names of our own


@dataclass
class ActiveOfMerchant(Active):
    """How many cards were used, also by store and by staff member; None stands for none."""

    by_store: dict[UUID | None, int] = field(default_factory=dict)
    by_staff: dict[UUID | None, int] = field(default_factory=dict)


def used_when(wanted: Wanted) -> dict[str, Any]:
    """What the queries above are asked with."""
    return {
        "from": wanted.first_day or date.min,
        "to": wanted.last_day or date.max,
        "store": wanted.store_id,
        "staff": wanted.staff_id,
    }


async def active_of(
    reader: Reader, merchant: UUID, wanted: Wanted, stores: Sequence[UUID | None], staff: Sequence[UUID | None]
) -> ActiveOfMerchant:
    """How many of a merchant's cards were used on some days, in a store, with a staff member's PIN.

    `stores` and `staff` are those by whom to count, too; None stands for none. Each count looks at every visit of those
    days, so that two are made at once.
    """
    asked = used_when(wanted) | {"merchants": [merchant]}
    by_day, active = await asyncio.gather(
        reader.rows(USED_BY_DAY.format(whose=THESE, visits=VISITS), asked),
        used_here(reader, asked, stores[:BITS_MAX], staff[:BITS_MAX]),
    )
    active.by_day = dict(by_day)
    if len(stores) > BITS_MAX:
        active.by_store = dict(await reader.rows(USED_BY.format(column="store_id"), asked))
    if len(staff) > BITS_MAX:
        active.by_staff = dict(await reader.rows(USED_BY.format(column="staff_id"), asked))
    return active


async def used_here(
    reader: Reader, asked: dict[str, Any], stores: Sequence[UUID | None], staff: Sequence[UUID | None]
) -> ActiveOfMerchant:
    """Counts cards once, each with a bit for every store and for every staff member that it was used with.

    That takes a third of the time of counting pairs of a card and a store, and of a card and a staff member.
    """
    bits = {
        "store": [1 << number for number in range(len(stores))],
        "staff": [1 << number for number in range(len(staff))],
    }
    counted = [
        "count(*)",
        "count(*) FILTER (WHERE cards.first_visit_day < used.last_day)",
        *(f"count(*) FILTER (WHERE used.stores & {bit} <> 0)" for bit in bits["store"]),
        *(f"count(*) FILTER (WHERE used.staff & {bit} <> 0)" for bit in bits["staff"]),
    ]
    query = USED_HERE.format(counted=", ".join(counted), visits=VISITS.replace("FROM transactions t", WITH_BITS))
    with_bits = {
        "nobody": PLATFORM,
        "stores": [store or PLATFORM for store in stores],
        "store_bits": bits["store"],
        "staff_ids": [member or PLATFORM for member in staff],
        "staff_bits": bits["staff"],
    }
    ((cards, returning, *each),) = await reader.rows(query, asked | with_bits)
    return ActiveOfMerchant(
        cards,
        returning,
        by_store=dict(zip(stores, each[: len(stores)], strict=True)),
        by_staff=dict(zip(staff, each[len(stores) :], strict=True)),
    )


async def active_of_all(reader: Reader, first_day: date | None, last_day: date | None) -> Active:
    """How many cards of all merchants were used on some days."""
    asked = used_when(Wanted(first_day, last_day))
    by_day, used = await asyncio.gather(
        reader.rows(USED_BY_DAY.format(whose=ALL, visits=VISITS), asked),
        reader.rows(USED.format(whose=ALL, visits=VISITS), asked),
    )
    ((cards, returning),) = used
    return Active(cards, returning, dict(by_day))


async def active_of_each(reader: Reader, merchants: Sequence[UUID], first_day: date, last_day: date) -> dict[UUID, int]:
    """How many cards of each of some merchants were used on some days."""
    asked = used_when(Wanted(first_day, last_day)) | {"merchants": list(merchants)}
    return dict(await reader.rows(USED_OF_EACH, asked))
