"""Undoing a transaction, whole or in part.

A refund of part of a purchase takes back `floor(points * refunded / purchase)` of its points, counted over all its
refunds together: whatever the parts, they add up to exactly what was earned, and the customer, for whom earning was
rounded down, is not rounded down again.
"""

from uuid import UUID

import msgspec

from ledger.card.commands import Facts, Reverse
from ledger.card.events import (
    BalanceAdjusted,
    Past,
    PointsEarned,
    PointsExpired,
    PointsRedeemed,
    Reason,
    StampAdded,
    StampsRedeemed,
    TransactionReversed,
    WelcomeBonusGranted,
)
from ledger.card.state import Card
from ledger.errors import Rejected
from ledger.lots import LotName, LotPart, parts_after, parts_from


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be undone: points that were given, points that were taken out of lots, stamps that came or went."""

    points_given: int = 0
    points_taken: int = 0
    lots: tuple[LotPart, ...] = ()
    stamps: int = 0
    purchase_amount_cents: int | None = None
    whole: bool = True


def reversed_transaction(card: Card, command: Reverse, facts: Facts) -> TransactionReversed:
    """The reversal of what the history begins with."""
    if not facts.allow_reversals:
        raise Rejected("reversals_not_allowed")
    original = facts.history[0]
    share = share_of(original, command.purchase_amount_cents, facts.history)
    lot = lot_of(original)
    forgiven = min(share.points_given, points_expired(lot, original.card, facts.history))
    claimed = share.points_given - forgiven
    refuse_overdraft(card, claimed, share.stamps, allowed=command.allow_negative_balance)
    name = LotName(lot.lot, as_named_by(card.id, original.card, lot.card))
    taken = parts_from(card.lots, name, min(claimed, max(card.points_balance, 0)))
    returned = [
        msgspec.structs.replace(part, card=as_named_by(card.id, original.card, part.card)) for part in share.lots
    ]
    stamp = original.event if isinstance(original.event, StampAdded) else None
    return TransactionReversed(
        card=original.card,
        version=original.version,
        whole=share.whole,
        points=share.points_taken - claimed,
        stamps=-share.stamps,
        purchase_amount_cents=share.purchase_amount_cents,
        taken=taken,
        returned=parts_after(returned, max(0, -card.points_balance)),
        lot=name if share.points_given else None,
        points_expired=forgiven,
        stamped_at=original.occurred_at if stamp else None,
        day=stamp.day if stamp else None,
        program_version=facts.program.version,
        stamp_count=card.stamp_count - share.stamps,
        points_balance=card.points_balance + share.points_taken - claimed,
        private=Reason(command.reason) if command.reason is not None else None,
    )


def share_of(original: Past, purchase_amount_cents: int | None, history: tuple[Past, ...]) -> Share:
    """What of the transaction is undone now; a purchase may be refunded in parts, all else is undone as a whole."""
    earlier = reversals_of(original, history)
    if any(each.whole for each in earlier):
        raise Rejected("already_reversed")
    event = original.event
    if isinstance(event, PointsEarned):
        return refund_of(event, purchase_amount_cents, earlier)
    if purchase_amount_cents is not None:
        raise Rejected("not_a_purchase")
    match event:
        case WelcomeBonusGranted():
            return Share(points_given=event.points)
        case PointsRedeemed():
            return Share(points_taken=event.points, lots=event.lots)
        case StampAdded():
            return Share(stamps=event.stamps)
        case StampsRedeemed():
            return Share(stamps=-event.stamps)
        case BalanceAdjusted():
            return Share(
                points_given=max(event.points, 0),
                points_taken=max(-event.points, 0),
                lots=event.taken,
                stamps=event.stamps,
            )
        case _:
            raise Rejected("not_reversible")


def refund_of(event: PointsEarned, purchase_amount_cents: int | None, earlier: list[TransactionReversed]) -> Share:
    """The points of the part of a purchase that is refunded now."""
    whole = event.purchase_amount_cents
    before = sum(each.purchase_amount_cents or 0 for each in earlier)
    part = whole - before if purchase_amount_cents is None else purchase_amount_cents
    if part < 0 or (part == 0 and whole > 0):
        raise Rejected("invalid_amount", minimum=1, maximum=whole - before)
    if part > whole - before:
        raise Rejected("more_than_is_left", purchase_amount_cents_left=whole - before)
    return Share(
        points_given=proportion(event.points, before + part, whole) - proportion(event.points, before, whole),
        purchase_amount_cents=part,
        whole=before + part == whole,
    )


def proportion(points: int, cents: int, of_cents: int) -> int:
    """So much of the points as the cents are of the whole, rounded down."""
    return points * cents // of_cents if of_cents else points


def reversals_of(original: Past, history: tuple[Past, ...]) -> list[TransactionReversed]:
    """What of a transaction was undone before."""
    name = (original.card, original.version)
    reversals = (past.event for past in history if isinstance(past.event, TransactionReversed))
    return [event for event in reversals if (event.card, event.version) == name]


def lot_of(original: Past) -> LotName:
    """The lot, as its own card names it, in which what was given lies."""
    event = original.event
    joined = event.joins if isinstance(event, PointsEarned | BalanceAdjusted) else None
    return joined or LotName(original.version)


def points_expired(lot: LotName, card: UUID, history: tuple[Past, ...]) -> int:
    """How much of a lot expired and was not yet held against a reversal: nobody loses the same points twice."""
    expired = 0
    for past in history:
        event = past.event
        if isinstance(event, PointsExpired):
            expired += sum(part.points for part in event.lots if same(part.name, past.card, lot, card))
        if isinstance(event, TransactionReversed) and event.lot and same(event.lot, past.card, lot, card):
            expired = max(0, expired - event.points_expired)
    return expired


def same(one: LotName, seen_from: UUID, other: LotName, other_seen_from: UUID) -> bool:
    """Whether two cards' streams mean the same lot; each leaves out the card where it is its own."""
    return (one.lot, one.card or seen_from) == (other.lot, other.card or other_seen_from)


def as_named_by(card: UUID, stream: UUID, owner: UUID | None) -> UUID | None:
    """How a card names the owner of a lot that a stream names so."""
    absolute = owner or stream
    return None if absolute == card else absolute


def refuse_overdraft(card: Card, points: int, stamps: int, *, allowed: bool) -> None:
    """Raises where what is to be taken back was spent already, unless the request lets the balance go below zero."""
    missing = points - max(card.points_balance, 0)
    if points > 0 and missing > 0 and not allowed:
        raise Rejected("points_already_spent", points_balance=card.points_balance, points_missing=missing)
    missing = stamps - max(card.stamp_count, 0)
    if stamps > 0 and missing > 0 and not allowed:
        raise Rejected("stamps_already_spent", stamp_count=card.stamp_count, stamps_missing=missing)
