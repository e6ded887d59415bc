"""Points: what purchases earn, and what rewards cost."""

from ledger.card.commands import EarnPoints, Facts, RedeemPoints
from ledger.card.events import PointsEarned, PointsRedeemed
from ledger.card.stamps import refuse_foreign_store
from ledger.card.state import Card
from ledger.errors import Rejected
from ledger.lots import joined_lot, lot_expiry, oldest_parts
from ledger.program import Rules

PURCHASE_CENTS_MAX = 100_000_000


def points_for(purchase_amount_cents: int, rules: Rules) -> int:
    """`floor(cents * points_per_euro / 100)` in whole numbers."""
    return purchase_amount_cents * rules.points_per_euro // 100


def points_earned(card: Card, command: EarnPoints, facts: Facts) -> PointsEarned:
    """The purchase's points; a purchase of nothing earns nothing and is recorded."""
    rules = facts.program.rules
    amount = command.purchase_amount_cents
    refuse_without_points(rules)
    if not 0 <= amount <= PURCHASE_CENTS_MAX:
        raise Rejected("invalid_amount", minimum=0, maximum=PURCHASE_CENTS_MAX)
    if amount < rules.minimum_purchase_cents:
        raise Rejected("purchase_below_minimum", minimum_purchase_cents=rules.minimum_purchase_cents)
    if facts.require_order_reference and command.order_reference is None:
        raise Rejected("order_reference_required")
    points = points_for(amount, rules)
    expires_at = lot_expiry(rules, facts.now)
    return PointsEarned(
        points=points,
        purchase_amount_cents=amount,
        order_reference=command.order_reference,
        expires_at=expires_at,
        joins=joined_lot(card.lots, expires_at),
        program_version=facts.program.version,
        stamp_count=card.stamp_count,
        points_balance=card.points_balance + points,
    )


def points_redeemed(card: Card, command: RedeemPoints, facts: Facts) -> PointsRedeemed:
    """The reward's price, taken from the oldest lots first."""
    rules = facts.program.rules
    refuse_without_points(rules)
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


def refuse_without_points(rules: Rules) -> None:
    """Raises `points_not_offered` where the program collects none."""
    if not rules.has_points:
        raise Rejected("points_not_offered", program_type=rules.type)
