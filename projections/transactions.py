"""A card's history as people read it, folded from its stream."""

from typing import Any
from uuid import UUID

from ledger import card
from ledger.actor import Role
from ledger.entry import transaction_id
from ledger.store.codec import Read
from ledger.store.log import Log
from ledger.store.names import CARD, MERCHANT, STAFF_PIN, topics_of
from schemas.cards import Transaction, TransactionKind

KINDS: dict[type[Any], TransactionKind] = {
    card.CardEnrolled: "enrolled",
    card.WelcomeBonusGranted: "points_earned",
    card.StampAdded: "stamp_added",
    card.StampsRedeemed: "stamps_redeemed",
    card.PointsEarned: "points_earned",
    card.PointsRedeemed: "points_redeemed",
    card.PointsExpired: "points_expired",
    card.TransactionReversed: "reversed",
    card.BalanceAdjusted: "adjusted",
    card.CardMerged: "merged",
    card.CardAbsorbed: "merged",
    card.BalanceImported: "imported",
}
TOPICS = [topic for event_type in KINDS for topic in topics_of(event_type)]
"""What moves a balance; that a card was suspended or closed is no transaction."""


def signed_change(event: card.Event) -> tuple[int, int]:
    """By how much an event moved points and stamps."""
    match event:
        case card.PointsEarned() | card.WelcomeBonusGranted():
            return event.points, 0
        case card.PointsRedeemed() | card.PointsExpired():
            return -event.points, 0
        case card.TransactionReversed() | card.BalanceAdjusted() | card.BalanceImported():
            return event.points, event.stamps
        case card.CardMerged() | card.CardAbsorbed():
            return event.points, event.stamps
        case card.StampAdded():
            return 0, event.stamps
        case card.StampsRedeemed():
            return 0, -event.stamps
        case card.CardEnrolled() | card.CardSuspended() | card.CardReactivated() | card.CardClosed():
            return 0, 0


async def page(log: Log, merchant: UUID, stream: UUID, before: int, limit: int) -> tuple[list[Transaction], int | None]:
    """A card's transactions, newest first, before a position; and from where the next page goes on.

    Those of the cards that were merged into it are among them.
    """
    loaded = await log.load(CARD, stream, fresh=True)
    streams = [stream, *(loaded.state.absorbed if loaded is not None else ())]
    found = await log.history(streams, before, limit + 1, TOPICS)
    shown = found[:limit]
    tenant = await log.load(MERCHANT, merchant, fresh=True)
    codes = {store.id: store.code for store in tenant.state.stores.values()} if tenant is not None else {}
    names: dict[UUID, str] = {}
    for staff_id in {read.at.actor.staff_id for _, read in shown} - {None}:
        assert staff_id is not None, "None was taken out"
        staff = await log.load(STAFF_PIN, staff_id, fresh=True)
        if staff is not None:
            names[staff_id] = staff.state.name
    items = [transaction(position, read, codes, names) for position, read in shown]
    return items, shown[-1][0] if len(found) > limit else None


def transaction(position: int, read: Read, codes: dict[UUID, str], names: dict[UUID, str]) -> Transaction:
    """One event as a transaction, with the codes of stores and the names of staff."""
    event, actor = read.event, read.at.actor
    points, stamps = signed_change(event)
    return Transaction(
        id=transaction_id(read.at.stream, read.at.version),
        kind=KINDS[type(event)],
        occurred_at=read.at.occurred_at,
        recorded_at=read.at.recorded_at,
        store_code=codes.get(actor.store_id) if actor.store_id is not None else None,
        terminal_id=actor.id if actor.role is Role.TERMINAL else None,
        staff_id=actor.staff_id,
        staff_name=names.get(actor.staff_id) if actor.staff_id is not None else None,
        order_reference=getattr(event, "order_reference", None),
        purchase_amount_cents=getattr(event, "purchase_amount_cents", None),
        points=points,
        stamps=stamps,
        points_balance=event.points_balance,
        stamp_count=event.stamp_count,
        reverses=transaction_id(event.card, event.version) if isinstance(event, card.TransactionReversed) else None,
        position=position,
    )
