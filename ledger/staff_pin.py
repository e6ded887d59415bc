"""A staff member's PIN: who it names, where it counts, and when it is locked."""

from datetime import datetime
from enum import StrEnum
from typing import assert_never
from uuid import UUID

import msgspec

from ledger.actor import Occurrence
from ledger.attempts import Attempts, LockRule
from ledger.errors import Rejected

# ---- commands -------------------------------------------------------------------------------------------------


class StaffRole(StrEnum):
    """What a staff member may do at a till."""

    STAFF = "staff"
    MANAGER = "manager"


class CreateStaffPin(msgspec.Struct, frozen=True, kw_only=True):
    """Gives a staff member a PIN; `pin_hash` is bcrypt over the PIN's fingerprint."""

    name: str
    role: StaffRole
    store_id: UUID | None
    fingerprint: str
    pin_hash: str


class ChangeStaffPin(msgspec.Struct, frozen=True, kw_only=True):
    """Changes what is not None; `store_id` only where `changes_store` says so, as None means every store."""

    name: str | None = None
    role: StaffRole | None = None
    changes_store: bool = False
    store_id: UUID | None = None
    fingerprint: str | None = None
    pin_hash: str | None = None


class DeactivateStaffPin(msgspec.Struct, frozen=True):
    """Ends the PIN; its digits are free for somebody else."""


class UnlockStaffPin(msgspec.Struct, frozen=True):
    """Lets the PIN be tried again before its lock is over."""


class CountWrongPin(msgspec.Struct, frozen=True):
    """Counts a wrong PIN given for this staff member."""

    now: datetime
    rule: LockRule


class ForgetWrongPins(msgspec.Struct, frozen=True):
    """Starts the count anew after the right PIN."""


Command = CreateStaffPin | ChangeStaffPin | DeactivateStaffPin | UnlockStaffPin | CountWrongPin | ForgetWrongPins

# ---- events ---------------------------------------------------------------------------------------------------


class StaffName(msgspec.Struct, frozen=True):
    """Personal data of a staff member, sealed as stored."""

    name: str


class StaffPinCreated(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A staff member was given a PIN."""

    role: StaffRole
    store_id: UUID | None = None
    fingerprint: str
    pin_hash: str
    private: StaffName | None = None


class StaffPinChanged(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The PIN's record became this."""

    role: StaffRole
    store_id: UUID | None = None
    fingerprint: str
    pin_hash: str
    private: StaffName | None = None


class StaffPinDeactivated(msgspec.Struct, frozen=True):
    """The PIN ended."""


class StaffPinFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A wrong PIN was given for this staff member; `locked_until` where that locked it."""

    failed_attempts: int
    locked_until: datetime | None = None


class StaffPinAccepted(msgspec.Struct, frozen=True):
    """The right PIN came after wrong ones, whose count began anew."""


class StaffPinUnlocked(msgspec.Struct, frozen=True):
    """A manager opened the PIN, and the count of wrong ones began anew."""


Event = StaffPinCreated | StaffPinChanged | StaffPinDeactivated | StaffPinFailed | StaffPinAccepted | StaffPinUnlocked

# ---- state ----------------------------------------------------------------------------------------------------


class StaffPin(msgspec.Struct, frozen=True, kw_only=True):
    """The PIN as it stands. `store_id` None counts in every store of the merchant."""

    id: UUID
    merchant_id: UUID
    name: str
    role: StaffRole
    store_id: UUID | None
    fingerprint: str
    pin_hash: str
    active: bool = True
    attempts: Attempts = Attempts()


ERASED_NAME = ""


def evolve(pin: StaffPin | None, event: Event, at: Occurrence) -> StaffPin:
    """The PIN after one more event."""
    if isinstance(event, StaffPinCreated):
        return StaffPin(
            id=at.stream,
            merchant_id=at.merchant_id,
            name=event.private.name if event.private else ERASED_NAME,
            role=event.role,
            store_id=event.store_id,
            fingerprint=event.fingerprint,
            pin_hash=event.pin_hash,
        )
    assert pin is not None, "a PIN is created before anything else happens to it"
    match event:
        case StaffPinChanged():
            same_digits = event.fingerprint == pin.fingerprint
            return StaffPin(
                id=pin.id,
                merchant_id=pin.merchant_id,
                name=event.private.name if event.private else ERASED_NAME,
                role=event.role,
                store_id=event.store_id,
                fingerprint=event.fingerprint,
                pin_hash=event.pin_hash,
                active=pin.active,
                attempts=pin.attempts if same_digits else Attempts(),
            )
        case StaffPinDeactivated():
            return msgspec.structs.replace(pin, active=False)
        case StaffPinFailed(failed, locked_until):
            return msgspec.structs.replace(pin, attempts=Attempts(failed=failed, locked_until=locked_until))
        case StaffPinUnlocked() | StaffPinAccepted():
            return msgspec.structs.replace(pin, attempts=Attempts())
        case _:
            assert_never(event)


# ---- decide ---------------------------------------------------------------------------------------------------


def decide(pin: StaffPin | None, command: Command) -> list[Event]:
    """Creates once; a deactivated PIN takes nothing more."""
    if isinstance(command, CreateStaffPin):
        if pin is not None:
            raise Rejected("staff_pin_exists")
        return [
            StaffPinCreated(
                role=command.role,
                store_id=command.store_id,
                fingerprint=command.fingerprint,
                pin_hash=command.pin_hash,
                private=StaffName(command.name),
            )
        ]
    if pin is None:
        raise Rejected("staff_pin_not_found")
    if not pin.active:
        if isinstance(command, DeactivateStaffPin):
            return []
        raise Rejected("staff_pin_inactive")
    match command:
        case ChangeStaffPin():
            return changed(pin, command)
        case DeactivateStaffPin():
            return [StaffPinDeactivated()]
        case UnlockStaffPin():
            return [] if pin.attempts == Attempts() else [StaffPinUnlocked()]
        case ForgetWrongPins():
            return [] if pin.attempts == Attempts() else [StaffPinAccepted()]
        case CountWrongPin(now, rule):
            pin.attempts.refuse_if_locked(now)
            attempts = pin.attempts.after_failure(now, rule)
            return [StaffPinFailed(attempts.failed, attempts.locked_until)]
        case _:
            assert_never(command)


def changed(pin: StaffPin, command: ChangeStaffPin) -> list[Event]:
    """The whole record after the change, or nothing where it asks for what is already so."""
    same_digits = command.fingerprint is None or command.fingerprint == pin.fingerprint
    event = StaffPinChanged(
        role=command.role or pin.role,
        store_id=command.store_id if command.changes_store else pin.store_id,
        fingerprint=pin.fingerprint if same_digits else command.fingerprint or pin.fingerprint,
        pin_hash=pin.pin_hash if same_digits else command.pin_hash or pin.pin_hash,
        private=StaffName(command.name or pin.name),
    )
    unchanged = StaffPinChanged(
        role=pin.role,
        store_id=pin.store_id,
        fingerprint=pin.fingerprint,
        pin_hash=pin.pin_hash,
        private=StaffName(pin.name),
    )
    return [] if event == unchanged else [event]
