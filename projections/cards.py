"""Cards as people see them.

One card is read from the log itself, so that a till sees what another has just done; many are read from a table.
"""

from collections.abc import Sequence
from datetime import date, datetime
from itertools import islice
from uuid import UUID

import msgspec

from ledger import card as rules_of_cards
from ledger.card import Card, CardEnrolled
from ledger.program import Program
from ledger.store.log import Log
from ledger.store.names import CARD, PROGRAM, topics_of
from ledger.streams import program_stream
from projections.movements import VISITS
from projections.read_model import Batch, Connection, Memory, ReadModel, Told
from schemas import cards

REMEMBERED_MAX = 50_000
STATES = "SELECT id, state FROM cards WHERE id = ANY(%b)"
COLUMNS = {
    "id": "uuid PRIMARY KEY",
    "merchant_id": "uuid NOT NULL",
    "customer": "uuid NOT NULL",
    "store_id": "uuid",
    "card_number": 'text COLLATE "C" NOT NULL',
    "status": 'text COLLATE "C" NOT NULL',
    "points_balance": "bigint NOT NULL",
    "stamp_count": "bigint NOT NULL",
    "last_activity_at": "timestamptz NOT NULL",
    "first_visit_day": "date",
    "enrolled_position": "bigint NOT NULL",
    "state": "bytea NOT NULL",
}
STAGE = b"""
    CREATE TEMP TABLE IF NOT EXISTS changed_cards (LIKE cards) ON COMMIT DELETE ROWS;
    DELETE FROM changed_cards
"""
"""What takes over applies several batches in one transaction."""

COPY = f"COPY changed_cards ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)".encode()
UPSERT = b"""
    INSERT INTO cards SELECT * FROM changed_cards
    ON CONFLICT (id) DO UPDATE SET
        status = excluded.status, points_balance = excluded.points_balance, stamp_count = excluded.stamp_count,
        last_activity_at = excluded.last_activity_at,
        first_visit_day = least(cards.first_visit_day, excluded.first_visit_day), state = excluded.state
"""
HAPPENS_TO_CARDS = frozenset(CARD.events)

# ---- the table ----------------------------------------------------------------------------------------------------


async def apply(batch: Batch, connection: Connection, memory: Memory) -> None:
    """Folds every card that something happened to, by the rules' own `evolve`, and keeps what it came to."""
    by_card: dict[int, list[Told]] = {}
    for told in batch.events:
        if type(told.read.event) in HAPPENS_TO_CARDS:
            by_card.setdefault(told.read.at.stream.int, []).append(told)
    if not by_card:
        return
    await remember(by_card, connection, memory)
    await connection.execute(STAGE)
    async with connection.cursor().copy(COPY) as copy:
        copy.set_types([kind.split()[0] for kind in COLUMNS.values()])
        for stream, happened in by_card.items():
            card, changed = after(memory.pop(stream, None), happened)
            # The cards that were used last come last.
            memory[stream] = card
            await copy.write_row(changed)
    await connection.execute(UPSERT)
    for stream in list(islice(memory, max(0, len(memory) - REMEMBERED_MAX))):
        del memory[stream]


async def remember(by_card: dict[int, list[Told]], connection: Connection, memory: Memory) -> None:
    """Has the cards that a batch begins with."""
    missing = [
        happened[0].read.at.stream
        for stream, happened in by_card.items()
        if happened[0].read.at.version > 1 and stream not in memory
    ]
    if missing:
        cursor = connection.cursor(binary=True)
        await cursor.execute(STATES, [missing])
        memory |= {stream.int: decoded(state) for stream, state in await cursor.fetchall()}


def after(card: Card | None, happened: Sequence[Told]) -> tuple[Card, tuple[object, ...]]:
    """A card after what happened to it, and its row."""
    enrolled_position = 0
    first_visit: date | None = None
    for position, read, day in happened:
        event = read.event
        if type(event) is CardEnrolled:
            # What ties the card to a person stays sealed, in the log.
            event = msgspec.structs.replace(event, private=None)
            enrolled_position = position
        if type(event) in VISITS and day is not None:
            first_visit = min(first_visit or day, day)
        card = rules_of_cards.evolve(card, event, read.at)
    assert card is not None, "something happened to it"
    return card, row(card, first_visit, enrolled_position)


def row(card: Card, first_visit: date | None, enrolled_position: int) -> tuple[object, ...]:
    """A card as it stands in the table; `first_visit` is of the batch, `enrolled_position` counts for new ones only."""
    return (
        card.id,
        card.merchant_id,
        card.customer,
        card.store_id,
        card.card_number,
        card.status.value,
        card.points_balance,
        card.stamp_count,
        card.last_activity_at,
        first_visit,
        enrolled_position,
        msgspec.msgpack.encode(card),
    )


def decoded(state: bytes) -> Card:
    """A card as the table keeps it."""
    return msgspec.msgpack.decode(state, type=Card)


MODEL = ReadModel(
    name="cards",
    version=1,
    tables={"cards": f"CREATE TABLE cards ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})"},
    indexes="""
        CREATE INDEX IF NOT EXISTS cards_enrolled ON cards (merchant_id, enrolled_position);
        CREATE INDEX IF NOT EXISTS cards_status ON cards (merchant_id, status, enrolled_position);
        CREATE INDEX IF NOT EXISTS cards_activity ON cards (merchant_id, last_activity_at, enrolled_position);
        CREATE INDEX IF NOT EXISTS cards_customer ON cards (customer);
    """,
    topics=frozenset(topic for event_type in CARD.events for topic in topics_of(event_type)),
    apply=apply,
    rests_on=CARD.fold,
)

# ---- one card -----------------------------------------------------------------------------------------------------


def shown(card: Card, program: Program, now: datetime) -> cards.Card:
    """The card as it crosses the wire: what ended by now is not on it, as no command would find it there."""
    card = rules_of_cards.standing(card, program, now)
    expiry = rules_of_cards.next_expiry(card, program)
    return cards.Card(
        id=card.id,
        card_number=card.card_number,
        qr_code=card.qr_code,
        customer_id=card.customer_id,
        status=card.status.value,
        stamp_count=card.stamp_count,
        stamps_target=program.rules.stamps_target,
        points_balance=card.points_balance,
        next_expiry=cards.NextExpiry(expiry.points, expiry.at) if expiry else None,
        passes=cards.Passes(),
        enrolled_at=card.enrolled_at,
        last_activity_at=card.last_activity_at,
        merged_into=card.merged_into,
    )


async def find(log: Log, merchant: UUID, card: UUID, now: datetime) -> cards.Card | None:
    """One card of a merchant as of now; None for another merchant's as for none."""
    state = await current(log, merchant, card)
    return shown(state, await current_program(log, merchant), now) if state is not None else None


async def find_merged(log: Log, merchant: UUID, card: UUID, now: datetime) -> cards.Card | None:
    """The same, but the card that it was merged into where it was."""
    state = await current_merged(log, merchant, card)
    return shown(state, await current_program(log, merchant), now) if state is not None else None


async def current(log: Log, merchant: UUID, card: UUID) -> Card | None:
    """A merchant's card as of now."""
    loaded = await log.load(CARD, card, fresh=True)
    return loaded.state if loaded is not None and loaded.merchant_id == merchant else None


async def current_merged(log: Log, merchant: UUID, card: UUID) -> Card | None:
    """A merchant's card as of now, or the one that it was merged into where it was."""
    state = await current(log, merchant, card)
    while state is not None and state.merged_into is not None:
        state = await current(log, merchant, state.merged_into)
    return state


async def current_program(log: Log, merchant: UUID) -> Program:
    """The program of a merchant who has cards."""
    loaded = await log.load(PROGRAM, program_stream(merchant), fresh=True)
    assert loaded is not None, "cards are enrolled under a program"
    return loaded.state
