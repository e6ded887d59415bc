"""What happens to a card. Every event tells the program version it was decided under and the balances after it."""

from datetime import date, datetime
from uuid import UUID

import msgspec

from ledger.lots import LotName, LotPart


class CardHolder(msgspec.Struct, gc=False, frozen=True):
    """What ties a card to a person, sealed as stored: the merchant's reference and the token a scanner reads."""

    customer_id: str
    qr_code: str


class Reason(msgspec.Struct, gc=False, frozen=True):
    """Why something was done, in words that may well name a person; sealed as stored."""

    reason: str


class CardEnrolled(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """A customer was given a card. `private` is None once the person was erased."""

    customer: UUID
    card_number: str
    store_id: UUID | None = None
    program_version: int
    stamp_count: int
    points_balance: int
    private: CardHolder | None = None


class WelcomeBonusGranted(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """A new card was given points to begin with."""

    points: int
    expires_at: datetime | None = None
    program_version: int
    stamp_count: int
    points_balance: int


class StampAdded(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A stamp was added; `day` is the store's own date, `stamps_today` counts this one too."""

    stamps: int
    day: date
    stamps_today: int
    reward_earned: bool
    program_version: int
    stamp_count: int
    points_balance: int


class StampsRedeemed(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Stamps were exchanged for the program's reward."""

    stamps: int
    reward: str
    program_version: int
    stamp_count: int
    points_balance: int


class PointsEarned(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """A purchase earned points. They joined a lot that was there, or began one named after this event's version.

    What it took to make a negative balance good went into no lot.
    """

    points: int
    purchase_amount_cents: int
    order_reference: str | None = None
    expires_at: datetime | None = None
    joins: LotName | None = None
    program_version: int
    stamp_count: int
    points_balance: int


class PointsRedeemed(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Points were spent on a reward, out of these lots."""

    points: int
    reward_id: str
    reward_name: str
    lots: tuple[LotPart, ...]
    program_version: int
    stamp_count: int
    points_balance: int


class PointsExpired(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Points ended at `expired_at`, whenever that was noticed; these lots lost them."""

    points: int
    expired_at: datetime
    lots: tuple[LotPart, ...]
    program_version: int
    stamp_count: int
    points_balance: int


class TransactionReversed(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """A transaction was undone, whole or in part. `points` and `stamps` are the signed changes of the balances.

    `card` and `version` say which transaction; `whole` that nothing is left of it to undo. `taken` came out of lots,
    `returned` went back into them. `lot` is where the points of an earning lay, and `points_expired` how many of them
    were not taken, since they had expired there. `stamped_at` and `day` are of the stamp that was taken back.
    """

    card: UUID
    version: int
    whole: bool
    points: int = 0
    stamps: int = 0
    purchase_amount_cents: int | None = None
    taken: tuple[LotPart, ...] = ()
    returned: tuple[LotPart, ...] = ()
    lot: LotName | None = None
    points_expired: int = 0
    stamped_at: datetime | None = None
    day: date | None = None
    program_version: int
    stamp_count: int
    points_balance: int
    private: Reason | None = None


class BalanceAdjusted(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """The balances were corrected by hand, for a reason. Points given lie in a lot as earned ones do."""

    points: int = 0
    stamps: int = 0
    expires_at: datetime | None = None
    joins: LotName | None = None
    taken: tuple[LotPart, ...] = ()
    program_version: int
    stamp_count: int
    points_balance: int
    private: Reason | None = None


class BalanceImported(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """A balance was brought along from the system that `source` names."""

    source: str
    points: int = 0
    stamps: int = 0
    expires_at: datetime | None = None
    joins: LotName | None = None
    program_version: int
    stamp_count: int
    points_balance: int


class CardMerged(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """All that the card had, a negative balance included, went to another card; this one is closed."""

    into: UUID
    points: int
    stamps: int
    lots: tuple[LotPart, ...] = ()
    program_version: int
    stamp_count: int
    points_balance: int


class CardAbsorbed(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """All that another card had came to this one. `cards` are that card and those that had been merged into it.

    `lots` came along under their own names; `settled` is what made a negative balance of either good.
    """

    cards: tuple[UUID, ...]
    points: int
    stamps: int
    lots: tuple[LotPart, ...] = ()
    settled: tuple[LotPart, ...] = ()
    stamps_by_day: dict[date, int] = {}
    last_stamp_at: datetime | None = None
    last_activity_at: datetime
    program_version: int
    stamp_count: int
    points_balance: int


class CardSuspended(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """The card was stopped for a while."""

    program_version: int
    stamp_count: int
    points_balance: int
    private: Reason | None = None


class CardReactivated(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """A suspended card takes part again."""

    program_version: int
    stamp_count: int
    points_balance: int
    private: Reason | None = None


class CardClosed(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """The card ended for good, with what was on it."""

    program_version: int
    stamp_count: int
    points_balance: int
    private: Reason | None = None


Event = (
    CardEnrolled
    | WelcomeBonusGranted
    | StampAdded
    | StampsRedeemed
    | PointsEarned
    | PointsRedeemed
    | PointsExpired
    | TransactionReversed
    | BalanceAdjusted
    | BalanceImported
    | CardMerged
    | CardAbsorbed
    | CardSuspended
    | CardReactivated
    | CardClosed
)


class Past(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """An event where it stands."""

    card: UUID
    version: int
    occurred_at: datetime
    event: Event
