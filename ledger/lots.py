"""Lots: earnings keep their points together, so that they can expire and be given back as they came.

What expires on a day of its own is a lot of its own. Points without such a day have nothing to tell them apart, so
they join one lot, and a card that is used for years stays as small as on its first day.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from uuid import UUID

import msgspec

from ledger.program import ExpiryPolicy, Rules


class LotName(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Which lot: the version of the event that began it, and its card where that is another, merged into this one."""

    lot: int
    card: UUID | None = None


class Lot(msgspec.Struct, gc=False, frozen=True):
    """What is left of an earning, or of several that expire together with the card."""

    lot: int
    points: int
    earned_at: datetime
    expires_at: datetime | None
    card: UUID | None = None

    @property
    def name(self) -> LotName:
        """Which lot this is."""
        return LotName(self.lot, self.card)


class LotPart(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Points taken from one lot or put into it, and the lot's own dates, so that it can be begun again.

    `earned_at` is None only in what was stored before dates were kept.
    """

    lot: int
    points: int
    card: UUID | None = None
    earned_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def name(self) -> LotName:
        """Which lot it is a part of."""
        return LotName(self.lot, self.card)


def with_lot(lots: tuple[Lot, ...], lot: Lot) -> tuple[Lot, ...]:
    """The lots and one more, oldest earning first: what was imported late may have been earned early.

    Where a lot of that name is there, it keeps its dates and gets the points.
    """
    if lot.points == 0:
        return lots
    if any(known.name == lot.name for known in lots):
        return tuple(
            msgspec.structs.replace(known, points=known.points + lot.points) if known.name == lot.name else known
            for known in lots
        )
    if not lots or lots[-1].earned_at <= lot.earned_at:
        return (*lots, lot)
    return tuple(sorted((*lots, lot), key=lambda each: each.earned_at))


def with_parts(lots: tuple[Lot, ...], parts: Iterable[LotPart], otherwise: datetime) -> tuple[Lot, ...]:
    """The lots with parts put into them; one that is empty by now begins again, with the dates it had.

    `otherwise` stands in for the date of earning where none was kept.
    """
    for part in parts:
        lots = with_lot(lots, Lot(part.lot, part.points, part.earned_at or otherwise, part.expires_at, part.card))
    return lots


def without(lots: tuple[Lot, ...], parts: Sequence[LotPart]) -> tuple[Lot, ...]:
    """The lots after those parts were taken; an empty lot is no lot."""
    # Mostly the oldest lots go as a whole. Then a card of thousands of lots loses them one after the other in no time.
    pairs = zip(lots, parts, strict=False)
    whole = sum(1 for _ in takewhile(lambda pair: part_of(pair[0], pair[0].points) == pair[1], pairs))
    taken: dict[LotName, int] = {}
    for part in parts[whole:]:
        taken[part.name] = taken.get(part.name, 0) + part.points
    if not taken:
        return lots[whole:]
    left = (msgspec.structs.replace(lot, points=lot.points - taken.get(lot.name, 0)) for lot in lots[whole:])
    return tuple(lot for lot in left if lot.points)


def part_of(lot: Lot, points: int) -> LotPart:
    """So many of a lot's points."""
    return LotPart(lot.lot, points, lot.card, lot.earned_at, lot.expires_at)


def oldest_parts(lots: Iterable[Lot], points: int) -> tuple[LotPart, ...]:
    """Which lots give the points: the first one first, the last of them perhaps in part."""
    parts = []
    for lot in lots:
        if points == 0:
            break
        taken = min(points, lot.points)
        parts.append(part_of(lot, taken))
        points -= taken
    assert points == 0, "a balance is the sum of its lots"
    return tuple(parts)


def parts_from(lots: tuple[Lot, ...], first: LotName, points: int) -> tuple[LotPart, ...]:
    """The same, but from one lot before all others: where points are taken back, from where they came."""
    return oldest_parts(sorted(lots, key=lambda lot: lot.name != first), points)


def all_parts(lots: Iterable[Lot]) -> tuple[LotPart, ...]:
    """Everything that is in the lots."""
    return tuple(part_of(lot, lot.points) for lot in lots)


def parts_after(parts: Iterable[LotPart], points: int) -> tuple[LotPart, ...]:
    """The parts without their first so many points, which went elsewhere."""
    kept = []
    for part in parts:
        gone = min(points, part.points)
        points -= gone
        if part.points > gone:
            kept.append(msgspec.structs.replace(part, points=part.points - gone))
    return tuple(kept)


def joined_lot(lots: tuple[Lot, ...], expires_at: datetime | None) -> LotName | None:
    """The lot that new points lie in with others: only points without a day of their own do."""
    if expires_at is not None:
        return None
    return next((lot.name for lot in lots if lot.expires_at is None), None)


def lot_expiry(rules: Rules, earned_at: datetime) -> datetime | None:
    """When a lot earned now ends by itself; None where points end by inactivity or never."""
    if rules.expiry_policy is not ExpiryPolicy.EARNED or rules.points_expiration_days is None:
        return None
    return earned_at + timedelta(days=rules.points_expiration_days)
