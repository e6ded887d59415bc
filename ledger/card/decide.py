"""What a command makes of a card: the one place where each command meets its rule."""

from collections.abc import Sequence
from typing import assert_never

import msgspec

from ledger.card.commands import (
    Absorb,
    AddStamp,
    Adjust,
    Close,
    Command,
    EarnPoints,
    Enrol,
    ExpirePoints,
    Facts,
    ImportBalance,
    MergeInto,
    Reactivate,
    RedeemPoints,
    RedeemStamps,
    Reverse,
    Suspend,
)
from ledger.card.corrections import (
    absorbed,
    balance_adjusted,
    balance_imported,
    merged,
    refuse_ended,
    status_changed,
)
from ledger.card.events import (
    CardEnrolled,
    CardHolder,
    Event,
    Past,
    PointsExpired,
    WelcomeBonusGranted,
)
from ledger.card.expiry import expired, expired_on_return, standing
from ledger.card.points import points_earned, points_redeemed
from ledger.card.reversal import reversed_transaction
from ledger.card.stamps import stamp_added, stamps_redeemed
from ledger.card.state import Card, CardStatus, undone
from ledger.errors import Rejected
from ledger.lots import lot_expiry

UNNUMBERED = 0
"""Stands for the version of an event that is in no stream yet."""


def decide(card: Card | None, command: Command, facts: Facts) -> list[Event]:
    """What the command makes of the card, or the reason why not. What was due to expire before it goes first."""
    if isinstance(command, Enrol):
        return enrol(command, facts) if card is None else []
    if card is None:
        raise Rejected("card_not_found")
    due = expired(card, facts)
    if isinstance(command, ExpirePoints):
        return [*due]
    left = standing(card, facts.program, facts.now) if due else card
    events = decided(left, command, with_expiries(facts, card, due))
    return [*due, *events] if events else []


def with_expiries(facts: Facts, card: Card, events: Sequence[PointsExpired]) -> Facts:
    """The facts with what expires only now in their history, as if it had been noticed in time."""
    if not (facts.history and events):
        return facts
    noticed = (Past(card=card.id, version=UNNUMBERED, occurred_at=each.expired_at, event=each) for each in events)
    return msgspec.structs.replace(facts, history=(*facts.history, *noticed))


def decided(card: Card, command: Command, facts: Facts) -> list[Event]:
    """What the command makes of a card on which nothing is due to expire."""
    match command:
        case Suspend() | Reactivate() | Close():
            return [*status_changed(card, command, facts)]
        case MergeInto():
            return [merged(card, command, facts)]
        case Reverse():
            refuse_ended(card)
            return reversal(card, command, facts)
        case Adjust():
            refuse_ended(card)
            return [balance_adjusted(card, command, facts)]
        case ImportBalance():
            refuse_ended(card)
            return [balance_imported(card, command, facts)]
        case _:
            pass
    if card.status is not CardStatus.ACTIVE:
        raise Rejected("card_not_active", card_status=card.status)
    if isinstance(command, Absorb):
        return [absorbed(card, command.source, facts)]
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
        case Enrol() | ExpirePoints():
            raise AssertionError("decided before")
        case _:
            assert_never(command)


def reversal(card: Card, command: Reverse, facts: Facts) -> list[Event]:
    """The reversal, and what ends with it because its time is over."""
    event = reversed_transaction(card, command, facts)
    if not event.returned:
        return [event]
    given_back = msgspec.structs.replace(
        undone(card, event, facts.now),
        stamp_count=event.stamp_count,
        points_balance=event.points_balance,
        last_activity_at=facts.now,
    )
    return [event, *expired_on_return(given_back, facts)]


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
    if command.brings is not None:
        return [card, balance_imported(None, command.brings, facts)]
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
