"""What auditors are told: events as they are stored, balances at any time, and why they are what they are."""

from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, Struct

from schemas.cards import CardStatus, TransactionKind
from schemas.kinds import Instant

Stored = Annotated[Any, Meta(extra_json_schema={"type": "object"})]
"""A JSON object just as it is stored; docs/log.md says what is in it."""
Moment = Instant | int
"""A time, or a position of the log."""


class LoggedEvent(Struct, frozen=True, kw_only=True):
    """An event as it is exported. `stored` are the bytes that were hashed, in base64; hashes are SHA-256 in hex."""

    position: int
    stream: UUID
    version: int
    merchant_id: UUID
    name: str
    event_version: int
    occurred_at: Instant
    recorded_at: Instant
    actor: Stored
    data: Stored
    stored: str
    previous_hash: str
    hash: str


class EventPage(Struct, frozen=True):
    """Some of the log, oldest first; `next_cursor` gives what follows, null at the end."""

    items: list[LoggedEvent]
    next_cursor: str | None


class Origin(Struct, frozen=True, kw_only=True):
    """Where a command came from, as far as the merchant keeps it."""

    ip_address: str | None
    user_agent: str | None


class CardEvent(LoggedEvent, frozen=True, kw_only=True):
    """The same with what was sealed: null where there was nothing, or where the customer was erased.

    `program_version` is the one that was decided under.
    """

    program_version: int | None
    private: Stored | None
    origin: Origin | None


class CardEventPage(Struct, frozen=True):
    """Some of a card's events; `next_cursor` gives more in the same order, null at the end."""

    items: list[CardEvent]
    next_cursor: str | None


class Lot(Struct, frozen=True, kw_only=True):
    """Points that belong together. `id` is the transaction that began the lot, on whatever card that was."""

    id: str
    points: int
    earned_at: Instant
    expires_at: Instant | None


class Balance(Struct, frozen=True, kw_only=True):
    """What a card's events come to: those that had occurred by `as_of` and were recorded by `known_at`.

    It rests on so many `events`, the last of them at `position` and `version`, 0 where there was none; `status` is null
    where the card was not enrolled by then. `points_outside_lots` is what of the balance lies in no lot: a debt, below
    zero. `points_due` had ended by `due_by`, but nothing recorded that yet; they are still in the balance.
    """

    card_id: UUID
    as_of: Moment
    known_at: Moment
    status: CardStatus | None
    points_balance: int
    stamp_count: int
    last_activity_at: Instant | None
    events: int
    version: int
    position: int
    lots: list[Lot]
    points_outside_lots: int
    points_due: int
    due_by: Instant


class LotMove(Struct, frozen=True, kw_only=True):
    """Points that an event put into a lot, or, below zero, took out of it."""

    lot: str
    points: int


class ReversedTransaction(Struct, frozen=True, kw_only=True):
    """The transaction that was reversed, and where it stands in the log."""

    transaction_id: str
    position: int | None


class OtherCard(Struct, frozen=True, kw_only=True):
    """The other card of a merge, and where its part of it stands in the log."""

    card_id: UUID
    position: int | None


class ExplainedLine(Struct, frozen=True, kw_only=True):
    """One step to a balance. `positions` are where to look it up: the event's own first, then those it refers to.

    `points` and `stamps` are signed changes, the balances are after it. What of the points is in no lot of `lots` made
    a debt good, or became one: `points_outside_lots`.
    """

    positions: list[int]
    transaction_id: str
    kind: TransactionKind
    occurred_at: Instant
    recorded_at: Instant
    program_version: int
    text: str
    reason: str | None
    points: int
    stamps: int
    points_balance: int
    stamp_count: int
    lots: list[LotMove]
    points_outside_lots: int
    reverses: ReversedTransaction | None
    other_card: OtherCard | None


class ExplainedLot(Lot, frozen=True, kw_only=True):
    """What is left in a lot, and the positions of all that put points into it or took them out."""

    positions: list[int]


class Explanation(Struct, frozen=True, kw_only=True):
    """Why a balance is what it is: the lines add up to it, and what they say of lots to the lots that are left."""

    balance: Balance
    lines: list[ExplainedLine]
    lots: list[ExplainedLot]
