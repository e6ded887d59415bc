"""The tenant: its settings and its stores."""

import re
from enum import StrEnum
from typing import assert_never
from uuid import UUID

import msgspec

from ledger.actor import Occurrence
from ledger.attempts import LockRule
from ledger.errors import Rejected

# ---- commands -------------------------------------------------------------------------------------------------


class StaffPinPolicy(StrEnum):
    """Whether terminals must name a staff member by PIN: always, as the program says, or never."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    DISABLED = "disabled"


class MerchantSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What admins control, one of each per merchant.

    `reversals_need_manager`: at a till, a reversal takes the PIN of a manager, whatever the policy for PINs is.
    """

    staff_pin_policy: StaffPinPolicy = StaffPinPolicy.REQUIRED
    pin_max_failed_attempts: int = 5
    pin_lockout_minutes: int = 30
    allow_self_enrollment: bool = True
    allow_reversals: bool = True
    allow_cross_store_redemption: bool = True
    require_order_reference: bool = False
    log_ip_addresses: bool = False
    reversals_need_manager: bool = False

    @property
    def lock_rule(self) -> LockRule:
        """The limits for wrong PINs."""
        return LockRule(failed_attempts_max=self.pin_max_failed_attempts, lockout_minutes=self.pin_lockout_minutes)


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """A shop. `code` is unique on the platform; `time_zone` is an IANA name, `currency` of ISO 4217."""

    id: UUID
    code: str
    name: str
    time_zone: str
    currency: str
    locale: str


class CreateMerchant(msgspec.Struct, frozen=True, kw_only=True):
    """Opens a tenant."""

    name: str
    locale: str
    settings: MerchantSettings


class ChangeSettings(msgspec.Struct, frozen=True):
    """Puts other values in place of some settings."""

    changes: dict[str, object]


class AddStore(msgspec.Struct, frozen=True):
    """Opens a store; its code must have been reserved for this merchant."""

    store: Store


Command = CreateMerchant | ChangeSettings | AddStore

# ---- events ---------------------------------------------------------------------------------------------------


class MerchantCreated(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant was opened."""

    name: str
    locale: str
    settings: MerchantSettings


class SettingsChanged(msgspec.Struct, frozen=True):
    """The merchant's settings became these."""

    settings: MerchantSettings


class StoreAdded(msgspec.Struct, frozen=True):
    """A store was opened."""

    store: Store


Event = MerchantCreated | SettingsChanged | StoreAdded

# ---- state ----------------------------------------------------------------------------------------------------


class Merchant(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant as it stands."""

    id: UUID
    name: str
    locale: str
    settings: MerchantSettings
    stores: dict[UUID, Store]

    def only_store(self, store_id: UUID | None) -> UUID | None:
        """The store that was named, or the merchant's only one where none was."""
        if store_id is None and len(self.stores) == 1:
            (store_id,) = self.stores
        return store_id


def evolve(merchant: Merchant | None, event: Event, at: Occurrence) -> Merchant:
    """The merchant after one more event."""
    match event:
        case MerchantCreated():
            return Merchant(id=at.stream, name=event.name, locale=event.locale, settings=event.settings, stores={})
        case SettingsChanged(settings):
            assert merchant is not None, "settings change after a merchant was created"
            return msgspec.structs.replace(merchant, settings=settings)
        case StoreAdded(store):
            assert merchant is not None, "a store is added after a merchant was created"
            return msgspec.structs.replace(merchant, stores={**merchant.stores, store.id: store})
        case _:
            assert_never(event)


# ---- decide ---------------------------------------------------------------------------------------------------

CURRENCY = re.compile(r"[A-Z]{3}")
STORE_CODE = re.compile(r"[A-Z0-9][A-Z0-9-]{1,31}")
SETTINGS_LIMITS = {"pin_max_failed_attempts": (1, 100), "pin_lockout_minutes": (1, 7 * 24 * 60)}


def decide(merchant: Merchant | None, command: Command) -> list[Event]:
    """Creates once, changes what differs, adds a store once."""
    match command:
        case CreateMerchant():
            if merchant is not None:
                raise Rejected("merchant_exists")
            refuse_bad_settings(command.settings)
            return [MerchantCreated(name=command.name, locale=command.locale, settings=command.settings)]
        case ChangeSettings(changes):
            current = existing(merchant)
            settings = msgspec.structs.replace(current.settings, **changes)
            refuse_bad_settings(settings)
            return [] if settings == current.settings else [SettingsChanged(settings)]
        case AddStore(store):
            if not CURRENCY.fullmatch(store.currency):
                raise Rejected("invalid_currency", pattern=CURRENCY.pattern)
            if any(known.code == store.code for known in existing(merchant).stores.values()):
                raise Rejected("store_code_taken", store_code=store.code)
            return [StoreAdded(store)]
        case _:
            assert_never(command)


def existing(merchant: Merchant | None) -> Merchant:
    """The merchant, or the refusal `merchant_not_found`."""
    if merchant is None:
        raise Rejected("merchant_not_found")
    return merchant


def refuse_bad_settings(settings: MerchantSettings) -> None:
    """Raises `invalid_settings` with the field and its limits."""
    for field, (lowest, highest) in SETTINGS_LIMITS.items():
        if not lowest <= getattr(settings, field) <= highest:
            raise Rejected("invalid_settings", field=field, minimum=lowest, maximum=highest)


def refuse_bad_store_code(code: str) -> None:
    """Raises `invalid_store_code`: codes stand in public addresses and are read out over the telephone."""
    if not STORE_CODE.fullmatch(code):
        raise Rejected("invalid_store_code", pattern=STORE_CODE.pattern)
