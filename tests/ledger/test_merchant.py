"""The tenant: its settings and its stores."""

from uuid import UUID

import msgspec
import pytest

from ledger import merchant
from ledger.attempts import LockRule
from ledger.errors import Fact, Rejected
from ledger.merchant import (
    SETTINGS_LIMITS,
    AddStore,
    ChangeSettings,
    Command,
    CreateMerchant,
    MerchantCreated,
    MerchantSettings,
    SettingsChanged,
    StaffPinPolicy,
    Store,
    StoreAdded,
    refuse_bad_store_code,
)
from tests.ledger.specification import STREAM, given

PLAIN = MerchantSettings()
CREATED = MerchantCreated(name="Corner shop", locale="en", settings=PLAIN)
MAIN = Store(
    id=UUID(int=1), code="MAIN", name="Main street", time_zone="Europe/Luxembourg", currency="EUR", locale="en"
)
PORT = Store(id=UUID(int=2), code="PORT", name="The port", time_zone="Asia/Tokyo", currency="JPY", locale="en")


def creation(settings: MerchantSettings = PLAIN) -> CreateMerchant:
    return CreateMerchant(name="Corner shop", locale="en", settings=settings)


def test_a_tenant_is_opened() -> None:
    after = given(merchant).when(creation()).then(CREATED)
    assert (after.state.id, after.state.name, after.state.locale) == (STREAM, "Corner shop", "en")
    assert (after.state.settings, after.state.stores) == (PLAIN, {})


def test_a_tenant_is_opened_once() -> None:
    given(merchant, CREATED).when(creation()).refused("merchant_exists")


@pytest.mark.parametrize("command", [ChangeSettings({}), AddStore(MAIN)], ids=["settings", "store"])
def test_nothing_can_be_done_with_a_tenant_that_is_none(command: Command) -> None:
    given(merchant).when(command).refused("merchant_not_found")


# ---- settings -------------------------------------------------------------------------------------------------


def test_the_settings_begin_with_the_products_defaults() -> None:
    assert msgspec.to_builtins(PLAIN) == {
        "staff_pin_policy": "required",
        "pin_max_failed_attempts": 5,
        "pin_lockout_minutes": 30,
        "allow_self_enrollment": True,
        "allow_reversals": True,
        "allow_cross_store_redemption": True,
        "require_order_reference": False,
        "log_ip_addresses": False,
        "reversals_need_manager": False,
    }
    assert PLAIN.lock_rule == LockRule(failed_attempts_max=5, lockout_minutes=30)


def test_some_settings_change_and_the_rest_stays() -> None:
    changes: dict[str, object] = {"staff_pin_policy": StaffPinPolicy.OPTIONAL, "pin_max_failed_attempts": 3}
    settings = MerchantSettings(staff_pin_policy=StaffPinPolicy.OPTIONAL, pin_max_failed_attempts=3)
    after = given(merchant, CREATED, StoreAdded(MAIN)).when(ChangeSettings(changes)).then(SettingsChanged(settings))
    assert (after.state.settings, after.state.stores) == (settings, {MAIN.id: MAIN})


@pytest.mark.parametrize("changes", [{}, {"pin_max_failed_attempts": 5}], ids=["nothing", "the same"])
def test_settings_that_are_already_so_stay_quiet(changes: dict[str, object]) -> None:
    given(merchant, CREATED).when(ChangeSettings(changes)).quiet()


@pytest.mark.parametrize(("field", "limits"), SETTINGS_LIMITS.items())
def test_settings_have_limits(field: str, limits: tuple[int, int]) -> None:
    lowest, highest = limits
    facts: dict[str, Fact] = {"field": field, "minimum": lowest, "maximum": highest}
    for value in (lowest - 1, highest + 1):
        bad = msgspec.structs.replace(PLAIN, **{field: value})
        given(merchant).when(creation(bad)).refused("invalid_settings", **facts)
        given(merchant, CREATED).when(ChangeSettings({field: value})).refused("invalid_settings", **facts)
    for value in limits:
        good = msgspec.structs.replace(PLAIN, **{field: value})
        given(merchant, CREATED).when(ChangeSettings({field: value})).then(SettingsChanged(good))


# ---- stores ---------------------------------------------------------------------------------------------------


def test_stores_are_opened() -> None:
    first = given(merchant, CREATED).when(AddStore(MAIN)).then(StoreAdded(MAIN))
    second = first.when(AddStore(PORT)).then(StoreAdded(PORT))
    assert second.state.stores == {MAIN.id: MAIN, PORT.id: PORT}


def test_two_stores_do_not_share_a_code() -> None:
    same_code = msgspec.structs.replace(PORT, code="MAIN")
    given(merchant, CREATED, StoreAdded(MAIN)).when(AddStore(same_code)).refused("store_code_taken", store_code="MAIN")


@pytest.mark.parametrize("code", ["A1", "MAIN", "7-ELEVEN", "A-", "X" * 32])
def test_a_store_code_is_of_capitals_digits_and_hyphens(code: str) -> None:
    refuse_bad_store_code(code)


@pytest.mark.parametrize("code", ["", "A", "main", "-MAIN", "MA IN", "MAIN\n", "MÜNSTER", "MAIN/1", "X" * 33])
def test_other_store_codes_are_refused(code: str) -> None:
    with pytest.raises(Rejected) as refused:
        refuse_bad_store_code(code)
    assert refused.value.code == "invalid_store_code"
    assert refused.value.facts == {"pattern": "[A-Z0-9][A-Z0-9-]{1,31}"}
