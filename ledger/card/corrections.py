"""What the shop does to a card: correct it, stop it, end it, merge it into another, bring a balance along."""

from ledger.card.commands import Adjust, Close, Facts, ImportBalance, MergeInto, Reactivate, Suspend
from ledger.card.events import (
    BalanceAdjusted,
    BalanceImported,
    CardAbsorbed,
    CardClosed,
    CardMerged,
    CardReactivated,
    CardSuspended,
    Reason,
)
from ledger.card.points import refuse_without_points
from ledger.card.stamps import refuse_without_stamps
from ledger.card.state import Card, CardStatus
from ledger.errors import Rejected
from ledger.lots import LotPart, all_parts, joined_lot, lot_expiry, oldest_parts, with_parts
from ledger.program import ExpiryPolicy

POINTS_MAX = 1_000_000_000
STAMPS_MAX = 1_000


def balance_adjusted(card: Card, command: Adjust, facts: Facts) -> BalanceAdjusted:
    """The balances as a manager says, but never below zero."""
    rules = facts.program.rules
    if command.points == 0 and command.stamps == 0:
        raise Rejected("nothing_to_adjust")
    refuse_out_of_range("points", command.points, -POINTS_MAX, POINTS_MAX)
    refuse_out_of_range("stamps", command.stamps, -STAMPS_MAX, STAMPS_MAX)
    if command.points > 0:
        refuse_without_points(rules)
    if command.stamps > 0:
        refuse_without_stamps(rules)
    if command.points < 0 and card.points_balance + command.points < 0:
        missing = -command.points - max(card.points_balance, 0)
        raise Rejected("not_enough_points", points_balance=card.points_balance, points_missing=missing)
    if command.stamps < 0 and card.stamp_count + command.stamps < 0:
        missing = -command.stamps - max(card.stamp_count, 0)
        raise Rejected("not_enough_stamps", stamp_count=card.stamp_count, stamps_missing=missing)
    expires_at = lot_expiry(rules, facts.now) if command.points > 0 else None
    return BalanceAdjusted(
        points=command.points,
        stamps=command.stamps,
        expires_at=expires_at,
        joins=joined_lot(card.lots, expires_at) if command.points > 0 else None,
        taken=oldest_parts(card.lots, max(0, -command.points)),
        program_version=facts.program.version,
        stamp_count=card.stamp_count + command.stamps,
        points_balance=card.points_balance + command.points,
        private=Reason(command.reason),
    )


def balance_imported(card: Card | None, command: ImportBalance, facts: Facts) -> BalanceImported:
    """A balance from elsewhere, in a lot like any other; on a card that is only now opened, the first."""
    rules = facts.program.rules
    refuse_out_of_range("points", command.points, 0, POINTS_MAX)
    refuse_out_of_range("stamps", command.stamps, 0, STAMPS_MAX)
    if command.points:
        refuse_without_points(rules)
    if command.stamps:
        refuse_without_stamps(rules)
    by_date = rules.expiry_policy is ExpiryPolicy.EARNED and rules.points_expiration_days is not None
    if command.points and command.expires_at is not None and not by_date:
        raise Rejected("expiry_date_not_used")
    expires_at = (command.expires_at or lot_expiry(rules, facts.now)) if command.points else None
    if expires_at is not None and expires_at <= facts.now:
        raise Rejected("expired_already")
    return BalanceImported(
        source=command.source,
        points=command.points,
        stamps=command.stamps,
        expires_at=expires_at,
        joins=joined_lot(card.lots, expires_at) if card and command.points else None,
        program_version=facts.program.version,
        stamp_count=(card.stamp_count if card else 0) + command.stamps,
        points_balance=(card.points_balance if card else 0) + command.points,
    )


def refuse_out_of_range(field: str, value: int, lowest: int, highest: int) -> None:
    """Raises `invalid_adjustment` for what no shop can mean."""
    if not lowest <= value <= highest:
        raise Rejected("invalid_adjustment", field=field, minimum=lowest, maximum=highest)


# ---- status ---------------------------------------------------------------------------------------------------


StatusEvent = CardSuspended | CardReactivated | CardClosed

STATUS_COMMANDS: dict[type[Suspend | Reactivate | Close], tuple[CardStatus, type[StatusEvent]]] = {
    Suspend: (CardStatus.SUSPENDED, CardSuspended),
    Reactivate: (CardStatus.ACTIVE, CardReactivated),
    Close: (CardStatus.CLOSED, CardClosed),
}


def status_changed(card: Card, command: Suspend | Reactivate | Close, facts: Facts) -> list[StatusEvent]:
    """The card in another status; quiet where it is in that one already. What was closed stays closed."""
    wanted, event = STATUS_COMMANDS[type(command)]
    if card.status is wanted:
        return []
    refuse_ended(card)
    return [
        event(
            program_version=facts.program.version,
            stamp_count=card.stamp_count,
            points_balance=card.points_balance,
            private=Reason(command.reason) if command.reason is not None else None,
        )
    ]


def refuse_ended(card: Card) -> None:
    """Raises `card_not_active` for a card that was closed or erased."""
    if card.status not in (CardStatus.ACTIVE, CardStatus.SUSPENDED):
        raise Rejected("card_not_active", card_status=card.status)


# ---- merging --------------------------------------------------------------------------------------------------


def merged(card: Card, command: MergeInto, facts: Facts) -> CardMerged:
    """All of the card given away."""
    if command.into == card.id:
        raise Rejected("same_card")
    refuse_ended(card)
    return CardMerged(
        into=command.into,
        points=-card.points_balance,
        stamps=-card.stamp_count,
        lots=all_parts(card.lots),
        program_version=facts.program.version,
        stamp_count=0,
        points_balance=0,
    )


def absorbed(card: Card, source: Card, facts: Facts) -> CardAbsorbed:
    """All of another card taken over. Where one of the two owes points, those of the other pay."""
    lots = tuple(
        LotPart(lot.lot, lot.points, lot.card or source.id, lot.earned_at, lot.expires_at) for lot in source.lots
    )
    owed = max(0, -card.points_balance) + max(0, -source.points_balance)
    there = with_parts(card.lots, lots, facts.now)
    return CardAbsorbed(
        cards=(source.id, *source.absorbed),
        points=source.points_balance,
        stamps=source.stamp_count,
        lots=lots,
        settled=oldest_parts(there, min(owed, sum(lot.points for lot in there))),
        stamps_by_day={each.day: each.stamps for each in source.recent_stamps},
        last_stamp_at=source.last_stamp_at,
        last_activity_at=source.last_activity_at,
        program_version=facts.program.version,
        stamp_count=card.stamp_count + source.stamp_count,
        points_balance=card.points_balance + source.points_balance,
    )
