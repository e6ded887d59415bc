"""The person behind a card. All that is known of them stands under a key of their own."""

from typing import assert_never
from uuid import UUID

import msgspec

from ledger.actor import Occurrence

# ---- commands -------------------------------------------------------------------------------------------------


class Person(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Personal data: the merchant's own reference for the customer, and what they chose to tell."""

    customer_id: str
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    locale: str | None = None


class RegisterCustomer(msgspec.Struct, frozen=True):
    """Takes a person into the merchant's customers."""

    person: Person


Command = RegisterCustomer

# ---- events ---------------------------------------------------------------------------------------------------


class CustomerRegistered(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person became a customer. `private` is sealed as stored, and None once the person was erased."""

    private: Person | None = None


Event = CustomerRegistered

# ---- state ----------------------------------------------------------------------------------------------------


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """A customer as far as the ledger may know them."""

    id: UUID
    merchant_id: UUID
    person: Person | None


def evolve(_customer: Customer | None, event: Event, at: Occurrence) -> Customer:
    """The customer after one more event."""
    match event:
        case CustomerRegistered(private):
            return Customer(id=at.stream, merchant_id=at.merchant_id, person=private)
        case _:
            assert_never(event)


# ---- decide ---------------------------------------------------------------------------------------------------


def decide(customer: Customer | None, command: Command) -> list[Event]:
    """Registers a person once."""
    return [CustomerRegistered(command.person)] if customer is None else []
