"""What happened to cards, as people see it: the one translation of events into movements of stamps and points."""

from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from ledger import card
from ledger.actor import Role
from ledger.store.codec import Read
from ledger.store.names import topics_of
from schemas.cards import TransactionKind

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

VISITS = (card.StampAdded, card.StampsRedeemed, card.PointsEarned, card.PointsRedeemed)
"""What customers do at a till; it is these that make a card an active one."""


class Movement(NamedTuple):
    """One event of a card as people see it. `day` is the store's own date; `visit` whether the customer was there."""

    position: int
    merchant_id: UUID
    card_id: UUID
    version: int
    kind: TransactionKind
    occurred_at: datetime
    recorded_at: datetime
    day: date
    store_id: UUID | None
    terminal_id: UUID | None
    staff_id: UUID | None
    order_reference: str | None
    purchase_amount_cents: int | None
    points: int
    stamps: int
    points_balance: int
    stamp_count: int
    reverses_card: UUID | None
    reverses_version: int | None
    visit: bool


def movement(position: int, read: Read, day: date) -> Movement:
    """An event of one of the kinds above as a movement, on that day of its store."""
    event, at = read.event, read.at
    kind = type(event)
    actor = at.actor
    points, stamps = signed_change(event)
    reversal = event if kind is card.TransactionReversed else None
    return Movement(
        position,
        at.merchant_id,
        at.stream,
        at.version,
        KINDS[kind],
        at.occurred_at,
        at.recorded_at,
        day,
        actor.store_id,
        actor.id if actor.role is Role.TERMINAL else None,
        actor.staff_id,
        event.order_reference if kind is card.PointsEarned else None,
        event.purchase_amount_cents if kind is card.PointsEarned or reversal else None,
        points,
        stamps,
        event.points_balance,
        event.stamp_count,
        reversal.card if reversal else None,
        reversal.version if reversal else None,
        kind in VISITS,
    )


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
