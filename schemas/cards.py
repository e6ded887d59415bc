"""Cards and their transactions."""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from schemas.kinds import CardNumber, Email, Instant, Locale, Name, Phone, QrCode, Reference, Why


class EnrolRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Give a customer a card, or find theirs. `customer_id` is the merchant's own; one is made up if absent."""

    customer_id: Reference | None = None
    name: Name | None = None
    email: Email | None = None
    phone: Phone | None = None
    locale: Locale | None = None


class ReasonRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why; it is kept sealed under the customer's key."""

    reason: Why | None = None


class AdjustRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Correct the balances by hand: signed changes, and why."""

    points: Annotated[int, Meta(ge=-1_000_000_000, le=1_000_000_000)] = 0
    stamps: Annotated[int, Meta(ge=-1_000, le=1_000)] = 0
    reason: Why


class AdjustAnswer(Struct, frozen=True, kw_only=True):
    """The balances were corrected."""

    transaction_id: str
    points_balance: int
    stamp_count: int
    card: "Card"


class MergeRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which card takes over all that this one has."""

    into_card_id: UUID


class MergeAnswer(Struct, frozen=True, kw_only=True):
    """What came over, and the card that has it now."""

    transaction_id: str
    points: int
    stamps: int
    card: "Card"


class ExpiryRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """At what time to look, a hundred years ahead at most; now, if absent or passed."""

    at: Instant | None = None


class ExpiryPreview(Struct, frozen=True, kw_only=True):
    """What would expire until then if nothing happened before, and the card after it."""

    points_expired: int
    points_balance: int
    card: "Card"


class LookupRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which card: exactly one of the three."""

    card_id: UUID | None = None
    qr_code: QrCode | None = None
    card_number: CardNumber | None = None


class NextExpiry(Struct, frozen=True):
    """What the next expiry takes if nothing happens before it, and when."""

    points: int
    at: Instant


class Passes(Struct, frozen=True, kw_only=True):
    """Where the card's wallet passes are; null where that wallet is not configured."""

    apple_url: str | None = None
    google_save_url: str | None = None


CardStatus = Literal["active", "suspended", "closed", "erased"]


class Card(Struct, frozen=True, kw_only=True):
    """A card as it stands. `merged_into` is the card that took over all it had."""

    id: UUID
    card_number: str
    qr_code: str | None
    customer_id: str | None
    status: CardStatus
    stamp_count: int
    stamps_target: int
    points_balance: int
    next_expiry: NextExpiry | None
    passes: Passes
    enrolled_at: Instant
    last_activity_at: Instant
    merged_into: UUID | None


class Person(Struct, frozen=True):
    """What a customer told of themselves."""

    name: str | None
    email: str | None
    phone: str | None
    locale: str | None


class ListedCard(Card, frozen=True, kw_only=True):
    """A card among others; `person` is null at a till, and where the customer was erased."""

    person: Person | None


class CardPage(Struct, frozen=True):
    """Some cards; `next_cursor` gives the ones after them, null at the end."""

    items: list[ListedCard]
    next_cursor: str | None


TransactionKind = Literal[
    "enrolled",
    "stamp_added",
    "stamps_redeemed",
    "points_earned",
    "points_redeemed",
    "points_expired",
    "reversed",
    "adjusted",
    "merged",
    "imported",
]


class Transaction(Struct, frozen=True, kw_only=True):
    """What happened to a card. `points` and `stamps` are signed changes, the balances are after it."""

    id: str
    kind: TransactionKind
    occurred_at: Instant
    recorded_at: Instant
    store_code: str | None
    terminal_id: UUID | None
    staff_id: UUID | None
    staff_name: str | None
    order_reference: str | None
    purchase_amount_cents: int | None
    points: int
    stamps: int
    points_balance: int
    stamp_count: int
    reverses: str | None
    position: int


class CardTransaction(Transaction, frozen=True, kw_only=True):
    """A transaction among those of other cards."""

    card_id: UUID
    card_number: str


class CardTransactionPage(Struct, frozen=True):
    """Some transactions, those of the latest day first; `next_cursor` gives those before them, null at the end."""

    items: list[CardTransaction]
    next_cursor: str | None


class TransactionPage(Struct, frozen=True):
    """Some transactions, newest first; `next_cursor` gives older ones, null at the end."""

    items: list[Transaction]
    next_cursor: str | None
