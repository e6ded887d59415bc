"""What a new merchant and a new program have where nothing else is said: the installation's settings say it."""

from ledger.merchant import MerchantSettings
from ledger.program import Branding, ExpiryPolicy, ProgramType, Rules
from ledger.settings import Settings


def default_rules(settings: Settings, program_type: ProgramType) -> Rules:
    """A program of which only the type is known."""
    return Rules(
        type=program_type,
        stamps_target=10,
        stamps_reward_description="",
        points_per_euro=settings.default_points_per_euro,
        rewards=(),
        minimum_purchase_cents=0,
        welcome_bonus_points=0,
        cooldown_minutes=settings.default_cooldown_minutes,
        max_daily_stamps=settings.max_daily_stamps,
        require_staff_pin=True,
        points_expiration_days=None,
        expiry_policy=ExpiryPolicy.INACTIVITY,
        branding=Branding(),
        terms="",
        active=True,
    )


def default_settings(settings: Settings) -> MerchantSettings:
    """A new merchant's settings."""
    return MerchantSettings(
        pin_max_failed_attempts=settings.pin_max_failed_attempts, pin_lockout_minutes=settings.pin_lockout_minutes
    )
