"""Stamps: one at a time, not too soon and not too many a day, and a reward for so many."""

from datetime import datetime, timedelta

from ledger.attempts import rfc3339
from ledger.card.commands import Facts
from ledger.card.events import StampAdded, StampsRedeemed
from ledger.card.state import Card
from ledger.errors import Rejected
from ledger.program import Rules


def stamp_added(card: Card, facts: Facts) -> StampAdded:
    """One stamp, unless the last was too recent or the day's are used up."""
    rules = facts.program.rules
    refuse_without_stamps(rules)
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
        reward_earned=count > 0 and count % rules.stamps_target == 0,
        program_version=facts.program.version,
        stamp_count=count,
        points_balance=card.points_balance,
    )


def stamps_redeemed(card: Card, facts: Facts) -> StampsRedeemed:
    """The target's stamps; what is over stays."""
    rules = facts.program.rules
    refuse_without_stamps(rules)
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


def refuse_without_stamps(rules: Rules) -> None:
    """Raises `stamps_not_offered` where the program collects none."""
    if not rules.has_stamps:
        raise Rejected("stamps_not_offered", program_type=rules.type)


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
