"""What a till asks for and is told."""

from uuid import UUID

from msgspec import Struct

from schemas.cards import Card
from schemas.kinds import CardNumber, Cents, Instant, Pin, QrCode, Reference, Why


class StampRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Add or redeem stamps: which card (exactly one of the three names), and who is at the till."""

    card_id: UUID | None = None
    qr_code: QrCode | None = None
    card_number: CardNumber | None = None
    staff_pin: Pin | None = None
    staff_id: UUID | None = None


class PointsRequest(StampRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Earn the points of a purchase. An `order_reference` earns once per store."""

    purchase_amount_cents: Cents
    order_reference: Reference | None = None


class RedeemRequest(StampRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Spend points on a reward of the program."""

    reward_id: Reference


class PreviewRequest(StampRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to look at before it is done: a purchase by its amount, or a redemption by its reward. Needs no PIN."""

    purchase_amount_cents: Cents | None = None
    order_reference: Reference | None = None
    reward_id: Reference | None = None


class ReverseRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Undo a transaction: of a purchase the part that is refunded, or all that is left of it if no amount is given.

    Where what was given is spent by now, the balance goes below zero only if `allow_negative_balance` says so.
    """

    purchase_amount_cents: Cents | None = None
    allow_negative_balance: bool = False
    reason: Why | None = None
    staff_pin: Pin | None = None
    staff_id: UUID | None = None


class ReverseAnswer(Struct, frozen=True, kw_only=True):
    """What was undone: points and stamps that came off the card or went back to it, and the balances now."""

    transaction_id: str
    reverses: str
    points_reversed: int
    stamps_reversed: int
    points_balance: int
    stamp_count: int
    card: Card


class ReversePreview(Struct, frozen=True, kw_only=True):
    """The same before it is done."""

    reverses: str
    points_reversed: int
    stamps_reversed: int
    points_balance: int
    stamp_count: int
    card: Card


class PointsPreview(Struct, frozen=True, kw_only=True):
    """What a purchase would earn."""

    points_earned: int
    points_balance: int
    card: Card


class PointsRedeemedPreview(Struct, frozen=True, kw_only=True):
    """What a reward would take."""

    points_spent: int
    points_balance: int
    card: Card


class StampAnswer(Struct, frozen=True, kw_only=True):
    """A stamp was added; `reward_earned` when it reached the target or a multiple of it."""

    transaction_id: str
    stamp_count: int
    stamps_target: int
    reward_earned: bool
    next_stamp_available_at: Instant | None
    stamps_today: int
    card: Card


class StampsRedeemedAnswer(Struct, frozen=True, kw_only=True):
    """The target's stamps were exchanged for the reward."""

    transaction_id: str
    stamps_spent: int
    stamp_count: int
    card: Card


class PointsAnswer(Struct, frozen=True, kw_only=True):
    """A purchase was recorded, and what it earned."""

    transaction_id: str
    points_earned: int
    points_balance: int
    card: Card


class PointsRedeemedAnswer(Struct, frozen=True, kw_only=True):
    """Points were spent."""

    transaction_id: str
    points_spent: int
    points_balance: int
    card: Card
