"""A card as it stands, and what each event makes of it."""

from datetime import date, datetime
from enum import StrEnum
from typing import assert_never
from uuid import UUID

import msgspec

from ledger.actor import Occurrence
from ledger.card.events import (
    BalanceAdjusted,
    BalanceImported,
    CardAbsorbed,
    CardClosed,
    CardEnrolled,
    CardMerged,
    CardReactivated,
    CardSuspended,
    Event,
    PointsEarned,
    PointsExpired,
    PointsRedeemed,
    StampAdded,
    StampsRedeemed,
    TransactionReversed,
    WelcomeBonusGranted,
)
from ledger.lots import Lot, LotName, with_lot, with_parts, without

DATES_APART_MAX = 2
NO_ACTIVITY = (PointsExpired, CardMerged, CardAbsorbed, CardSuspended, CardReactivated, CardClosed)
"""What keeps no card from expiring: it is not the customer's doing, and gives them nothing."""


class CardStatus(StrEnum):
    """Whether a card takes part."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSED = "closed"
    ERASED = "erased"


class DayStamps(msgspec.Struct, gc=False, frozen=True):
    """How many stamps a card was given on one date of a store."""

    day: date
    stamps: int


class Card(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """The card as it stands. `customer_id` and `qr_code` are None once the person was erased.

    `lots` are oldest first and hold the points balance, or nothing where it is negative. `merged_into` is where all of
    it went; `absorbed` are the cards that were merged into this one, and into those.
    """

    id: UUID
    merchant_id: UUID
    customer: UUID
    customer_id: str | None
    qr_code: str | None
    card_number: str
    store_id: UUID | None
    enrolled_at: datetime
    last_activity_at: datetime
    status: CardStatus = CardStatus.ACTIVE
    stamp_count: int = 0
    points_balance: int = 0
    lots: tuple[Lot, ...] = ()
    last_stamp_at: datetime | None = None
    stamp_before_at: datetime | None = None
    recent_stamps: tuple[DayStamps, ...] = ()
    merged_into: UUID | None = None
    absorbed: tuple[UUID, ...] = ()

    def stamps_on(self, day: date) -> int:
        """Stamps given on that date."""
        return next((entry.stamps for entry in self.recent_stamps if entry.day == day), 0)


def evolve(card: Card | None, event: Event, at: Occurrence) -> Card:
    """The card after one more event."""
    if isinstance(event, CardEnrolled):
        return enrolled(event, at)
    assert card is not None, "a card is enrolled before anything else happens to it"
    of_the_shop = isinstance(event, NO_ACTIVITY)
    card = msgspec.structs.replace(
        card,
        stamp_count=event.stamp_count,
        points_balance=event.points_balance,
        last_activity_at=card.last_activity_at if of_the_shop else max(card.last_activity_at, at.occurred_at),
    )
    match event:
        case StampAdded():
            return stamped(card, event, at.occurred_at)
        case StampsRedeemed():
            return card
        case PointsEarned() | WelcomeBonusGranted() | BalanceImported() | BalanceAdjusted():
            return with_points(card, event, at)
        case PointsRedeemed() | PointsExpired():
            return msgspec.structs.replace(card, lots=without(card.lots, event.lots))
        case TransactionReversed():
            return undone(card, event, at.occurred_at)
        case CardMerged():
            return msgspec.structs.replace(card, lots=(), status=CardStatus.CLOSED, merged_into=event.into)
        case CardAbsorbed():
            return absorbing(card, event, at.occurred_at)
        case CardSuspended():
            return msgspec.structs.replace(card, status=CardStatus.SUSPENDED)
        case CardReactivated():
            return msgspec.structs.replace(card, status=CardStatus.ACTIVE)
        case CardClosed():
            return msgspec.structs.replace(card, status=CardStatus.CLOSED)
        case _:
            assert_never(event)


def enrolled(event: CardEnrolled, at: Occurrence) -> Card:
    """A card at its beginning."""
    holder = event.private
    return Card(
        id=at.stream,
        merchant_id=at.merchant_id,
        customer=event.customer,
        customer_id=holder.customer_id if holder else None,
        qr_code=holder.qr_code if holder else None,
        card_number=event.card_number,
        store_id=event.store_id,
        enrolled_at=at.occurred_at,
        last_activity_at=at.occurred_at,
    )


def stamped(card: Card, event: StampAdded, when: datetime) -> Card:
    """The card with one stamp more."""
    return msgspec.structs.replace(
        card,
        last_stamp_at=when,
        stamp_before_at=card.last_stamp_at,
        recent_stamps=with_stamps_on(card.recent_stamps, event.day, event.stamps_today),
    )


def with_stamps_on(recent: tuple[DayStamps, ...], day: date, stamps: int) -> tuple[DayStamps, ...]:
    """Forgets the dates that no store can still be at: at one instant, it is at most three dates on Earth."""
    near = (entry for entry in recent if entry.day != day and (day - entry.day).days <= DATES_APART_MAX)
    return (*near, DayStamps(day, stamps))


def with_points(
    card: Card, event: PointsEarned | WelcomeBonusGranted | BalanceImported | BalanceAdjusted, at: Occurrence
) -> Card:
    """The card with points in a lot, less what made a negative balance good; or, after a correction, without some."""
    if isinstance(event, BalanceAdjusted) and event.points < 0:
        return msgspec.structs.replace(card, lots=without(card.lots, event.taken))
    kept = max(0, min(event.points, card.points_balance))
    joins = None if isinstance(event, WelcomeBonusGranted) else event.joins
    name = joins or LotName(at.version)
    lot = Lot(name.lot, kept, at.occurred_at, event.expires_at, name.card)
    return msgspec.structs.replace(card, lots=with_lot(card.lots, lot))


def undone(card: Card, event: TransactionReversed, when: datetime) -> Card:
    """The card after a reversal: lots as before the transaction, and a stamp that counts for no limit any more."""
    card = msgspec.structs.replace(card, lots=with_parts(without(card.lots, event.taken), event.returned, when))
    if event.stamped_at is None or event.day is None:
        return card
    left = card.stamps_on(event.day) - 1
    if left >= 0:
        recent = tuple(DayStamps(each.day, left) if each.day == event.day else each for each in card.recent_stamps)
        card = msgspec.structs.replace(card, recent_stamps=recent)
    if event.stamped_at == card.last_stamp_at:
        return msgspec.structs.replace(card, last_stamp_at=card.stamp_before_at, stamp_before_at=None)
    if event.stamped_at == card.stamp_before_at:
        return msgspec.structs.replace(card, stamp_before_at=None)
    return card


def absorbing(card: Card, event: CardAbsorbed, when: datetime) -> Card:
    """The card with all that another had; stamps of the last days count together against the limits."""
    recent = card.recent_stamps
    for day, stamps in event.stamps_by_day.items():
        recent = with_stamps_on(recent, day, card.stamps_on(day) + stamps)
    known = (card.stamp_before_at, card.last_stamp_at, event.last_stamp_at)
    before, last = [None, None, *sorted(each for each in known if each is not None)][-2:]
    return msgspec.structs.replace(
        card,
        lots=without(with_parts(card.lots, event.lots, when), event.settled),
        recent_stamps=recent,
        last_stamp_at=last,
        stamp_before_at=before,
        last_activity_at=max(card.last_activity_at, event.last_activity_at),
        absorbed=(*card.absorbed, *event.cards),
    )
