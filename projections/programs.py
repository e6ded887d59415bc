"""Programs as people see them."""

from uuid import UUID

from ledger.program import Program
from ledger.store.log import Log
from ledger.store.names import PROGRAM
from schemas import programs


def shown(program: Program) -> programs.Program:
    """The program as it crosses the wire."""
    rules = program.rules
    return programs.Program(
        id=program.id,
        version=program.version,
        type=rules.type.value,
        stamps_target=rules.stamps_target,
        stamps_reward_description=rules.stamps_reward_description,
        points_per_euro=rules.points_per_euro,
        rewards=[
            programs.Reward(id=reward.id, name=reward.name, points_cost=reward.points_cost, active=reward.active)
            for reward in rules.rewards
        ],
        minimum_purchase_cents=rules.minimum_purchase_cents,
        welcome_bonus_points=rules.welcome_bonus_points,
        cooldown_minutes=rules.cooldown_minutes,
        max_daily_stamps=rules.max_daily_stamps,
        require_staff_pin=rules.require_staff_pin,
        points_expiration_days=rules.points_expiration_days,
        expiry_policy=rules.expiry_policy.value,
        branding=programs.Branding(
            card_name=rules.branding.card_name,
            card_color=rules.branding.card_color,
            logo_url=rules.branding.logo_url,
            hero_image_url=rules.branding.hero_image_url,
        ),
        terms=rules.terms,
        active=rules.active,
        changed_at=program.changed_at,
    )


async def find(log: Log, program: UUID) -> programs.Program | None:
    """A program as of now."""
    loaded = await log.load(PROGRAM, program, fresh=True)
    return shown(loaded.state) if loaded is not None else None
