"""A till or tablet of a store: its keys, and the wrong PINs typed at it without a name."""

from datetime import datetime
from typing import assert_never
from uuid import UUID

import msgspec

from ledger.actor import Occurrence
from ledger.attempts import Attempts, LockRule
from ledger.errors import Rejected

LIVE_KEYS_MAX = 2

# ---- commands -------------------------------------------------------------------------------------------------


class RegisterTerminal(msgspec.Struct, frozen=True, kw_only=True):
    """Takes a till into service; `key_digest` is the SHA-256 of its key's secret part, in hex."""

    store_id: UUID
    name: str
    key_digest: str


class RotateTerminalKey(msgspec.Struct, frozen=True):
    """Gives the till another key; the one before it stays good until the next rotation."""

    key_digest: str


class RevokeTerminal(msgspec.Struct, frozen=True):
    """Takes the till out of service for good."""


class UnlockTerminal(msgspec.Struct, frozen=True):
    """Lets PINs be tried at the till again before its lock is over."""


class CountWrongPin(msgspec.Struct, frozen=True):
    """Counts a PIN that belongs to nobody."""

    now: datetime
    rule: LockRule


class ForgetWrongPins(msgspec.Struct, frozen=True):
    """Starts the count anew after a PIN that was right."""


Command = RegisterTerminal | RotateTerminalKey | RevokeTerminal | UnlockTerminal | CountWrongPin | ForgetWrongPins

# ---- events ---------------------------------------------------------------------------------------------------


class TerminalRegistered(msgspec.Struct, frozen=True, kw_only=True):
    """A till went into service."""

    store_id: UUID
    name: str
    key_digest: str


class TerminalKeyRotated(msgspec.Struct, frozen=True):
    """The till was given another key."""

    key_digest: str


class TerminalRevoked(msgspec.Struct, frozen=True):
    """The till went out of service."""


class TerminalPinFailed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A PIN that belongs to nobody was typed at the till; `locked_until` where that locked it."""

    failed_attempts: int
    locked_until: datetime | None = None


class TerminalPinAccepted(msgspec.Struct, frozen=True):
    """Somebody's PIN came after wrong ones, whose count began anew."""


class TerminalUnlocked(msgspec.Struct, frozen=True):
    """A manager opened the till, and the count of wrong PINs began anew."""


Event = (
    TerminalRegistered
    | TerminalKeyRotated
    | TerminalRevoked
    | TerminalPinFailed
    | TerminalPinAccepted
    | TerminalUnlocked
)

# ---- state ----------------------------------------------------------------------------------------------------


class Terminal(msgspec.Struct, frozen=True, kw_only=True):
    """The till as it stands; `key_digests` are the live ones, newest first."""

    id: UUID
    merchant_id: UUID
    store_id: UUID
    name: str
    key_digests: tuple[str, ...]
    revoked: bool = False
    attempts: Attempts = Attempts()


def evolve(terminal: Terminal | None, event: Event, at: Occurrence) -> Terminal:
    """The till after one more event."""
    if isinstance(event, TerminalRegistered):
        return Terminal(
            id=at.stream,
            merchant_id=at.merchant_id,
            store_id=event.store_id,
            name=event.name,
            key_digests=(event.key_digest,),
        )
    assert terminal is not None, "a terminal is registered before anything else happens to it"
    match event:
        case TerminalKeyRotated(key_digest):
            keys = (key_digest, *terminal.key_digests)[:LIVE_KEYS_MAX]
            return msgspec.structs.replace(terminal, key_digests=keys)
        case TerminalRevoked():
            return msgspec.structs.replace(terminal, revoked=True, key_digests=())
        case TerminalPinFailed(failed, locked_until):
            attempts = Attempts(failed=failed, locked_until=locked_until)
            return msgspec.structs.replace(terminal, attempts=attempts)
        case TerminalUnlocked() | TerminalPinAccepted():
            return msgspec.structs.replace(terminal, attempts=Attempts())
        case _:
            assert_never(event)


# ---- decide ---------------------------------------------------------------------------------------------------


def decide(terminal: Terminal | None, command: Command) -> list[Event]:
    """Registers once; a revoked till takes nothing more."""
    if isinstance(command, RegisterTerminal):
        if terminal is not None:
            raise Rejected("terminal_exists")
        return [TerminalRegistered(store_id=command.store_id, name=command.name, key_digest=command.key_digest)]
    if terminal is None:
        raise Rejected("terminal_not_found")
    if terminal.revoked:
        if isinstance(command, RevokeTerminal):
            return []
        raise Rejected("terminal_revoked")
    match command:
        case RotateTerminalKey(key_digest):
            return [TerminalKeyRotated(key_digest)]
        case RevokeTerminal():
            return [TerminalRevoked()]
        case UnlockTerminal():
            return [] if terminal.attempts == Attempts() else [TerminalUnlocked()]
        case ForgetWrongPins():
            return [] if terminal.attempts == Attempts() else [TerminalPinAccepted()]
        case CountWrongPin(now, rule):
            terminal.attempts.refuse_if_locked(now)
            attempts = terminal.attempts.after_failure(now, rule)
            return [TerminalPinFailed(attempts.failed, attempts.locked_until)]
        case _:
            assert_never(command)
