"""Accounts with a password."""

import pytest

from ledger import account
from ledger.account import AccountAdded, AccountHolder, AddAccount, ChangePassword, PasswordChanged
from ledger.actor import Role
from tests.ledger.specification import MERCHANT_ID, STREAM, given

MAIL = "mo@shop.test"
ADDED = AccountAdded(role=Role.MANAGER, password_hash="hash", private=AccountHolder(MAIL))


def opening(role: Role) -> AddAccount:
    return AddAccount(email=MAIL, password_hash="hash", role=role)


@pytest.mark.parametrize("role", [Role.ADMIN, Role.MANAGER, Role.AUDITOR])
def test_managers_auditors_and_admins_have_accounts(role: Role) -> None:
    added = AccountAdded(role=role, password_hash="hash", private=AccountHolder(MAIL))
    given(account).when(opening(role)).then(added)


@pytest.mark.parametrize("role", [Role.TERMINAL, Role.CUSTOMER, Role.OPERATOR])
def test_others_have_no_account(role: Role) -> None:
    given(account).when(opening(role)).refused("invalid_role", role=role)


def test_an_account_is_opened_once() -> None:
    given(account, ADDED).when(opening(Role.MANAGER)).refused("account_exists")


def test_a_password_becomes_another() -> None:
    after = given(account, ADDED).when(ChangePassword("other")).then(PasswordChanged("other"))
    assert after.state.password_hash == "other"
    assert (after.state.role, after.state.email) == (Role.MANAGER, MAIL)


def test_a_password_needs_an_account() -> None:
    given(account).when(ChangePassword("other")).refused("account_not_found")


def test_an_account_is_as_it_was_opened() -> None:
    state = given(account, ADDED).state
    assert (state.id, state.merchant_id, state.role, state.email) == (STREAM, MERCHANT_ID, Role.MANAGER, MAIL)


def test_of_an_erased_holder_no_address_is_known() -> None:
    assert given(account, AccountAdded(role=Role.ADMIN, password_hash="hash")).state.email is None
