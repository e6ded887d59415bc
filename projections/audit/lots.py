"""Balances as sums of what events moved, whichever events are chosen.

What was recorded late occurred early, so the events within a horizon need not be the first of their stream. Sums do
not mind: each event says what it moved. Where they are the first, the sums are the card as the ledger folds it.
"""

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

import msgspec

from ledger import card
from ledger.actor import Occurrence
from ledger.card.state import NO_ACTIVITY, CardStatus
from ledger.lots import Lot, LotName, LotPart
from projections.movements import signed_change


def moved(event: card.Event, at: Occurrence) -> Iterator[LotPart]:
    """What an event put into lots and, with negative points, took out of them, in the order of the fold.

    What makes a debt good lies in no lot, and what leaves one was in none.
    """
    match event:
        case card.PointsRedeemed() | card.PointsExpired() | card.CardMerged():
            yield from taken(event.lots)
        case card.TransactionReversed():
            yield from taken(event.taken)
            for part in event.returned:
                yield msgspec.structs.replace(part, earned_at=part.earned_at or at.occurred_at)
        case card.CardAbsorbed():
            for part in event.lots:
                yield msgspec.structs.replace(part, earned_at=part.earned_at or at.occurred_at)
            yield from taken(event.settled)
        case card.BalanceAdjusted() if event.points < 0:
            yield from taken(event.taken)
        case card.PointsEarned() | card.WelcomeBonusGranted() | card.BalanceImported() | card.BalanceAdjusted():
            kept = max(0, min(event.points, event.points_balance))
            joined = None if isinstance(event, card.WelcomeBonusGranted) else event.joins
            name = joined or LotName(at.version)
            if kept:
                yield LotPart(name.lot, kept, name.card, at.occurred_at, event.expires_at)
        case _:
            pass


def taken(parts: tuple[LotPart, ...]) -> Iterator[LotPart]:
    """Parts as they left their lots."""
    for part in parts:
        yield msgspec.structs.replace(part, points=-part.points)


def status_after(event: card.Event) -> CardStatus | None:
    """What an event made of the card's status; None where it left it alone."""
    match event:
        case card.CardEnrolled() | card.CardReactivated():
            return CardStatus.ACTIVE
        case card.CardSuspended():
            return CardStatus.SUSPENDED
        case card.CardClosed() | card.CardMerged():
            return CardStatus.CLOSED
        case _:
            return None


class Sums:
    """What chosen events of one card come to, taken one after the other in the order of the log.

    `status` is None until the card was enrolled. A lot may be below zero where what took from it is among the events
    and what filled it is not.
    """

    def __init__(self, card_id: UUID) -> None:
        self.card_id = card_id
        self.points = 0
        self.stamps = 0
        self.status: CardStatus | None = None
        self.last_activity_at: datetime | None = None
        self.events = 0
        self.version = 0
        self.position = 0
        self._lots: dict[LotName, Lot] = {}

    def take(self, position: int, event: card.Event, at: Occurrence) -> list[LotPart]:
        """Adds one more event; gives what it moved between lots."""
        points, stamps = signed_change(event)
        self.points += points
        self.stamps += stamps
        self.status = status_after(event) or self.status
        self._note_activity(event, at)
        self.events += 1
        self.version, self.position = at.version, position
        parts = [*moved(event, at)]
        for part in parts:
            self._put(part, at.occurred_at)
        return parts

    @property
    def lots(self) -> tuple[Lot, ...]:
        """What is left in lots, oldest earning first."""
        return tuple(sorted(self._lots.values(), key=lambda lot: lot.earned_at))

    @property
    def points_outside_lots(self) -> int:
        """What lots do not hold of the balance: a debt, as a negative number."""
        return self.points - sum(lot.points for lot in self._lots.values())

    def _note_activity(self, event: card.Event, at: Occurrence) -> None:
        times = [] if isinstance(event, NO_ACTIVITY) else [at.occurred_at]
        times += [event.last_activity_at] if isinstance(event, card.CardAbsorbed) else []
        times += [self.last_activity_at] if self.last_activity_at is not None else []
        self.last_activity_at = max(times, default=None)

    def _put(self, part: LotPart, otherwise: datetime) -> None:
        known = self._lots.get(part.name)
        if known is None:
            lot = Lot(part.lot, part.points, part.earned_at or otherwise, part.expires_at, part.card)
        else:
            lot = msgspec.structs.replace(known, points=known.points + part.points)
        if lot.points:
            self._lots[part.name] = lot
        else:
            # An empty lot is no lot: whatever comes into it begins it again.
            self._lots.pop(part.name, None)
