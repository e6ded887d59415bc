"""An account with a password: a merchant's manager or auditor, or an admin or auditor of the platform."""

from typing import assert_never
from uuid import UUID

import msgspec

from ledger.actor import Occurrence, Role
from ledger.errors import Rejected

ACCOUNT_ROLES = (Role.ADMIN, Role.MANAGER, Role.AUDITOR)

# ---- commands -------------------------------------------------------------------------------------------------


class AddAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Opens an account; the e-mail address must have been reserved for it."""

    email: str
    password_hash: str
    role: Role


class ChangePassword(msgspec.Struct, frozen=True):
    """Puts another password in place of the old."""

    password_hash: str


Command = AddAccount | ChangePassword

# ---- events ---------------------------------------------------------------------------------------------------


class AccountHolder(msgspec.Struct, frozen=True):
    """Personal data of an account, sealed as stored."""

    email: str


class AccountAdded(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An account was opened."""

    role: Role
    password_hash: str
    private: AccountHolder | None = None


class PasswordChanged(msgspec.Struct, frozen=True):
    """The account's password became another."""

    password_hash: str


Event = AccountAdded | PasswordChanged

# ---- state ----------------------------------------------------------------------------------------------------


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """The account as it stands."""

    id: UUID
    merchant_id: UUID
    role: Role
    email: str | None
    password_hash: str


def evolve(account: Account | None, event: Event, at: Occurrence) -> Account:
    """The account after one more event."""
    match event:
        case AccountAdded():
            return Account(
                id=at.stream,
                merchant_id=at.merchant_id,
                role=event.role,
                email=event.private.email if event.private else None,
                password_hash=event.password_hash,
            )
        case PasswordChanged(password_hash):
            assert account is not None, "a password changes after the account was opened"
            return msgspec.structs.replace(account, password_hash=password_hash)
        case _:
            assert_never(event)


# ---- decide ---------------------------------------------------------------------------------------------------


def decide(account: Account | None, command: Command) -> list[Event]:
    """Opens once; changes a password only of an account that is there."""
    match command:
        case AddAccount():
            if account is not None:
                raise Rejected("account_exists")
            if command.role not in ACCOUNT_ROLES:
                raise Rejected("invalid_role", role=command.role)
            return [
                AccountAdded(
                    role=command.role,
                    password_hash=command.password_hash,
                    private=AccountHolder(command.email),
                )
            ]
        case ChangePassword(password_hash):
            if account is None:
                raise Rejected("account_not_found")
            return [PasswordChanged(password_hash)]
        case _:
            assert_never(command)
