"""Lots: each earning keeps its points together, so that they can expire and be given back as they came."""

from datetime import datetime, timedelta

import msgspec

from ledger.program import ExpiryPolicy, Rules


class Lot(msgspec.Struct, gc=False, frozen=True):
    """What is left of one earning; `lot` is the version of the event that earned it."""

    lot: int
    points: int
    earned_at: datetime
    expires_at: datetime | None


class LotPart(msgspec.Struct, gc=False, frozen=True):
    """Points taken from one lot; `lot` is the version of the event that earned it."""

    lot: int
    points: int


def with_lot(lots: tuple[Lot, ...], lot: Lot) -> tuple[Lot, ...]:
    """The lots and one more, oldest earning first: what was imported late may have been earned early."""
    if not lots or lots[-1].earned_at <= lot.earned_at:
        return (*lots, lot)
    return tuple(sorted((*lots, lot), key=lambda each: each.earned_at))


def without(lots: tuple[Lot, ...], parts: tuple[LotPart, ...]) -> tuple[Lot, ...]:
    """The lots after those parts were taken; an empty lot is no lot."""
    taken = {part.lot: part.points for part in parts}
    left = (msgspec.structs.replace(lot, points=lot.points - taken.get(lot.lot, 0)) for lot in lots)
    return tuple(lot for lot in left if lot.points)


def oldest_parts(lots: tuple[Lot, ...], points: int) -> tuple[LotPart, ...]:
    """Which lots give the points: the oldest first, the last of them perhaps in part."""
    parts = []
    for lot in lots:
        if points == 0:
            break
        taken = min(points, lot.points)
        parts.append(LotPart(lot.lot, taken))
        points -= taken
    assert points == 0, "a balance is the sum of its lots"
    return tuple(parts)


def lot_expiry(rules: Rules, earned_at: datetime) -> datetime | None:
    """When a lot earned now ends by itself; None where points end by inactivity or never."""
    if rules.expiry_policy is not ExpiryPolicy.EARNED or rules.points_expiration_days is None:
        return None
    return earned_at + timedelta(days=rules.points_expiration_days)
