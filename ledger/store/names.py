"""The names under which events are stored, written down by hand: renaming a class orphans nothing.

A topic is `name.version`. When an event's shape changes, its version here goes up by one, an upcaster lifts the old
shape to the new, and an example of the new version joins those that are checked in.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar, get_args
from uuid import UUID

import msgspec

from ledger import account, attempts, card, customer, lots, merchant, program, refusals, staff_pin, terminal
from ledger.actor import Occurrence

S = TypeVar("S")
E = TypeVar("E")


class Aggregate(Generic[S, E]):
    """How one kind of stream is folded: its state, its evolve, and whose personal data its events hold."""

    def __init__(
        self,
        state: type[S],
        evolve: Callable[[S | None, E, Occurrence], S],
        events: Any,
        subject: Callable[[S], UUID] | None = None,
    ) -> None:
        self.state = state
        self.evolve = evolve
        self.events: tuple[type[msgspec.Struct], ...] = get_args(events)
        self.subject = subject
        if not self.events:
            self.events = (events,)
        # A snapshot is good for the code that folded it, upcasters included, and no other.
        folding = {evolve.__module__, *(event.__module__ for event in self.events)}
        modules = (*(sys.modules[name] for name in sorted(folding)), lots, attempts, sys.modules[__name__])
        self.fold = hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()[:16]


CARD = Aggregate(card.Card, card.evolve, card.Event, lambda state: state.customer)
REFUSALS = Aggregate(refusals.Refusals, refusals.evolve, refusals.Event, lambda state: state.customer)
CUSTOMER = Aggregate(customer.Customer, customer.evolve, customer.Event, lambda state: state.id)
PROGRAM = Aggregate(program.Program, program.evolve, program.Event)
MERCHANT = Aggregate(merchant.Merchant, merchant.evolve, merchant.Event)
TERMINAL = Aggregate(terminal.Terminal, terminal.evolve, terminal.Event)
STAFF_PIN = Aggregate(staff_pin.StaffPin, staff_pin.evolve, staff_pin.Event, lambda state: state.id)
ACCOUNT = Aggregate(account.Account, account.evolve, account.Event, lambda state: state.id)

STORED: dict[type[msgspec.Struct], tuple[str, int]] = {
    merchant.MerchantCreated: ("merchant_created", 2),
    merchant.SettingsChanged: ("settings_changed", 2),
    merchant.StoreAdded: ("store_added", 1),
    program.ProgramCreated: ("program_created", 1),
    program.ProgramChanged: ("program_changed", 1),
    terminal.TerminalRegistered: ("terminal_registered", 1),
    terminal.TerminalKeyRotated: ("terminal_key_rotated", 1),
    terminal.TerminalRevoked: ("terminal_revoked", 1),
    terminal.TerminalPinFailed: ("terminal_pin_failed", 1),
    terminal.TerminalPinAccepted: ("terminal_pin_accepted", 1),
    terminal.TerminalUnlocked: ("terminal_unlocked", 1),
    staff_pin.StaffPinCreated: ("staff_pin_created", 1),
    staff_pin.StaffPinChanged: ("staff_pin_changed", 1),
    staff_pin.StaffPinDeactivated: ("staff_pin_deactivated", 1),
    staff_pin.StaffPinFailed: ("staff_pin_failed", 1),
    staff_pin.StaffPinAccepted: ("staff_pin_accepted", 1),
    staff_pin.StaffPinUnlocked: ("staff_pin_unlocked", 1),
    account.AccountAdded: ("account_added", 1),
    account.PasswordChanged: ("password_changed", 1),
    customer.CustomerRegistered: ("customer_registered", 1),
    card.CardEnrolled: ("card_enrolled", 1),
    card.WelcomeBonusGranted: ("welcome_bonus_granted", 1),
    card.StampAdded: ("stamp_added", 1),
    card.StampsRedeemed: ("stamps_redeemed", 1),
    card.PointsEarned: ("points_earned", 2),
    card.PointsRedeemed: ("points_redeemed", 2),
    card.PointsExpired: ("points_expired", 1),
    card.TransactionReversed: ("transaction_reversed", 1),
    card.BalanceAdjusted: ("balance_adjusted", 1),
    card.BalanceImported: ("balance_imported", 1),
    card.CardMerged: ("card_merged", 1),
    card.CardAbsorbed: ("card_absorbed", 1),
    card.CardSuspended: ("card_suspended", 1),
    card.CardReactivated: ("card_reactivated", 1),
    card.CardClosed: ("card_closed", 1),
    refusals.CommandRefused: ("command_refused", 1),
}

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


def unchanged(data: dict[str, Any]) -> dict[str, Any]:
    """For a version that added what may be absent: an earning that joined no lot, a part of a lot without its dates."""
    return data


def with_reversals_for_all_staff(data: dict[str, Any]) -> dict[str, Any]:
    """Settings from before a manager could be asked for."""
    return {**data, "settings": {"reversals_need_manager": False, **data["settings"]}}


UPCASTERS: dict[tuple[str, int], Upcaster] = {
    ("merchant_created", 1): with_reversals_for_all_staff,
    ("settings_changed", 1): with_reversals_for_all_staff,
    ("points_earned", 1): unchanged,
    ("points_redeemed", 1): unchanged,
}
"""From (name, old version) to the step that lifts its data by one version."""

TOPICS = {event_type: f"{name}.{version}" for event_type, (name, version) in STORED.items()}
CURRENT = {name: (event_type, version) for event_type, (name, version) in STORED.items()}


def topics_of(event_type: type[msgspec.Struct]) -> tuple[str, ...]:
    """The topics of an event in all the versions that it was ever stored in."""
    name, newest = STORED[event_type]
    return tuple(f"{name}.{version}" for version in range(1, newest + 1))


class UnknownEvent(Exception):
    """The log holds an event that this release has no name for: a newer release wrote it."""


def event_type_of(name: str) -> tuple[type[msgspec.Struct], int]:
    """The class and newest version that a stored name stands for."""
    try:
        return CURRENT[name]
    except KeyError:
        raise UnknownEvent(name) from None


def upcast(name: str, version: int, data: dict[str, Any]) -> dict[str, Any]:
    """Lifts stored data, one version at a time, to the newest shape of its event."""
    newest = event_type_of(name)[1]
    while version < newest:
        data = UPCASTERS[name, version](data)
        version += 1
    return data
