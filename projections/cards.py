"""Cards as people see them, read from the log itself: a card is there the moment it is enrolled."""

from datetime import datetime
from uuid import UUID

from ledger import card as rules_of_cards
from ledger.card import Card
from ledger.program import Program
from ledger.store.log import Log
from ledger.store.names import CARD, PROGRAM, TOPICS
from schemas import cards


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


async def find(log: Log, merchant: UUID, program: UUID, card: UUID, now: datetime) -> cards.Card | None:
    """One card of a merchant as of now; None for another merchant's as for none."""
    state = await current(log, merchant, card)
    return shown(state, await current_program(log, program), now) if state is not None else None


async def find_merged(log: Log, merchant: UUID, program: UUID, card: UUID, now: datetime) -> cards.Card | None:
    """The same, but the card that it was merged into where it was."""
    state = await current(log, merchant, card)
    while state is not None and state.merged_into is not None:
        state = await current(log, merchant, state.merged_into)
    return shown(state, await current_program(log, program), now) if state is not None else None


async def current(log: Log, merchant: UUID, card: UUID) -> Card | None:
    """A merchant's card as of now."""
    loaded = await log.load(CARD, card, fresh=True)
    return loaded.state if loaded is not None and loaded.merchant_id == merchant else None


async def page(
    log: Log, merchant: UUID, program: UUID, before: int, limit: int, now: datetime
) -> tuple[list[cards.Card], int | None]:
    """A merchant's cards, newest first, enrolled before a position; and from where the next page goes on."""
    topic = TOPICS[rules_of_cards.CardEnrolled]
    found = await log.first_events(merchant, topic, before, limit + 1, newest_first=True)
    shown_cards = []
    followed = await current_program(log, program) if found else None
    states = {loaded.stream: loaded for loaded in await log.load_many(CARD, [stream for _, stream in found[:limit]])}
    for _, stream in found[:limit]:
        loaded = states[stream]
        assert followed is not None, "cards are enrolled under a program"
        shown_cards.append(shown(loaded.state, followed, now))
    return shown_cards, found[limit - 1][0] if len(found) > limit else None


async def current_program(log: Log, program: UUID) -> Program:
    """A program that is there."""
    loaded = await log.load(PROGRAM, program, fresh=True)
    assert loaded is not None, "cards are enrolled under a program"
    return loaded.state
