"""What can be asked of a card, and the facts that a decision about it rests on."""

from datetime import date, datetime
from uuid import UUID

import msgspec

from ledger.card.events import Past
from ledger.card.state import Card
from ledger.program import Program


class ImportBalance(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """Brings a balance from another system, which `source` names. `expires_at` is for points that end by themselves."""

    source: str
    points: int = 0
    stamps: int = 0
    expires_at: datetime | None = None


class Enrol(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Opens a card for a customer; the number and the QR token come in, unused by any other card.

    Whoever brings a balance along is no newcomer to welcome.
    """

    customer: UUID
    customer_id: str
    card_number: str
    qr_code: str
    brings: ImportBalance | None = None


class AddStamp(msgspec.Struct, gc=False, frozen=True):
    """Adds one stamp."""


class RedeemStamps(msgspec.Struct, gc=False, frozen=True):
    """Takes the stamps of one reward."""


class EarnPoints(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Adds the points of a purchase."""

    purchase_amount_cents: int
    order_reference: str | None = None


class RedeemPoints(msgspec.Struct, gc=False, frozen=True):
    """Spends points on a reward of the program."""

    reward_id: str


class Reverse(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """Undoes a transaction, or the part of a purchase that is refunded; without an amount, all that is left of it.

    The transaction is the event of that version in the card's stream, or in that of one merged into it.
    """

    card: UUID
    version: int
    purchase_amount_cents: int | None = None
    allow_negative_balance: bool = False
    reason: str | None = None


class Adjust(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """Corrects the balances by hand; both are signed."""

    points: int = 0
    stamps: int = 0
    reason: str


class ExpirePoints(msgspec.Struct, gc=False, frozen=True):
    """Takes what is due to expire."""


class Suspend(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Stops a card for a while."""

    reason: str | None = None


class Reactivate(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Lets a suspended card take part again."""

    reason: str | None = None


class Close(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    """Ends a card for good."""

    reason: str | None = None


class MergeInto(msgspec.Struct, gc=False, frozen=True):
    """Gives all a card has to another card, and ends it; decided on the card that gives."""

    into: UUID


class Absorb(msgspec.Struct, gc=False, frozen=True):
    """Takes over all that another card has; decided on the card that takes."""

    source: Card


Command = (
    Enrol
    | AddStamp
    | RedeemStamps
    | EarnPoints
    | RedeemPoints
    | Reverse
    | Adjust
    | ExpirePoints
    | Suspend
    | Reactivate
    | Close
    | MergeInto
    | Absorb
    | ImportBalance
)


class Facts(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a decision about a card rests on besides the card.

    `now` is when it happens at the till; `day` is that instant's date in the store's time zone, and `day_ends_at`
    the store's next midnight. `history` is what a reversal rests on: the transaction, and what came after it.
    """

    now: datetime
    day: date
    day_ends_at: datetime
    program: Program
    store_id: UUID | None
    allow_cross_store_redemption: bool = True
    require_order_reference: bool = False
    allow_reversals: bool = True
    history: tuple[Past, ...] = ()
