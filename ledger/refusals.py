"""What was asked of a card and refused: a record for whoever audits the shop. It changes nothing on the card."""

from typing import assert_never
from uuid import UUID

import msgspec

from ledger.actor import Occurrence
from ledger.errors import Fact

# ---- commands -------------------------------------------------------------------------------------------------


class RecordRefusal(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Keeps that a command about a card was refused; `command` is its name in `ledger.commands`."""

    card: UUID
    customer: UUID
    command: str
    code: str
    facts: dict[str, Fact]
    program_version: int
    named: UUID | None = None


Command = RecordRefusal

# ---- events ---------------------------------------------------------------------------------------------------


class CommandRefused(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """A command about a card was refused, with the code and the facts that its sender was told.

    `program_version` is that of the program which the refusal was decided under; `named` the staff member whose PIN it
    was said to be, whether the right one was given or not. Nothing here is personal or secret: a PIN stands in no fact.
    """

    card: UUID
    customer: UUID
    command: str
    code: str
    facts: dict[str, Fact]
    program_version: int
    named: UUID | None = None


Event = CommandRefused

# ---- state ----------------------------------------------------------------------------------------------------


class Refusals(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """How often commands about one card were refused, and whose card it is."""

    id: UUID
    merchant_id: UUID
    card: UUID
    customer: UUID
    count: int


def evolve(refusals: Refusals | None, event: Event, at: Occurrence) -> Refusals:
    """The record with one more refusal."""
    match event:
        case CommandRefused(card=card, customer=customer):
            return Refusals(
                id=at.stream,
                merchant_id=at.merchant_id,
                card=card,
                customer=customer,
                count=(refusals.count if refusals else 0) + 1,
            )
        case _:
            assert_never(event)


# ---- decide ---------------------------------------------------------------------------------------------------


def decide(command: Command) -> list[Event]:
    """Every refusal is kept, whatever was refused before."""
    return [
        CommandRefused(
            card=command.card,
            customer=command.customer,
            command=command.command,
            code=command.code,
            facts=command.facts,
            program_version=command.program_version,
            named=command.named,
        )
    ]
