"""What an event did, in a sentence: only what the event itself says, and the program version that it names."""

from typing import assert_never
from uuid import UUID

from ledger import card
from ledger.entry import transaction_id
from ledger.program import Rules

OWN_WORDS = (card.CardMerged, card.CardAbsorbed)
"""What speaks of debts itself."""


def sentence(event: card.Event, rules: Rules | None, currency: str | None, outside_lots: int) -> str:
    """The event in words.

    `rules` are those of the program version it names, `currency` that of its store, `outside_lots` what of its points
    no lot gave or took.
    """
    said = said_of(event, rules, currency)
    if isinstance(event, OWN_WORDS) or not outside_lots:
        return f"{said}."
    if outside_lots > 0:
        return f"{said}; {points(outside_lots)} of it made a negative balance good."
    return f"{said}; {points(-outside_lots)} of it were spent already."


def said_of(event: card.Event, rules: Rules | None, currency: str | None) -> str:
    """What happened, without a word about debts."""
    match event:
        case card.PointsEarned():
            return earned(event, rules, currency)
        case card.WelcomeBonusGranted():
            return f"Granted {points(event.points)} as a welcome bonus"
        case card.StampAdded():
            return f"Added {stamps(event.stamps)}{', which reached the target' if event.reward_earned else ''}"
        case card.StampsRedeemed():
            return f"Redeemed {stamps(event.stamps)} for {event.reward}"
        case card.PointsRedeemed():
            return f"Spent {points(event.points)} on {event.reward_name}"
        case card.PointsExpired():
            return f"Lost {points(event.points)}, which expired on {event.expired_at:%Y-%m-%d at %H:%M:%S} UTC"
        case card.TransactionReversed():
            return reversed_(event, currency)
        case card.BalanceAdjusted():
            return f"Adjusted by {both(event.points, event.stamps, signed=True)}"
        case card.BalanceImported():
            return f"Brought {both(event.points, event.stamps)} along from {event.source}"
        case card.CardMerged():
            return f"Passed {both(-event.points, -event.stamps)} on to card {event.into}, into which it was merged"
        case card.CardAbsorbed():
            return f"Took over {both(event.points, event.stamps)} from card {event.cards[0]}, merged into this one"
        case card.CardEnrolled():
            return "Enrolled"
        case card.CardSuspended():
            return "Suspended"
        case card.CardReactivated():
            return "Reactivated"
        case card.CardClosed():
            return "Closed"
        case _:
            assert_never(event)


def earned(event: card.PointsEarned, rules: Rules | None, currency: str | None) -> str:
    """A purchase, with the rate where that is what the points follow from."""
    said = f"Earned {points(event.points)} for a purchase of {money(event.purchase_amount_cents, currency)}"
    if rules is not None and card.points_for(event.purchase_amount_cents, rules) == event.points:
        said += f" ({points(rules.points_per_euro)} per euro)"
    return said if event.order_reference is None else f"{said}, order {event.order_reference}"


def reversed_(event: card.TransactionReversed, currency: str | None) -> str:
    """What was undone, and what of it had expired before."""
    what = f"transaction {transaction_id(event.card, event.version)}"
    if event.purchase_amount_cents is not None:
        said = f"Refunded {money(event.purchase_amount_cents, currency)} of {what}"
    else:
        said = f"Reversed {what}"
    said += f": {both(event.points, event.stamps, signed=True)}"
    if event.points_expired:
        said += f"; {points(event.points_expired)} more had expired already"
    return said


def both(of_points: int, of_stamps: int, *, signed: bool = False) -> str:
    """Points and stamps, leaving out what is none."""
    parts = [points(of_points, signed=signed)] if of_points or not of_stamps else []
    parts += [stamps(of_stamps, signed=signed)] if of_stamps else []
    return " and ".join(parts)


def points(count: int, *, signed: bool = False) -> str:
    """So many points."""
    return counted(count, "point", signed=signed)


def stamps(count: int, *, signed: bool = False) -> str:
    """So many stamps."""
    return counted(count, "stamp", signed=signed)


def counted(count: int, noun: str, *, signed: bool) -> str:
    """A number of things; with a plus where signs matter."""
    number = f"{count:+}" if signed and count else f"{count}"
    return f"{number} {noun}{'' if abs(count) == 1 else 's'}"


def money(cents: int, currency: str | None) -> str:
    """An amount with its currency, where the store's is known."""
    amount = f"{cents // 100}.{cents % 100:02}"
    return f"{amount} {currency}" if currency is not None else amount


def other_card(event: card.Event) -> UUID | None:
    """The other card of a merge."""
    match event:
        case card.CardMerged():
            return event.into
        case card.CardAbsorbed():
            return event.cards[0]
        case _:
            return None
