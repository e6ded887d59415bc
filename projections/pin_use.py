"""How staff PINs are used: what was done with each, and how often a wrong one was tried, at which till."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from ledger.staff_pin import StaffPinCreated, StaffPinFailed
from ledger.store.log import Loaded, Log
from ledger.store.names import STAFF_PIN, TERMINAL, Aggregate, topics_of
from ledger.store.names import TOPICS as FIRST_TOPICS
from ledger.terminal import TerminalPinFailed, TerminalRegistered
from projections.movements import TOPICS
from projections.read_model import Batch, Connection, Memory, ReadModel
from projections.reading import Reader
from schemas import pins

S = TypeVar("S")

FAILED = (StaffPinFailed, TerminalPinFailed)
UPSERT = b"""
    INSERT INTO pin_use AS known (
        id, merchant_id, transactions, last_used_at, failures, lockouts, last_failed_at
    )
    SELECT * FROM unnest(
        %b::uuid[], %b::uuid[], %b::bigint[], %b::timestamptz[], %b::bigint[], %b::bigint[],
        %b::timestamptz[]
    )
    ON CONFLICT (id) DO UPDATE SET
        transactions = known.transactions + excluded.transactions,
        last_used_at = greatest(known.last_used_at, excluded.last_used_at),
        failures = known.failures + excluded.failures,
        lockouts = known.lockouts + excluded.lockouts,
        last_failed_at = greatest(known.last_failed_at, excluded.last_failed_at)
"""


@dataclass(slots=True)
class PinUse:
    """What a batch adds for one staff PIN, or for the PINs that belong to nobody at one terminal."""

    id: UUID
    merchant_id: UUID
    transactions: int = 0
    last_used_at: datetime | None = None
    failures: int = 0
    lockouts: int = 0
    last_failed_at: datetime | None = None

    def used(self, at: datetime) -> None:
        """Counts a transaction that was made with the PIN."""
        self.transactions += 1
        self.last_used_at = max(self.last_used_at or at, at)

    def failed(self, at: datetime, *, locked: bool) -> None:
        """Counts a wrong PIN."""
        self.failures += 1
        self.lockouts += locked
        self.last_failed_at = max(self.last_failed_at or at, at)


async def apply(batch: Batch, connection: Connection, _memory: Memory) -> None:
    """Counts uses by staff member and by terminal; wrong PINs by terminal only where nobody was named."""
    rows: dict[int, PinUse] = {}
    for movement in batch.movements:
        staff_id = movement.staff_id
        if staff_id is not None:
            use = rows.get(staff_id.int) or rows.setdefault(staff_id.int, PinUse(staff_id, movement.merchant_id))
            use.used(movement.recorded_at)
            at_till = movement.terminal_id
            if at_till is not None:
                use = rows.get(at_till.int) or rows.setdefault(at_till.int, PinUse(at_till, movement.merchant_id))
                use.used(movement.recorded_at)
    for _, read, _ in batch.events:
        event, at = read.event, read.at
        if type(event) in FAILED:
            use = rows.get(at.stream.int) or rows.setdefault(at.stream.int, PinUse(at.stream, at.merchant_id))
            use.failed(at.recorded_at, locked=event.locked_until is not None)
    if rows:
        columns = zip(
            *(
                (
                    use.id,
                    use.merchant_id,
                    use.transactions,
                    use.last_used_at,
                    use.failures,
                    use.lockouts,
                    use.last_failed_at,
                )
                for use in rows.values()
            ),
            strict=True,
        )
        await connection.execute(UPSERT, [list(column) for column in columns])


MODEL = ReadModel(
    name="pin_use",
    version=1,
    tables={
        "pin_use": """
            CREATE TABLE pin_use (
                id uuid PRIMARY KEY,
                merchant_id uuid NOT NULL,
                transactions bigint NOT NULL,
                last_used_at timestamptz,
                failures bigint NOT NULL,
                lockouts bigint NOT NULL,
                last_failed_at timestamptz
            )"""
    },
    indexes="CREATE INDEX IF NOT EXISTS pin_use_merchant ON pin_use (merchant_id);",
    topics=frozenset([*TOPICS, *(topic for event_type in FAILED for topic in topics_of(event_type))]),
    apply=apply,
)


# ---- queries ------------------------------------------------------------------------------------------------------

USES = """
    SELECT id, transactions, last_used_at, failures, lockouts, last_failed_at FROM pin_use
    WHERE merchant_id = %(merchant)s
"""
STREAMS_AT_ONCE = 500


async def uses(reader: Reader, log: Log, merchant: UUID) -> pins.PinUses:
    """How a merchant's PINs were used, by the name of whoever's they are; those that never were, too."""
    known = {row[0]: row[1:] for row in await reader.rows(USES, {"merchant": merchant})}
    staff = [
        pins.StaffUse(name=pin.state.name, active=pin.state.active, **of(pin.stream, known))
        for pin in await all_of(log, merchant, STAFF_PIN, FIRST_TOPICS[StaffPinCreated])
    ]
    terminals = [
        pins.PinUse(name=till.state.name, **of(till.stream, known))
        for till in await all_of(log, merchant, TERMINAL, FIRST_TOPICS[TerminalRegistered])
    ]
    return pins.PinUses(sorted(staff, key=by_name), sorted(terminals, key=by_name))


async def all_of(log: Log, merchant: UUID, aggregate: Aggregate[S, Any], topic: str) -> list[Loaded[S]]:
    """All of a merchant's streams that begin with a topic."""
    loaded: list[Loaded[S]] = []
    after = 0
    while found := await log.first_events(merchant, topic, after, STREAMS_AT_ONCE):
        loaded += await log.load_many(aggregate, [stream for _, stream in found])
        after = found[-1][0]
    return loaded


def of(stream: UUID, known: Mapping[UUID, Sequence[Any]]) -> dict[str, Any]:
    """The members that tell how a PIN was used."""
    transactions, last_used_at, failures, lockouts, last_failed_at = known.get(stream, (0, None, 0, 0, None))
    return {
        "id": stream,
        "transactions": transactions,
        "last_used_at": last_used_at,
        "failures": failures,
        "lockouts": lockouts,
        "last_failed_at": last_failed_at,
    }


def by_name(use: pins.PinUse) -> tuple[str, str]:
    """The order that uses are told in."""
    return use.name, str(use.id)
