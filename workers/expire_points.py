"""Takes what is due to expire, on every card of every merchant.

Each card is a command of its own, decided by the code that decides everything else about it; one on which nothing is
due makes no event. So this may be interrupted and run again, late, twice or twice at once, and the ledger is the same.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ledger import card
from ledger.actor import OPERATOR, Caller, Role
from ledger.commands import OnCard, WhichCard
from ledger.errors import Unavailable
from ledger.handle import Ledger
from ledger.program import Program
from ledger.store.names import CARD, PROGRAM, TOPICS
from ledger.streams import program_stream

CARDS_AT_ONCE = 64
ENROLLED = TOPICS[card.CardEnrolled]


@dataclass
class Expired:
    """What a run took, or would take.

    `looked_at` counts the cards of programs that have or had an expiry, `failed` those that could not be done in time.
    """

    looked_at: int = 0
    cards: int = 0
    points: int = 0
    failed: int = 0


async def cards_to_look_at(ledger: Ledger) -> int:
    """How many cards there are in programs with an expiry."""
    counts = [await ledger.log.count_first_events(program.merchant_id, ENROLLED) async for program in programs(ledger)]
    return sum(counts)


async def expire_points(
    ledger: Ledger, by: datetime, *, writes: bool = True, tell: Callable[[Expired], None] = lambda _: None
) -> Expired:
    """Expires what is due by then and tells how far it is after every batch; only counts it unless it `writes`.

    A card that fails is left to the next run and holds up no other. Raises `Unavailable` where the log does not answer
    at all; what was done until then is done.
    """
    expired = Expired()
    async for program in programs(ledger):
        after = 0
        while found := await ledger.log.first_events(program.merchant_id, ENROLLED, after, CARDS_AT_ONCE):
            after = found[-1][0]
            states = [loaded.state for loaded in await ledger.log.load_many(CARD, [stream for _, stream in found])]
            due = [state for state in states if card.due_by(state, program, by)]
            taken = await take(ledger, due, by) if writes else [would_lose(state, program, by) for state in due]
            expired.looked_at += len(found)
            expired.cards += sum(bool(points) for points in taken)
            expired.points += sum(points or 0 for points in taken)
            expired.failed += taken.count(None)
            tell(expired)
    return expired


async def programs(ledger: Ledger) -> AsyncIterator[Program]:
    """The programs under which points expire, or did: what was due then may not have been noticed yet."""
    for merchant in await ledger.log.merchants():
        loaded = await ledger.log.load(PROGRAM, program_stream(merchant), fresh=True)
        if loaded is not None and any(period.days is not None for period in loaded.state.expiry_periods):
            yield loaded.state


async def take(ledger: Ledger, cards: list[card.Card], by: datetime) -> list[int | None]:
    """Expires cards at once; tells how many points each of them lost, None of those that failed."""
    lost_points = await asyncio.gather(*(lost(ledger, each.merchant_id, each.id, by) for each in cards))
    if cards and all(points is None for points in lost_points):
        raise Unavailable("no card could be expired")
    return lost_points


async def lost(ledger: Ledger, merchant: UUID, stream: UUID, by: datetime) -> int | None:
    """Expires one card, as it is now, and tells how many points it lost; None where that did not succeed in time."""
    caller = Caller(role=Role.OPERATOR, id=OPERATOR, merchant_id=merchant)
    command = OnCard(which=WhichCard(card_id=stream), command=card.ExpirePoints())
    try:
        handled = await ledger.handle(command, caller, occurred_at=by)
    except Unavailable:
        return None
    assert handled.result is not None, "a command without a key is never a replay"
    return sum(event.points for _, event in handled.result.events if isinstance(event, card.PointsExpired))


def would_lose(state: card.Card, program: Program, by: datetime) -> int | None:
    """How many points a card loses by then if nothing happens before."""
    return sum(lot.points for _, lots in card.due_by(state, program, by) for lot in lots)
