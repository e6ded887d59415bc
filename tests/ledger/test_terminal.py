"""Tills: their keys, and the wrong PINs typed at them without a name."""

from datetime import timedelta
from uuid import UUID

import pytest

from ledger import terminal
from ledger.attempts import Attempts, LockRule
from ledger.terminal import (
    Command,
    CountWrongPin,
    ForgetWrongPins,
    RegisterTerminal,
    RevokeTerminal,
    RotateTerminalKey,
    TerminalKeyRotated,
    TerminalPinAccepted,
    TerminalPinFailed,
    TerminalRegistered,
    TerminalRevoked,
    TerminalUnlocked,
    UnlockTerminal,
)
from tests.ledger.specification import MERCHANT_ID, STREAM, given
from tests.shop import NOON

STORE = UUID(int=1)
REGISTER = RegisterTerminal(store_id=STORE, name="Till 1", key_digest="first")
REGISTERED = TerminalRegistered(store_id=STORE, name="Till 1", key_digest="first")
RULE = LockRule(failed_attempts_max=3, lockout_minutes=30)
OPENS = NOON + timedelta(minutes=30)
WRONG = CountWrongPin(NOON, RULE)
LATER: list[Command] = [RotateTerminalKey("second"), RevokeTerminal(), UnlockTerminal(), WRONG, ForgetWrongPins()]


def test_a_till_goes_into_service() -> None:
    given(terminal).when(REGISTER).then(REGISTERED)


def test_a_till_goes_into_service_once() -> None:
    given(terminal, REGISTERED).when(REGISTER).refused("terminal_exists")


@pytest.mark.parametrize("command", LATER, ids=lambda command: type(command).__name__)
def test_nothing_can_be_done_with_a_till_that_is_none(command: Command) -> None:
    given(terminal).when(command).refused("terminal_not_found")


def test_a_till_is_as_it_was_registered() -> None:
    state = given(terminal, REGISTERED).state
    assert (state.id, state.merchant_id, state.store_id, state.name) == (STREAM, MERCHANT_ID, STORE, "Till 1")
    assert state.key_digests == ("first",)
    assert not state.revoked


# ---- keys -----------------------------------------------------------------------------------------------------


def test_a_key_is_rotated_and_the_one_before_stays_good() -> None:
    after = given(terminal, REGISTERED).when(RotateTerminalKey("second")).then(TerminalKeyRotated("second"))
    assert after.state.key_digests == ("second", "first")


def test_two_keys_live_at_once_and_no_more() -> None:
    rotated = given(terminal, REGISTERED, TerminalKeyRotated("second"), TerminalKeyRotated("third"))
    assert rotated.state.key_digests == ("third", "second")


def test_a_till_is_revoked_with_all_its_keys() -> None:
    after = given(terminal, REGISTERED, TerminalKeyRotated("second")).when(RevokeTerminal()).then(TerminalRevoked())
    assert after.state.revoked
    assert after.state.key_digests == ()


def test_revoking_again_stays_quiet() -> None:
    given(terminal, REGISTERED, TerminalRevoked()).when(RevokeTerminal()).quiet()


@pytest.mark.parametrize(
    "command",
    [command for command in LATER if not isinstance(command, RevokeTerminal)],
    ids=lambda command: type(command).__name__,
)
def test_a_revoked_till_takes_nothing_more(command: Command) -> None:
    given(terminal, REGISTERED, TerminalRevoked()).when(command).refused("terminal_revoked")


# ---- wrong PINs -----------------------------------------------------------------------------------------------


def test_a_wrong_pin_is_counted_at_the_till() -> None:
    given(terminal, REGISTERED).when(WRONG).then(TerminalPinFailed(1))
    given(terminal, REGISTERED, TerminalPinFailed(1)).when(WRONG).then(TerminalPinFailed(2))


def test_the_till_locks_at_exactly_the_maximum() -> None:
    given(terminal, REGISTERED, TerminalPinFailed(2)).when(WRONG).then(TerminalPinFailed(3, OPENS))


def test_a_locked_till_counts_nothing() -> None:
    locked = given(terminal, REGISTERED, TerminalPinFailed(3, OPENS))
    last = CountWrongPin(OPENS - timedelta(seconds=1), RULE)
    locked.when(last).refused("pin_locked", locked_until="2026-03-02T11:30:00Z")


def test_the_till_opens_by_itself_and_counts_anew() -> None:
    locked = given(terminal, REGISTERED, TerminalPinFailed(3, OPENS))
    locked.when(CountWrongPin(OPENS, RULE)).then(TerminalPinFailed(1))


def test_a_locked_till_is_opened_by_hand() -> None:
    locked = given(terminal, REGISTERED, TerminalPinFailed(3, OPENS))
    assert locked.when(UnlockTerminal()).then(TerminalUnlocked()).state.attempts == Attempts()


def test_a_good_pin_starts_the_count_anew() -> None:
    tried = given(terminal, REGISTERED, TerminalPinFailed(2))
    tried.when(ForgetWrongPins()).then(TerminalPinAccepted()).when(WRONG).then(TerminalPinFailed(1))


@pytest.mark.parametrize("command", [UnlockTerminal(), ForgetWrongPins()], ids=["unlock", "good PIN"])
def test_where_nothing_was_counted_there_is_nothing_to_forget(command: Command) -> None:
    given(terminal, REGISTERED).when(command).quiet()
    given(terminal, REGISTERED, TerminalPinFailed(1), TerminalUnlocked()).when(command).quiet()


def test_a_new_key_leaves_the_lock_as_it_is() -> None:
    rotated = given(terminal, REGISTERED, TerminalPinFailed(3, OPENS), TerminalKeyRotated("second"))
    rotated.when(WRONG).refused("pin_locked", locked_until="2026-03-02T11:30:00Z")
