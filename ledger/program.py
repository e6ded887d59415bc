"""The rules a merchant's cards follow. Every change makes a new version; events name the version they used."""

from datetime import datetime
from enum import StrEnum
from typing import assert_never
from uuid import UUID

import msgspec

from ledger.actor import Occurrence
from ledger.errors import Rejected

# ---- commands -------------------------------------------------------------------------------------------------


class ProgramType(StrEnum):
    """What a program collects."""

    STAMPS = "stamps"
    POINTS = "points"
    HYBRID = "hybrid"


class ExpiryPolicy(StrEnum):
    """When points end: all of an idle card's together, or each earning's a fixed time after it."""

    INACTIVITY = "inactivity"
    EARNED = "earned"


class Reward(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that points can be spent on."""

    id: str
    name: str
    points_cost: int
    active: bool = True


class Branding(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the card looks. `card_color` is `#rrggbb`."""

    card_name: str = "Loyalty Card"
    card_color: str = "#1f4f82"
    logo_url: str | None = None
    hero_image_url: str | None = None


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of a program, as one version of it. Amounts are cents, points are whole."""

    type: ProgramType
    stamps_target: int
    stamps_reward_description: str
    points_per_euro: int
    rewards: tuple[Reward, ...]
    minimum_purchase_cents: int
    welcome_bonus_points: int
    cooldown_minutes: int
    max_daily_stamps: int
    require_staff_pin: bool
    points_expiration_days: int | None
    expiry_policy: ExpiryPolicy
    branding: Branding
    terms: str
    active: bool

    @property
    def has_stamps(self) -> bool:
        """Whether cards of this program collect stamps."""
        return self.type is not ProgramType.POINTS

    @property
    def has_points(self) -> bool:
        """Whether cards of this program collect points."""
        return self.type is not ProgramType.STAMPS


class CreateProgram(msgspec.Struct, frozen=True):
    """Gives a merchant its program."""

    rules: Rules


class ChangeProgram(msgspec.Struct, frozen=True):
    """Puts other values in place of some of a program's rules."""

    changes: dict[str, object]


Command = CreateProgram | ChangeProgram

# ---- events ---------------------------------------------------------------------------------------------------


class ProgramCreated(msgspec.Struct, frozen=True):
    """A merchant's program began."""

    rules: Rules


class ProgramChanged(msgspec.Struct, frozen=True):
    """The program's rules became these."""

    rules: Rules


Event = ProgramCreated | ProgramChanged

# ---- state ----------------------------------------------------------------------------------------------------


class ExpiryPeriod(msgspec.Struct, frozen=True):
    """From when on points ended by that policy, after so many days; None: never."""

    since: datetime
    policy: ExpiryPolicy
    days: int | None


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """The program as it stands; `version` is what events name.

    `expiry_periods` are all the rules of expiry it ever had, oldest first: what was due under one is due for good,
    whether anybody noticed in time or not.
    """

    id: UUID
    merchant_id: UUID
    version: int
    rules: Rules
    changed_at: datetime
    expiry_periods: tuple[ExpiryPeriod, ...]


def evolve(program: Program | None, event: Event, at: Occurrence) -> Program:
    """The program after one more event."""
    match event:
        case ProgramCreated(rules) | ProgramChanged(rules):
            return Program(
                id=at.stream,
                merchant_id=at.merchant_id,
                version=at.version,
                rules=rules,
                changed_at=at.occurred_at,
                expiry_periods=with_period(program.expiry_periods if program else (), rules, at.occurred_at),
            )
        case _:
            assert_never(event)


def with_period(periods: tuple[ExpiryPeriod, ...], rules: Rules, since: datetime) -> tuple[ExpiryPeriod, ...]:
    """The periods, and a new one where the rules say otherwise than the last of them when points end."""
    policy, days = rules.expiry_policy, rules.points_expiration_days
    if periods and (periods[-1].policy, periods[-1].days) == (policy, days):
        return periods
    return (*periods, ExpiryPeriod(since, policy, days))


# ---- decide ---------------------------------------------------------------------------------------------------

LIMITS: dict[str, tuple[int, int]] = {
    "stamps_target": (1, 100),
    "points_per_euro": (0, 100_000),
    "minimum_purchase_cents": (0, 100_000_000),
    "welcome_bonus_points": (0, 1_000_000),
    "cooldown_minutes": (0, 7 * 24 * 60),
    "max_daily_stamps": (1, 1_000),
}
POINTS_EXPIRATION_DAYS_MAX = 36_500
REWARD_POINTS_COST_MAX = 1_000_000_000
REWARDS_MAX = 100


def decide(program: Program | None, command: Command) -> list[Event]:
    """Creates the program once; changes it only where something really differs."""
    match command:
        case CreateProgram(rules):
            if program is not None:
                raise Rejected("program_exists", program_id=str(program.id))
            refuse_bad_rules(rules)
            return [ProgramCreated(rules)]
        case ChangeProgram(changes):
            if program is None:
                raise Rejected("program_not_found")
            rules = with_changes(program.rules, changes)
            refuse_bad_rules(rules)
            return [] if rules == program.rules else [ProgramChanged(rules)]
        case _:
            assert_never(command)


def with_changes(rules: Rules, changes: dict[str, object]) -> Rules:
    """The rules with other values in place; of the branding, too, only what is given."""
    branding = changes.get("branding")
    if isinstance(branding, dict):
        changes = {**changes, "branding": msgspec.structs.replace(rules.branding, **branding)}
    return msgspec.structs.replace(rules, **changes)


def refuse_bad_rules(rules: Rules) -> None:
    """Raises `invalid_program` with the field and its limits for values that no shop can mean."""
    for field, (lowest, highest) in LIMITS.items():
        if not lowest <= getattr(rules, field) <= highest:
            raise Rejected("invalid_program", field=field, minimum=lowest, maximum=highest)
    days = rules.points_expiration_days
    if days is not None and not 1 <= days <= POINTS_EXPIRATION_DAYS_MAX:
        raise Rejected("invalid_program", field="points_expiration_days", minimum=1, maximum=POINTS_EXPIRATION_DAYS_MAX)
    if len(rules.rewards) > REWARDS_MAX:
        raise Rejected("invalid_program", field="rewards", maximum=REWARDS_MAX)
    if len({reward.id for reward in rules.rewards}) < len(rules.rewards):
        raise Rejected("invalid_program", field="rewards", reason="two rewards have the same id")
    for reward in rules.rewards:
        if not 1 <= reward.points_cost <= REWARD_POINTS_COST_MAX:
            raise Rejected("invalid_program", field="rewards.points_cost", minimum=1, maximum=REWARD_POINTS_COST_MAX)
