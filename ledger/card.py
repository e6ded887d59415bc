"""A customer's membership of a merchant: stamps, points, and the lots that the points lie in."""

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import assert_never
from uuid import UUID

import msgspec

from ledger.actor import Occurrence
from ledger.attempts import rfc3339
from ledger.errors import Rejected
from ledger.lots import Lot, LotPart, lot_expiry, oldest_parts, with_lot, without
from ledger.program import ExpiryPolicy, Program, Rules

PURCHASE_CENTS_MAX = 100_000_000
DATES_APART_MAX = 2

# ---- commands -------------------------------------------------------------------------------------------------


class Enrol(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Opens a card for a customer; the number and the QR token come in, unused by any other card."""

    customer: UUID
    customer_id: str
    card_number: str
    qr_code: str


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


Command = Enrol | AddStamp | RedeemStamps | EarnPoints | RedeemPoints


class Facts(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a decision about a card rests on besides the card.

    `now` is when it happens at the till; `day` is that instant's date in the store's time zone, and `day_ends_at`
    the store's next midnight.
    """

    now: datetime
    day: date
    day_ends_at: datetime
    program: Program
    store_id: UUID | None
    allow_cross_store_redemption: bool = True
    require_order_reference: bool = False


# ---- events ---------------------------------------------------------------------------------------------------


class CardHolder(msgspec.Struct, gc=False, frozen=True):
    """What ties a card to a person, sealed as stored: the merchant's reference and the token a scanner reads."""

    customer_id: str
    qr_code: str


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
    """A purchase earned points, which form a lot of their own."""

    points: int
    purchase_amount_cents: int
    order_reference: str | None = None
    expires_at: datetime | None = None
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


Event = CardEnrolled | WelcomeBonusGranted | StampAdded | StampsRedeemed | PointsEarned | PointsRedeemed

# ---- state ----------------------------------------------------------------------------------------------------


class CardStatus(StrEnum):
    """Whether a card takes part."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    CLOSED = "closed"
    ERASED = "erased"


class DayStamps(msgspec.Struct, gc=False, frozen=True):
    """How many stamps a card was given on one date of a store."""

    day: date
    stamps: int


class Card(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """The card as it stands. `customer_id` and `qr_code` are None once the person was erased."""

    id: UUID
    merchant_id: UUID
    customer: UUID
    customer_id: str | None
    qr_code: str | None
    card_number: str
    store_id: UUID | None
    enrolled_at: datetime
    last_activity_at: datetime
    status: CardStatus = CardStatus.ACTIVE
    stamp_count: int = 0
    points_balance: int = 0
    lots: tuple[Lot, ...] = ()
    last_stamp_at: datetime | None = None
    recent_stamps: tuple[DayStamps, ...] = ()

    def stamps_on(self, day: date) -> int:
        """Stamps given on that date."""
        return next((entry.stamps for entry in self.recent_stamps if entry.day == day), 0)


def evolve(card: Card | None, event: Event, at: Occurrence) -> Card:
    """The card after one more event."""
    if isinstance(event, CardEnrolled):
        return enrolled(event, at)
    assert card is not None, "a card is enrolled before anything else happens to it"
    activity = max(card.last_activity_at, at.occurred_at)
    match event:
        case StampAdded():
            return msgspec.structs.replace(
                card,
                stamp_count=event.stamp_count,
                last_stamp_at=at.occurred_at,
                recent_stamps=with_stamps_on(card.recent_stamps, event.day, event.stamps_today),
                last_activity_at=activity,
            )
        case StampsRedeemed():
            return msgspec.structs.replace(card, stamp_count=event.stamp_count, last_activity_at=activity)
        case PointsEarned() | WelcomeBonusGranted():
            lots = card.lots
            if event.points:
                lots = with_lot(lots, Lot(at.version, event.points, at.occurred_at, event.expires_at))
            return msgspec.structs.replace(
                card, points_balance=event.points_balance, lots=lots, last_activity_at=activity
            )
        case PointsRedeemed():
            return msgspec.structs.replace(
                card,
                points_balance=event.points_balance,
                lots=without(card.lots, event.lots),
                last_activity_at=activity,
            )
        case _:
            assert_never(event)


def enrolled(event: CardEnrolled, at: Occurrence) -> Card:
    """A card at its beginning."""
    holder = event.private
    return Card(
        id=at.stream,
        merchant_id=at.merchant_id,
        customer=event.customer,
        customer_id=holder.customer_id if holder else None,
        qr_code=holder.qr_code if holder else None,
        card_number=event.card_number,
        store_id=event.store_id,
        enrolled_at=at.occurred_at,
        last_activity_at=at.occurred_at,
    )


def with_stamps_on(recent: tuple[DayStamps, ...], day: date, stamps: int) -> tuple[DayStamps, ...]:
    """Keeps the dates around this one only: at one instant, it is at most three dates somewhere on Earth."""
    near = (entry for entry in recent if entry.day != day and abs((entry.day - day).days) <= DATES_APART_MAX)
    return (*near, DayStamps(day, stamps))


# ---- decide ---------------------------------------------------------------------------------------------------


def decide(card: Card | None, command: Command, facts: Facts) -> list[Event]:
    """What the command makes of the card, or the reason why not."""
    if isinstance(command, Enrol):
        return enrol(command, facts) if card is None else []
    if card is None:
        raise Rejected("card_not_found")
    if card.status is not CardStatus.ACTIVE:
        raise Rejected("card_not_active", status=card.status)
    if not facts.program.rules.active:
        raise Rejected("program_inactive")
    match command:
        case AddStamp():
            return [stamp_added(card, facts)]
        case RedeemStamps():
            return [stamps_redeemed(card, facts)]
        case EarnPoints():
            return [points_earned(card, command, facts)]
        case RedeemPoints():
            return [points_redeemed(card, command, facts)]
        case _:
            assert_never(command)


def enrol(command: Enrol, facts: Facts) -> list[Event]:
    """A card, and the welcome bonus where the program gives one."""
    rules = facts.program.rules
    if not rules.active:
        raise Rejected("program_inactive")
    card = CardEnrolled(
        customer=command.customer,
        card_number=command.card_number,
        store_id=facts.store_id,
        program_version=facts.program.version,
        stamp_count=0,
        points_balance=0,
        private=CardHolder(command.customer_id, command.qr_code),
    )
    if not (rules.has_points and rules.welcome_bonus_points):
        return [card]
    bonus = WelcomeBonusGranted(
        points=rules.welcome_bonus_points,
        expires_at=lot_expiry(rules, facts.now),
        program_version=facts.program.version,
        stamp_count=0,
        points_balance=rules.welcome_bonus_points,
    )
    return [card, bonus]


def stamp_added(card: Card, facts: Facts) -> StampAdded:
    """One stamp, unless the last was too recent or the day's are used up."""
    rules = facts.program.rules
    if not rules.has_stamps:
        raise Rejected("stamps_not_offered", program_type=rules.type)
    due = stamp_due_at(card, rules)
    if due is not None and facts.now < due:
        raise Rejected("stamp_cooldown", next_stamp_available_at=rfc3339(next_stamp_available_at(card, facts) or due))
    stamps_today = card.stamps_on(facts.day)
    if stamps_today >= rules.max_daily_stamps:
        raise Rejected(
            "daily_stamp_limit",
            stamps_today=stamps_today,
            max_daily_stamps=rules.max_daily_stamps,
            next_stamp_available_at=rfc3339(facts.day_ends_at),
        )
    count = card.stamp_count + 1
    return StampAdded(
        stamps=1,
        day=facts.day,
        stamps_today=stamps_today + 1,
        reward_earned=count % rules.stamps_target == 0,
        program_version=facts.program.version,
        stamp_count=count,
        points_balance=card.points_balance,
    )


def stamps_redeemed(card: Card, facts: Facts) -> StampsRedeemed:
    """The target's stamps; what is over stays."""
    rules = facts.program.rules
    if not rules.has_stamps:
        raise Rejected("stamps_not_offered", program_type=rules.type)
    refuse_foreign_store(card, facts)
    missing = rules.stamps_target - card.stamp_count
    if missing > 0:
        raise Rejected(
            "not_enough_stamps",
            stamp_count=card.stamp_count,
            stamps_target=rules.stamps_target,
            stamps_missing=missing,
        )
    return StampsRedeemed(
        stamps=rules.stamps_target,
        reward=rules.stamps_reward_description,
        program_version=facts.program.version,
        stamp_count=card.stamp_count - rules.stamps_target,
        points_balance=card.points_balance,
    )


def points_for(purchase_amount_cents: int, rules: Rules) -> int:
    """`floor(cents * points_per_euro / 100)` in whole numbers."""
    return purchase_amount_cents * rules.points_per_euro // 100


def points_earned(card: Card, command: EarnPoints, facts: Facts) -> PointsEarned:
    """The purchase's points; a purchase of nothing earns nothing and is recorded."""
    rules = facts.program.rules
    amount = command.purchase_amount_cents
    if not rules.has_points:
        raise Rejected("points_not_offered", program_type=rules.type)
    if not 0 <= amount <= PURCHASE_CENTS_MAX:
        raise Rejected("invalid_amount", minimum=0, maximum=PURCHASE_CENTS_MAX)
    if amount < rules.minimum_purchase_cents:
        raise Rejected("purchase_below_minimum", minimum_purchase_cents=rules.minimum_purchase_cents)
    if facts.require_order_reference and command.order_reference is None:
        raise Rejected("order_reference_required")
    points = points_for(amount, rules)
    return PointsEarned(
        points=points,
        purchase_amount_cents=amount,
        order_reference=command.order_reference,
        expires_at=lot_expiry(rules, facts.now),
        program_version=facts.program.version,
        stamp_count=card.stamp_count,
        points_balance=card.points_balance + points,
    )


def points_redeemed(card: Card, command: RedeemPoints, facts: Facts) -> PointsRedeemed:
    """The reward's price, taken from the oldest lots first."""
    rules = facts.program.rules
    if not rules.has_points:
        raise Rejected("points_not_offered", program_type=rules.type)
    refuse_foreign_store(card, facts)
    reward = next((r for r in rules.rewards if r.id == command.reward_id and r.active), None)
    if reward is None:
        raise Rejected("reward_not_found", reward_id=command.reward_id)
    missing = reward.points_cost - card.points_balance
    if missing > 0:
        raise Rejected(
            "not_enough_points",
            points_balance=card.points_balance,
            points_cost=reward.points_cost,
            points_missing=missing,
        )
    return PointsRedeemed(
        points=reward.points_cost,
        reward_id=reward.id,
        reward_name=reward.name,
        lots=oldest_parts(card.lots, reward.points_cost),
        program_version=facts.program.version,
        stamp_count=card.stamp_count,
        points_balance=card.points_balance - reward.points_cost,
    )


def refuse_foreign_store(card: Card, facts: Facts) -> None:
    """Raises `other_store` where the merchant lets rewards be taken only where the card was opened."""
    if facts.allow_cross_store_redemption or card.store_id is None or facts.store_id == card.store_id:
        return
    raise Rejected("other_store", store_id=str(card.store_id))


def stamp_due_at(card: Card, rules: Rules) -> datetime | None:
    """When the cooldown of the last stamp ends; None before the first stamp, and where the program has none."""
    if card.last_stamp_at is None or rules.cooldown_minutes == 0:
        return None
    return card.last_stamp_at + timedelta(minutes=rules.cooldown_minutes)


def next_stamp_available_at(card: Card, facts: Facts) -> datetime | None:
    """The earliest instant at which another stamp would be taken; None where that is now."""
    due = stamp_due_at(card, facts.program.rules)
    if card.stamps_on(facts.day) >= facts.program.rules.max_daily_stamps:
        due = max(due, facts.day_ends_at) if due else facts.day_ends_at
    return due if due is not None and due > facts.now else None


class NextExpiry(msgspec.Struct, gc=False, frozen=True):
    """What the next expiry would take, and when, if nothing happened before it."""

    points: int
    at: datetime


def next_expiry(card: Card, rules: Rules) -> NextExpiry | None:
    """The next expiry under the program's policy; None where nothing will expire."""
    if rules.points_expiration_days is None or not card.lots:
        return None
    if rules.expiry_policy is ExpiryPolicy.INACTIVITY:
        return NextExpiry(card.points_balance, card.last_activity_at + timedelta(days=rules.points_expiration_days))
    dated = [lot for lot in card.lots if lot.expires_at is not None]
    if not dated:
        return None
    first = min(lot.expires_at for lot in dated if lot.expires_at is not None)
    return NextExpiry(sum(lot.points for lot in dated if lot.expires_at == first), first)
