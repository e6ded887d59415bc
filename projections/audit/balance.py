"""A card's balance at any time, as it was known at any other."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec

from ledger import card, program
from ledger.card import Card
from ledger.entry import transaction_id
from ledger.lots import Lot, LotName
from ledger.program import Program, Rules
from ledger.store.codec import Read, decode
from ledger.store.log import Log
from ledger.streams import program_stream
from projections.audit.horizon import Horizon
from projections.audit.lots import Sums
from schemas import audit

Found = tuple[int, Read]


async def chosen(log: Log, stream: UUID, horizon: Horizon, *, unsealed: bool = False) -> AsyncIterator[list[Found]]:
    """A stream's events within a horizon, in the order of the log, some at a time; the sealed parts on request."""
    async for chunk in log.records.of_streams([stream], until=horizon.until):
        reads = [(record.position, decode(record.stored, record.key if unsealed else None)) for record in chunk]
        yield [
            (position, read)
            for position, read in reads
            if horizon.admits(position, read.at.occurred_at, read.at.recorded_at)
        ]


async def balance(log: Log, current: Card, horizon: Horizon) -> audit.Balance:
    """The balance of a card, of which `current` is the state as of now."""
    sums = Sums(current.id)
    async for found in chosen(log, current.id, horizon):
        for position, read in found:
            sums.take(position, read.event, read.at)
    followed, _ = await program_told(log, current.merchant_id, horizon)
    return shown(sums, current, followed, horizon)


async def program_told(log: Log, merchant: UUID, horizon: Horizon) -> tuple[Program | None, dict[int, Rules]]:
    """The merchant's program within a horizon, None where there was none by then; and its rules by every version."""
    state: Program | None = None
    rules: dict[int, Rules] = {}
    async for chunk in log.records.of_streams([program_stream(merchant)], until=horizon.head):
        for record in chunk:
            read = decode(record.stored, None)
            rules[record.version] = read.event.rules
            if horizon.admits(record.position, read.at.occurred_at, read.at.recorded_at):
                state = program.evolve(state, read.event, read.at)
    return state, rules


def shown(sums: Sums, current: Card, followed: Program | None, horizon: Horizon) -> audit.Balance:
    """Sums as they cross the wire."""
    return audit.Balance(
        card_id=sums.card_id,
        as_of=horizon.head if horizon.as_of is None else horizon.as_of,
        known_at=horizon.head if horizon.known_at is None else horizon.known_at,
        status=sums.status.value if sums.status is not None else None,
        points_balance=sums.points,
        stamp_count=sums.stamps,
        last_activity_at=sums.last_activity_at,
        events=sums.events,
        version=sums.version,
        position=sums.position,
        lots=[audit.Lot(**lot_shown(lot, sums.card_id)) for lot in sums.lots],
        points_outside_lots=sums.points_outside_lots,
        points_due=points_due(sums, current, followed, horizon),
        due_by=horizon.by,
    )


def lot_shown(lot: Lot, card_id: UUID) -> dict[str, Any]:
    """A lot's members as they cross the wire."""
    return {
        "id": lot_id(lot.name, card_id),
        "points": lot.points,
        "earned_at": lot.earned_at,
        "expires_at": lot.expires_at,
    }


def lot_id(name: LotName, card_id: UUID) -> str:
    """A lot's name for everybody: the transaction that began it."""
    return transaction_id(name.card or card_id, name.lot)


def points_due(sums: Sums, current: Card, followed: Program | None, horizon: Horizon) -> int:
    """How many of the points had ended by the time as of which is asked, by the program as it was then."""
    if followed is None or sums.last_activity_at is None:
        return 0
    lots = tuple(lot for lot in sums.lots if lot.points > 0)
    then = msgspec.structs.replace(current, lots=lots, last_activity_at=sums.last_activity_at)
    return sum(lot.points for _, due in card.due_by(then, followed, horizon.by) for lot in due)
