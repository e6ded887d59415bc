"""Staff PINs: whom they name, where they count, and when they lock."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from ledger import staff_pin
from ledger.attempts import Attempts, LockRule
from ledger.staff_pin import (
    ChangeStaffPin,
    Command,
    CountWrongPin,
    CreateStaffPin,
    DeactivateStaffPin,
    ForgetWrongPins,
    StaffName,
    StaffPinAccepted,
    StaffPinChanged,
    StaffPinCreated,
    StaffPinDeactivated,
    StaffPinFailed,
    StaffPinUnlocked,
    StaffRole,
    UnlockStaffPin,
)
from tests.ledger.specification import MERCHANT_ID, STREAM, given
from tests.shop import NOON

STORE, OTHER_STORE = UUID(int=1), UUID(int=2)
RULE = LockRule(failed_attempts_max=3, lockout_minutes=30)
OPENS = NOON + timedelta(minutes=30)
WRONG = CountWrongPin(NOON, RULE)
CREATE = CreateStaffPin(name="Alex", role=StaffRole.STAFF, store_id=STORE, fingerprint="1234", pin_hash="#1234")
LATER: list[Command] = [ChangeStaffPin(name="Kim"), DeactivateStaffPin(), UnlockStaffPin(), WRONG, ForgetWrongPins()]


def created() -> StaffPinCreated:
    return StaffPinCreated(
        role=StaffRole.STAFF, store_id=STORE, fingerprint="1234", pin_hash="#1234", private=StaffName("Alex")
    )


def changed(*, name: str = "Alex", **fields: Any) -> StaffPinChanged:
    plain: dict[str, Any] = {
        "role": StaffRole.STAFF,
        "store_id": STORE,
        "fingerprint": "1234",
        "pin_hash": "#1234",
        "private": StaffName(name),
    }
    return StaffPinChanged(**plain | fields)


def test_a_staff_member_is_given_a_pin() -> None:
    given(staff_pin).when(CREATE).then(created())


def test_a_pin_is_created_once() -> None:
    given(staff_pin, created()).when(CREATE).refused("staff_pin_exists")


def test_a_pin_is_as_it_was_created() -> None:
    state = given(staff_pin, created()).state
    assert (state.id, state.merchant_id, state.name, state.role) == (STREAM, MERCHANT_ID, "Alex", StaffRole.STAFF)
    assert (state.store_id, state.fingerprint, state.pin_hash, state.active) == (STORE, "1234", "#1234", True)


@pytest.mark.parametrize("command", LATER, ids=lambda command: type(command).__name__)
def test_nothing_can_be_done_with_a_pin_that_is_none(command: Command) -> None:
    given(staff_pin).when(command).refused("staff_pin_not_found")


@pytest.mark.parametrize("event", [StaffPinCreated, StaffPinChanged])
def test_of_an_erased_staff_member_no_name_is_known(event: Any) -> None:
    erased = event(role=StaffRole.STAFF, fingerprint="1234", pin_hash="#1234")
    assert given(staff_pin, created(), erased).state.name == ""


# ---- changes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "event"),
    [
        (ChangeStaffPin(name="Kim"), changed(name="Kim")),
        (ChangeStaffPin(role=StaffRole.MANAGER), changed(role=StaffRole.MANAGER)),
        (ChangeStaffPin(changes_store=True, store_id=OTHER_STORE), changed(store_id=OTHER_STORE)),
        (ChangeStaffPin(changes_store=True), changed(store_id=None)),
        (ChangeStaffPin(fingerprint="5678", pin_hash="#5678"), changed(fingerprint="5678", pin_hash="#5678")),
    ],
    ids=["name", "role", "store", "every store", "digits"],
)
def test_what_is_given_is_changed_and_the_rest_stays(command: Command, event: StaffPinChanged) -> None:
    after = given(staff_pin, created()).when(command).then(event)
    assert after.state.name == (event.private.name if event.private else "")
    assert (after.state.role, after.state.store_id) == (event.role, event.store_id)
    assert (after.state.fingerprint, after.state.pin_hash) == (event.fingerprint, event.pin_hash)
    assert after.state.active


@pytest.mark.parametrize(
    "command",
    [
        ChangeStaffPin(),
        ChangeStaffPin(name="Alex", role=StaffRole.STAFF, changes_store=True, store_id=STORE),
        ChangeStaffPin(fingerprint="1234", pin_hash="the same digits hashed anew"),
        ChangeStaffPin(store_id=OTHER_STORE),
    ],
    ids=["nothing", "all as it is", "the same digits", "a store that is not meant"],
)
def test_a_change_to_what_is_already_so_stays_quiet(command: Command) -> None:
    given(staff_pin, created()).when(command).quiet()


def test_new_digits_start_the_count_anew() -> None:
    locked = given(staff_pin, created(), StaffPinFailed(3, OPENS))
    new = changed(fingerprint="5678", pin_hash="#5678")
    after = locked.when(ChangeStaffPin(fingerprint="5678", pin_hash="#5678")).then(new)
    assert after.state.attempts == Attempts()


def test_a_new_name_leaves_the_lock_as_it_is() -> None:
    locked = given(staff_pin, created(), StaffPinFailed(3, OPENS))
    renamed = locked.when(ChangeStaffPin(name="Kim")).then(changed(name="Kim"))
    renamed.when(WRONG).refused("pin_locked", locked_until="2026-03-02T11:30:00Z")


# ---- its end --------------------------------------------------------------------------------------------------


def test_a_pin_ends() -> None:
    assert not given(staff_pin, created()).when(DeactivateStaffPin()).then(StaffPinDeactivated()).state.active


def test_ending_a_pin_again_stays_quiet() -> None:
    given(staff_pin, created(), StaffPinDeactivated()).when(DeactivateStaffPin()).quiet()


@pytest.mark.parametrize(
    "command",
    [command for command in LATER if not isinstance(command, DeactivateStaffPin)],
    ids=lambda command: type(command).__name__,
)
def test_an_ended_pin_takes_nothing_more(command: Command) -> None:
    given(staff_pin, created(), StaffPinDeactivated()).when(command).refused("staff_pin_inactive")


# ---- wrong PINs -----------------------------------------------------------------------------------------------


def test_a_wrong_pin_is_counted() -> None:
    given(staff_pin, created()).when(WRONG).then(StaffPinFailed(1))
    given(staff_pin, created(), StaffPinFailed(1)).when(WRONG).then(StaffPinFailed(2))


def test_the_pin_locks_at_exactly_the_maximum() -> None:
    given(staff_pin, created(), StaffPinFailed(2)).when(WRONG).then(StaffPinFailed(3, OPENS))


def test_a_locked_pin_counts_nothing() -> None:
    locked = given(staff_pin, created(), StaffPinFailed(3, OPENS))
    last = CountWrongPin(OPENS - timedelta(seconds=1), RULE)
    locked.when(last).refused("pin_locked", locked_until="2026-03-02T11:30:00Z")


def test_the_pin_opens_by_itself_and_counts_anew() -> None:
    locked = given(staff_pin, created(), StaffPinFailed(3, OPENS))
    locked.when(CountWrongPin(OPENS, RULE)).then(StaffPinFailed(1))


def test_a_locked_pin_is_opened_by_hand() -> None:
    locked = given(staff_pin, created(), StaffPinFailed(3, OPENS))
    assert locked.when(UnlockStaffPin()).then(StaffPinUnlocked()).state.attempts == Attempts()


def test_the_right_pin_starts_the_count_anew() -> None:
    tried = given(staff_pin, created(), StaffPinFailed(2))
    tried.when(ForgetWrongPins()).then(StaffPinAccepted()).when(WRONG).then(StaffPinFailed(1))


@pytest.mark.parametrize("command", [UnlockStaffPin(), ForgetWrongPins()], ids=["unlock", "right PIN"])
def test_where_nothing_was_counted_there_is_nothing_to_forget(command: Command) -> None:
    given(staff_pin, created()).when(command).quiet()
    given(staff_pin, created(), StaffPinFailed(1), StaffPinUnlocked()).when(command).quiet()
