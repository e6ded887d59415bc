"""Statistics: the same figures for a merchant, a day, a store, a staff member and the whole platform."""

from datetime import date
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct, field

Active = Annotated[int, Meta(description="Distinct cards that were stamped, earned or redeemed")]
Outstanding = Annotated[int, Meta(description="Sum of the balances of open cards at the end of the last day")]
Forfeited = Annotated[int, Meta(description="On cards when they were closed, less what expired of it afterwards")]
Rate = Annotated[
    float | None, Meta(description="Points redeemed for each point earned, to four places; null where none was earned")
]


class Sums(Struct, frozen=True, kw_only=True):
    """Sums over transactions. Points and stamps are counted as what they are called, so that a sign needs no memory.

    Those redeemed, expired and reversed are positive where they left balances. What a reversal took back of an earning
    and what it gave back of a redemption count against each other; the same goes for what was adjusted up and down.
    What merging moves from card to card is in none of them. `closures` are cards closed, or merged into others. What is
    on a card when it is closed is forfeited, a debt as less than nothing; where some of it expires later, it moves from
    `points_forfeited` to `points_expired`. Outstanding is what came in and did not leave in one of these ways.
    """

    active_cards: Active
    enrolments: int
    closures: int
    purchases: int
    purchase_amount_cents: int
    refunded_amount_cents: int
    redemptions: int
    stamps_added: int
    stamps_redeemed: int
    stamps_reversed: int
    stamps_adjusted: int
    stamps_imported: int
    stamps_forfeited: Forfeited
    points_earned: int
    points_redeemed: int
    points_expired: int
    points_reversed: int
    points_adjusted: int
    points_imported: int
    points_forfeited: Forfeited


class DayStatistics(Sums, frozen=True, kw_only=True):
    """A day of the stores on which something happened."""

    day: date
    points_outstanding: Outstanding
    stamps_outstanding: Outstanding


class StoreStatistics(Sums, frozen=True, kw_only=True):
    """What happened in a store; `store_code` is null for what happened in none."""

    store_code: str | None


class StaffStatistics(Sums, frozen=True, kw_only=True):
    """What was done with a staff member's PIN; null for what was done with none."""

    staff_id: UUID | None
    staff_name: str | None


class Totals(Sums, frozen=True, kw_only=True):
    """Figures of some days, the first and the last included; `from` is null where nothing ever happened.

    `cards` are those open at the end of the last day; `returning_cards` those of the active ones that had been used on
    a day before the last one that they were used on.
    """

    from_: date | None = field(name="from")
    to: date
    cards: int
    returning_cards: int
    points_outstanding: Outstanding
    stamps_outstanding: Outstanding
    redemption_rate: Rate
    by_day: list[DayStatistics]


class Statistics(Totals, frozen=True, kw_only=True):
    """A merchant's figures; with a store or a staff member asked for, all of them are theirs alone."""

    by_store: list[StoreStatistics]
    by_staff: list[StaffStatistics]


class PlatformStatistics(Totals, frozen=True, kw_only=True):
    """The figures of all merchants together, and how many merchants, programs and stores there are now."""

    merchants: int
    programs: int
    stores: int
