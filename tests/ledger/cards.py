"""Cards to specify rules with: their events given bare, and the facts that decisions about them rest on."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from ledger import card
from ledger.card import (
    BalanceAdjusted,
    BalanceImported,
    CardAbsorbed,
    CardClosed,
    CardEnrolled,
    CardHolder,
    CardMerged,
    CardReactivated,
    CardSuspended,
    EarnPoints,
    Enrol,
    Facts,
    MergeInto,
    Past,
    PointsEarned,
    PointsExpired,
    PointsRedeemed,
    Reason,
    Reverse,
    StampAdded,
    StampsRedeemed,
    TransactionReversed,
    WelcomeBonusGranted,
)
from ledger.card_plans import card_facts
from ledger.lots import LotPart
from ledger.merchant import Merchant, MerchantSettings, Store
from ledger.program import Program, with_period
from tests.ledger.specification import MERCHANT_ID, STREAM, Given, Outcome, given
from tests.shop import NOON, rules

DAY = date(2026, 3, 2)
SECOND, MINUTE, ONE_DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
COOLDOWN = 15 * MINUTE
CUSTOMER = UUID(int=7)
ENROL = Enrol(customer=CUSTOMER, customer_id="C-1", card_number="123456789015", qr_code="token")

LUXEMBOURG, TOKYO, NEW_YORK = UUID(int=1), UUID(int=2), UUID(int=3)
ZONES = {LUXEMBOURG: "Europe/Luxembourg", TOKYO: "Asia/Tokyo", NEW_YORK: "America/New_York"}
STORES = {
    store_id: Store(id=store_id, code=zone, name=zone, time_zone=zone, currency="EUR", locale="en")
    for store_id, zone in ZONES.items()
}
MERCHANT = Merchant(id=MERCHANT_ID, name="Shop", locale="en", settings=MerchantSettings(), stores=STORES)
AFTER_A_TRANSACTION = (TransactionReversed, PointsExpired)
"""What of a card's events a reversal rests on besides the transaction itself."""


def followed(expiry_since: datetime = NOON, **changes: Any) -> Program:
    """The third version of a program, which has had one expiry since then."""
    third = rules(**changes)
    return Program(
        id=UUID(int=9),
        merchant_id=MERCHANT_ID,
        version=3,
        rules=third,
        changed_at=expiry_since,
        expiry_periods=with_period((), third, expiry_since),
    )


def facts(
    now: datetime = NOON,
    store: UUID = LUXEMBOURG,
    settings: MerchantSettings | None = None,
    expiry_since: datetime = NOON,
    **changes: Any,
) -> Facts:
    """What a decision rests on in one of three stores."""
    tenant = msgspec.structs.replace(MERCHANT, settings=settings or MerchantSettings())
    return card_facts(now, tenant, followed(expiry_since, **changes), store)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def a_card(*history: Any, stream: UUID = STREAM) -> Given:
    return given(card, enrolled(), *history, stream=stream)


def part(lot: int, points: int, expires_at: datetime | None = None, earned_at: datetime = NOON, **more: Any) -> LotPart:
    return LotPart(lot, points, earned_at=earned_at, expires_at=expires_at, **more)


# ---- what is asked --------------------------------------------------------------------------------------------


def purchase(cents: int, order_reference: str | None = None) -> EarnPoints:
    return EarnPoints(purchase_amount_cents=cents, order_reference=order_reference)


def undo(version: int, *cards: Given, on: Facts | None = None, **asked: Any) -> Outcome:
    """A reversal of the first card's event, on the last of the cards that were merged one into the next."""
    first, last = cards[0], cards[-1]
    told = facts(last.time) if on is None else on
    command = Reverse(card=first.stream, version=version, **asked)
    return last.when(command, msgspec.structs.replace(told, history=history_of(version, *cards)))


def history_of(version: int, *cards: Given) -> tuple[Past, ...]:
    """The event, and what came after it that bears on its reversal."""
    firsts = [version] + [0] * (len(cards) - 1)
    return tuple(
        Past(card=each.stream, version=at.version, occurred_at=at.occurred_at, event=event)
        for each, first in zip(cards, firsts, strict=True)
        for event, at in each.past
        if at.version == first or (at.version > first and isinstance(event, AFTER_A_TRANSACTION))
    )


def merge(source: Given, into: Given, on: Facts | None = None) -> tuple[Given, Given]:
    """Both cards after all of one went to the other."""
    told = facts(max(source.time, into.time)) if on is None else on
    giving = source.when(MergeInto(into.stream), told)
    taking = into.when(card.Absorb(card.standing(source.state, told.program, told.now)), told)
    return giving.done(), taking.done()


# ---- events ---------------------------------------------------------------------------------------------------


def enrolled(store: UUID | None = LUXEMBOURG) -> CardEnrolled:
    return CardEnrolled(
        customer=CUSTOMER,
        card_number="123456789015",
        store_id=store,
        program_version=3,
        stamp_count=0,
        points_balance=0,
        private=CardHolder("C-1", "token"),
    )


def stamped(count: int, today: int = 1, *, day: date = DAY, reward: bool = False, points: int = 0) -> StampAdded:
    return StampAdded(
        stamps=1,
        day=day,
        stamps_today=today,
        reward_earned=reward,
        program_version=3,
        stamp_count=count,
        points_balance=points,
    )


def stamps_redeemed(left: int, *, stamps: int = 10, points: int = 0) -> StampsRedeemed:
    return StampsRedeemed(
        stamps=stamps, reward="A free coffee", program_version=3, stamp_count=left, points_balance=points
    )


def earned(points: int, balance: int, *, cents: int | None = None, stamps: int = 0, **more: Any) -> PointsEarned:
    return PointsEarned(
        points=points,
        purchase_amount_cents=points * 10 if cents is None else cents,
        program_version=3,
        stamp_count=stamps,
        points_balance=balance,
        **more,
    )


def points_redeemed(balance: int, *lots: LotPart, reward: str = "coffee", stamps: int = 0) -> PointsRedeemed:
    return PointsRedeemed(
        points=sum(part.points for part in lots),
        reward_id=reward,
        reward_name=reward.capitalize(),
        lots=lots,
        program_version=3,
        stamp_count=stamps,
        points_balance=balance,
    )


def bonus(points: int, expires_at: datetime | None = None) -> WelcomeBonusGranted:
    return WelcomeBonusGranted(
        points=points, expires_at=expires_at, program_version=3, stamp_count=0, points_balance=points
    )


def expired(expired_at: datetime, balance: int, *lots: LotPart, stamps: int = 0) -> PointsExpired:
    return PointsExpired(
        points=sum(part.points for part in lots),
        expired_at=expired_at,
        lots=lots,
        program_version=3,
        stamp_count=stamps,
        points_balance=balance,
    )


def undone(version: int, balance: int, *, stamp_count: int = 0, whole: bool = True, **more: Any) -> TransactionReversed:
    return TransactionReversed(
        card=more.pop("card", STREAM),
        version=version,
        whole=whole,
        program_version=3,
        stamp_count=stamp_count,
        points_balance=balance,
        **more,
    )


def adjusted(balance: int, stamp_count: int = 0, *, reason: str = "Counted again", **more: Any) -> BalanceAdjusted:
    return BalanceAdjusted(
        program_version=3, stamp_count=stamp_count, points_balance=balance, private=Reason(reason), **more
    )


def imported(balance: int, stamp_count: int = 0, **more: Any) -> BalanceImported:
    return BalanceImported(
        source="paper cards", program_version=3, stamp_count=stamp_count, points_balance=balance, **more
    )


def given_away(into: UUID, points: int = 0, stamps: int = 0, *lots: LotPart) -> CardMerged:
    return CardMerged(
        into=into, points=-points, stamps=-stamps, lots=lots, program_version=3, stamp_count=0, points_balance=0
    )


def absorbed(source: UUID, points: int, balance: int, *lots: LotPart, **more: Any) -> CardAbsorbed:
    return CardAbsorbed(
        cards=more.pop("cards", (source,)),
        points=points,
        stamps=more.pop("stamps", 0),
        lots=lots,
        last_activity_at=more.pop("last_activity_at", NOON),
        program_version=3,
        stamp_count=more.pop("stamp_count", 0),
        points_balance=balance,
        **more,
    )


def suspended(points: int = 0, stamps: int = 0, reason: str | None = None) -> CardSuspended:
    return CardSuspended(program_version=3, stamp_count=stamps, points_balance=points, private=because(reason))


def reactivated(points: int = 0, stamps: int = 0, reason: str | None = None) -> CardReactivated:
    return CardReactivated(program_version=3, stamp_count=stamps, points_balance=points, private=because(reason))


def closed(points: int = 0, stamps: int = 0, reason: str | None = None) -> CardClosed:
    return CardClosed(program_version=3, stamp_count=stamps, points_balance=points, private=because(reason))


def because(reason: str | None) -> Reason | None:
    return Reason(reason) if reason is not None else None
