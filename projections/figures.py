"""What is counted: the same figures for a merchant's stores, staff and days, and for the whole platform."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from ledger import card
from ledger.store.names import topics_of
from projections import movements
from projections.movements import Movement
from projections.read_model import Batch, Connection
from schemas.statistics import DayStatistics

K = TypeVar("K", bound=Hashable)
KeyOf = Callable[[UUID, date, UUID | None, UUID | None], K]
"""Makes a key of a merchant, a day, a store and a staff member."""

CLOSING = (card.CardClosed, card.CardMerged)
"""After these there is one open card less."""

TOPICS = frozenset([*movements.TOPICS, *(topic for event_type in CLOSING for topic in topics_of(event_type))])
"""What is counted."""


@dataclass(slots=True)
class Figures:
    """Sums over movements. Those with `_change` are of what is on open cards; what is reversed counts against them.

    For points, and for stamps alike: change = added + imported + adjusted - redeemed - expired - reversed - forfeited.
    """

    enrolments: int = 0
    closures: int = 0
    purchases: int = 0
    purchase_amount_cents: int = 0
    refunded_amount_cents: int = 0
    redemptions: int = 0
    stamps_added: int = 0
    stamps_redeemed: int = 0
    stamps_reversed: int = 0
    stamps_adjusted: int = 0
    stamps_imported: int = 0
    stamps_forfeited: int = 0
    stamps_change: int = 0
    points_earned: int = 0
    points_redeemed: int = 0
    points_expired: int = 0
    points_reversed: int = 0
    points_adjusted: int = 0
    points_imported: int = 0
    points_forfeited: int = 0
    points_change: int = 0

    def count(self, movement: Movement) -> None:
        """Adds one movement."""
        points, stamps = movement.points, movement.stamps
        self.points_change += points
        self.stamps_change += stamps
        match movement.kind:
            case "points_earned":
                self.points_earned += points
                if movement.purchase_amount_cents is not None:
                    self.purchases += 1
                    self.purchase_amount_cents += movement.purchase_amount_cents
            case "stamp_added":
                self.stamps_added += stamps
            case "points_redeemed":
                self.redemptions += 1
                self.points_redeemed -= points
            case "stamps_redeemed":
                self.redemptions += 1
                self.stamps_redeemed -= stamps
            case "points_expired":
                self.points_expired -= points
            case "reversed":
                self.points_reversed -= points
                self.stamps_reversed -= stamps
                self.refunded_amount_cents += movement.purchase_amount_cents or 0
            case "adjusted":
                self.points_adjusted += points
                self.stamps_adjusted += stamps
            case "imported":
                self.points_imported += points
                self.stamps_imported += stamps
            case "enrolled":
                self.enrolments += 1
            case "merged":
                # What leaves one card comes to the other.
                pass

    def close(self, points: int, stamps: int) -> None:
        """Counts out an open card with what is on it."""
        self.closures += 1
        self.forfeit(points, stamps)

    def forfeit(self, points: int, stamps: int) -> None:
        """Counts out what is on a card that is closed; less than nothing where it goes from there in another way."""
        self.points_forfeited += points
        self.points_change -= points
        self.stamps_forfeited += stamps
        self.stamps_change -= stamps

    def add(self, more: "Figures") -> None:
        """Adds other movements' sums."""
        for name in NAMES:
            setattr(self, name, getattr(self, name) + getattr(more, name))

    def values(self) -> tuple[int, ...]:
        """The figures in the order of their names."""
        return tuple(getattr(self, name) for name in NAMES)


NAMES = tuple(field.name for field in fields(Figures))
COLUMNS = ",\n".join(f"    {name} bigint NOT NULL" for name in NAMES)
"""The figures as columns of a table."""


def upsert(table: str, keys: dict[str, str]) -> bytes:
    """The statement that adds rows of figures to a table: a column for each key with its type, then the figures."""
    types = [*keys.values(), *("bigint" for _ in NAMES)]
    columns = ", ".join((*keys, *NAMES))
    given = ", ".join(f"%b::{kind}[]" for kind in types)
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in NAMES)
    return (
        f"INSERT INTO {table} ({columns}) SELECT * FROM unnest({given})"  # noqa: S608 names of our own
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {added}"
    ).encode()


# ---- as they are counted ------------------------------------------------------------------------------------------


async def add(connection: Connection, statement: bytes, sums: Iterable[tuple[tuple[object, ...], Figures]]) -> None:
    """Adds figures, each with its key, by a statement that `upsert` made."""
    rows = [(*key, *figures.values()) for key, figures in sums]
    if rows:
        await connection.execute(statement, [list(column) for column in zip(*rows, strict=True)])


ADD_CLOSED = "INSERT INTO {} SELECT * FROM unnest(%b::uuid[])"
CLOSED_OF = "SELECT card_id FROM {} WHERE card_id = ANY(%b)"


def closed_cards(table: str) -> str:
    """A table of the cards that were closed with what was on them, for a model that counts."""
    return f"CREATE TABLE {table} (card_id uuid PRIMARY KEY)"


async def summed(batch: Batch, connection: Connection, closed_table: str, key_of: KeyOf[K]) -> dict[K, Figures]:
    """The figures of a batch by some key, once the cards that it closes are in the table of those.

    What is on a card when it is closed is counted out then, so that what expires of it later is taken off that again.
    """
    sums: dict[K, Figures] = {}
    for each in batch.movements:
        key = key_of(each.merchant_id, each.day, each.store_id, each.staff_id)
        figures = sums.get(key)
        if figures is None:
            figures = sums[key] = Figures()
        figures.count(each)
    for _, read, day in batch.events:
        event, at = read.event, read.at
        if type(event) in CLOSING:
            assert day is not None, "events of cards have a day"
            key = key_of(at.merchant_id, day, at.actor.store_id, at.actor.staff_id)
            sums.setdefault(key, Figures()).close(event.points_balance, event.stamp_count)
    for each in await expired_when_closed(batch, connection, closed_table):
        key = key_of(each.merchant_id, each.day, each.store_id, each.staff_id)
        sums[key].forfeit(each.points, each.stamps)
    return sums


async def expired_when_closed(batch: Batch, connection: Connection, closed_table: str) -> list[Movement]:
    """The expiries of a batch on cards that had been closed before."""
    closed = {told.read.at.stream: told.position for told in batch.events if type(told.read.event) is card.CardClosed}
    if closed:
        await connection.execute(ADD_CLOSED.format(closed_table).encode(), [list(closed)])
    expired = [each for each in batch.movements if each.kind == "points_expired"]
    if not expired:
        return []
    cursor = connection.cursor(binary=True)
    await cursor.execute(CLOSED_OF.format(closed_table).encode(), [list({each.card_id for each in expired})])
    known = {card_id for (card_id,) in await cursor.fetchall()}
    return [each for each in expired if each.card_id in known and each.position > closed.get(each.card_id, 0)]


# ---- as they are asked for ----------------------------------------------------------------------------------------

SUMMED = ", ".join(f"coalesce(sum({name}), 0)" for name in NAMES)
"""The figures of many rows together."""

STANDING = "coalesce(sum(enrolments - closures), 0), coalesce(sum(points_change), 0), coalesce(sum(stamps_change), 0)"
"""How many cards the rows leave open, and with what on them."""


class Standing(NamedTuple):
    """How many cards were open at some time, and the sums of their balances."""

    cards: int = 0
    points: int = 0
    stamps: int = 0

    def after(self, figures: Figures) -> "Standing":
        """What it was once this had happened, too."""
        return Standing(
            self.cards + figures.enrolments - figures.closures,
            self.points + figures.points_change,
            self.stamps + figures.stamps_change,
        )


@dataclass
class Active:
    """How many cards were used: of all days, how many of those not for the first time, and by day."""

    cards: int = 0
    returning: int = 0
    by_day: dict[date, int] = field(default_factory=dict)


def figures_of(sums: Iterable[Any]) -> Figures:
    """Figures from what the database summed up, in the order of their names."""
    return Figures(*map(int, sums))


def shown(figures: Figures, active_cards: int) -> dict[str, int]:
    """The members of a shape of sums."""
    named = dict(zip(NAMES, figures.values(), strict=True))
    del named["points_change"], named["stamps_change"]
    return named | {"active_cards": active_cards}


def totals(before: Standing, days: Mapping[date, Figures], active: Active) -> dict[str, Any]:
    """The members that all totals have, from what was before and each day's figures."""
    standing, by_day = before, []
    whole = Figures()
    for day, figures in sorted(days.items()):
        standing = standing.after(figures)
        whole.add(figures)
        by_day.append(
            DayStatistics(
                day=day,
                points_outstanding=standing.points,
                stamps_outstanding=standing.stamps,
                **shown(figures, active.by_day.get(day, 0)),
            )
        )
    earned, redeemed = whole.points_earned, whole.points_redeemed
    return shown(whole, active.cards) | {
        "cards": standing.cards,
        "returning_cards": active.returning,
        "points_outstanding": standing.points,
        "stamps_outstanding": standing.stamps,
        "redemption_rate": round(redeemed / earned, 4) if earned else None,
        "by_day": by_day,
    }
