"""What is counted: the same figures for a merchant's stores, staff and days, and for the whole platform."""

from dataclasses import dataclass, fields

from ledger import card
from projections.movements import Movement

CLOSING = (card.CardClosed, card.CardMerged)
"""After these there is one open card less."""


@dataclass(slots=True)
class Figures:
    """Sums over movements. Those with `_change` are of the balances; what is reversed counts against them.

    For points, and for stamps alike: change = added + imported + adjusted - redeemed - expired - reversed.
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
    stamps_change: int = 0
    points_earned: int = 0
    points_redeemed: int = 0
    points_expired: int = 0
    points_reversed: int = 0
    points_adjusted: int = 0
    points_imported: int = 0
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
