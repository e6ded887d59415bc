"""Lots: each earning keeps its points together, so that they can expire and be given back as they came."""

from datetime import datetime, timedelta

import msgspec

from ledger.program import ExpiryPolicy, Rules


class Lot(msgspec.Struct, gc=False, frozen=True):
    """What is left of one earning; `lot` is the version of the event that earned it."""

    lot: int
    points: int
    expires_at: datetime | None


class LotPart(msgspec.Struct, gc=False, frozen=True):
    """Points taken from one lot; `lot` is the version of the event that earned it."""

    lot: int
    points: int


def without(lots: tuple[Lot, ...], parts: tuple[LotPart, ...]) -> tuple[Lot, ...]:
    """The lots after those parts were taken; an empty lot is no lot."""
    taken = {part.lot: part.points for part in parts}
    left = (Lot(lot.lot, lot.points - taken.get(lot.lot, 0), lot.expires_at) for lot in lots)
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
