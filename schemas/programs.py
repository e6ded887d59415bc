"""A merchant's program."""

from typing import Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from schemas.kinds import Color, Instant, Name, Reference, ShortText, Text, Url

ProgramType = Literal["stamps", "points", "hybrid"]
ExpiryPolicy = Literal["inactivity", "earned"]


class RewardRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something points can be spent on; an `id` is made up if absent."""

    id: Reference | None = None
    name: Name
    points_cost: int
    active: bool = True


class BrandingRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the card looks; what is absent stays as it is."""

    card_name: Name | UnsetType = UNSET
    card_color: Color | UnsetType = UNSET
    logo_url: Url | UnsetType | None = UNSET
    hero_image_url: Url | UnsetType | None = UNSET


class ProgramChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules to change; what is absent stays as it is. `rewards` are given whole."""

    type: ProgramType | UnsetType = UNSET
    stamps_target: int | UnsetType = UNSET
    stamps_reward_description: ShortText | UnsetType = UNSET
    points_per_euro: int | UnsetType = UNSET
    rewards: list[RewardRequest] | UnsetType = UNSET
    minimum_purchase_cents: int | UnsetType = UNSET
    welcome_bonus_points: int | UnsetType = UNSET
    cooldown_minutes: int | UnsetType = UNSET
    max_daily_stamps: int | UnsetType = UNSET
    require_staff_pin: bool | UnsetType = UNSET
    points_expiration_days: int | UnsetType | None = UNSET
    expiry_policy: ExpiryPolicy | UnsetType = UNSET
    branding: BrandingRequest | UnsetType = UNSET
    terms: Text | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class ProgramRequest(ProgramChange, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A new program; what is absent has the installation's default."""

    type: ProgramType


class Reward(Struct, frozen=True, kw_only=True):
    """Something points can be spent on."""

    id: str
    name: str
    points_cost: int
    active: bool


class Branding(Struct, frozen=True, kw_only=True):
    """How the card looks."""

    card_name: str
    card_color: str
    logo_url: str | None
    hero_image_url: str | None


class Program(Struct, frozen=True, kw_only=True):
    """The program as it stands; every change makes a new `version`."""

    id: UUID
    version: int
    type: ProgramType
    stamps_target: int
    stamps_reward_description: str
    points_per_euro: int
    rewards: list[Reward]
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
    changed_at: Instant


class PublicReward(Struct, frozen=True, kw_only=True):
    """Something points can be spent on now."""

    name: str
    points_cost: int


class PublicProgram(Struct, frozen=True, kw_only=True):
    """A store's program as anybody may know it; `self_enrollment`: whether customers get a card by themselves."""

    store_code: str
    store_name: str
    merchant_name: str
    locale: str
    currency: str
    active: bool
    self_enrollment: bool
    type: ProgramType
    stamps_target: int
    stamps_reward_description: str
    points_per_euro: int
    minimum_purchase_cents: int
    welcome_bonus_points: int
    rewards: list[PublicReward]
    points_expiration_days: int | None
    expiry_policy: ExpiryPolicy
    branding: Branding
    terms: str
