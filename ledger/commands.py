"""What can be asked of the ledger. Each is a rule's command with the address it is sent to and the PIN beside it."""

from datetime import datetime
from uuid import UUID

import msgspec

from ledger import card, merchant, program, staff_pin, terminal
from ledger.actor import Role


class WhichCard(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """A card by exactly one of its names."""

    card_id: UUID | None = None
    qr_code: str | None = None
    card_number: str | None = None


class StaffEntry(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """What was typed at the PIN pad, and for whom if the till knows."""

    staff_id: UUID | None = None
    staff_pin: str | None = None


class EnrolCard(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """Give a customer a card, or find the one they have; without a reference one is made up."""

    customer_id: str | None = None
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    locale: str | None = None


CardCommand = (
    card.AddStamp
    | card.RedeemStamps
    | card.EarnPoints
    | card.RedeemPoints
    | card.Reverse
    | card.Adjust
    | card.Suspend
    | card.Reactivate
    | card.Close
    | card.ExpirePoints
)


class OnCard(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """Do something with a card."""

    which: WhichCard
    staff: StaffEntry = StaffEntry()
    command: CardCommand


class MergeCards(msgspec.Struct, gc=False, frozen=True):
    """Give all that a card has to another card of the merchant; its names find that one from then on."""

    which: WhichCard
    into: UUID


class ImportCard(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """Bring a customer along from another system, with a card or for the card they have, and what was on theirs.

    `source` names that system, or the file; number and QR token are the old card's where it shall be kept. The balance
    is of `last_activity_at`, of now without it.
    """

    source: str
    customer_id: str
    card_number: str | None = None
    qr_code: str | None = None
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    locale: str | None = None
    points: int = 0
    stamps: int = 0
    points_expire_at: datetime | None = None
    enrolled_at: datetime | None = None
    last_activity_at: datetime | None = None


class OnProgram(msgspec.Struct, gc=False, frozen=True):
    """Create or change the merchant's program."""

    command: program.CreateProgram | program.ChangeProgram


class CreatePin(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """Give a staff member a PIN of 4 to 8 digits."""

    name: str
    pin: str
    role: staff_pin.StaffRole
    store_id: UUID | None = None


class ChangePin(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """Change what is given of a staff member's PIN."""

    staff_id: UUID
    name: str | None = None
    pin: str | None = None
    role: staff_pin.StaffRole | None = None
    changes_store: bool = False
    store_id: UUID | None = None


class OnPin(msgspec.Struct, gc=False, frozen=True):
    """Deactivate or unlock a PIN."""

    staff_id: UUID
    command: staff_pin.DeactivateStaffPin | staff_pin.UnlockStaffPin


class VerifyPin(msgspec.Struct, gc=False, frozen=True):
    """Find out whose PIN was typed; a wrong one counts as anywhere else."""

    staff: StaffEntry


class OpenMerchant(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Open a tenant."""

    name: str
    locale: str
    settings: merchant.MerchantSettings


class OnMerchant(msgspec.Struct, gc=False, frozen=True):
    """Change a merchant's settings."""

    command: merchant.ChangeSettings


class OpenStore(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Open a store under a code that nobody on the platform has."""

    code: str
    name: str
    time_zone: str
    currency: str
    locale: str


class OpenTerminal(msgspec.Struct, gc=False, frozen=True):
    """Take a till into service; its key is in the result, this once."""

    store_id: UUID
    name: str


class RotateKey(msgspec.Struct, gc=False, frozen=True):
    """Give a till another key; it is in the result, this once."""

    terminal_id: UUID


class OnTerminal(msgspec.Struct, gc=False, frozen=True):
    """Revoke or unlock a till."""

    terminal_id: UUID
    command: terminal.RevokeTerminal | terminal.UnlockTerminal


class OpenAccount(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Open an account under an e-mail address that nobody on the platform has."""

    email: str
    password: str
    role: Role


Command = (
    EnrolCard
    | OnCard
    | MergeCards
    | ImportCard
    | OnProgram
    | CreatePin
    | ChangePin
    | OnPin
    | VerifyPin
    | OpenMerchant
    | OnMerchant
    | OpenStore
    | OpenTerminal
    | RotateKey
    | OnTerminal
    | OpenAccount
)

NAMES: dict[type, str] = {
    EnrolCard: "enrol_card",
    OnCard: "on_card",
    MergeCards: "merge_cards",
    ImportCard: "import_card",
    OnProgram: "on_program",
    CreatePin: "create_pin",
    ChangePin: "change_pin",
    OnPin: "on_pin",
    VerifyPin: "verify_pin",
    OpenMerchant: "open_merchant",
    OnMerchant: "on_merchant",
    OpenStore: "open_store",
    OpenTerminal: "open_terminal",
    RotateKey: "rotate_key",
    OnTerminal: "on_terminal",
    OpenAccount: "open_account",
    card.AddStamp: "add_stamp",
    card.RedeemStamps: "redeem_stamps",
    card.EarnPoints: "earn_points",
    card.RedeemPoints: "redeem_points",
    card.Reverse: "reverse",
    card.Adjust: "adjust",
    card.Suspend: "suspend",
    card.Reactivate: "reactivate",
    card.Close: "close",
    card.ExpirePoints: "expire_points",
    program.CreateProgram: "create_program",
    program.ChangeProgram: "change_program",
    staff_pin.DeactivateStaffPin: "deactivate",
    staff_pin.UnlockStaffPin: "unlock",
    merchant.ChangeSettings: "change_settings",
    terminal.RevokeTerminal: "revoke",
    terminal.UnlockTerminal: "unlock",
}
"""Names that stand in digests kept for good, written down by hand: renaming a class must not spoil a late retry."""

_encoder = msgspec.json.Encoder(order="deterministic")


def request_text(command: Command) -> str:
    """A command in one line, the same for the same request and for good; it is kept as a keyed digest only.

    The PIN of whoever stands at the till is no part of the request: a retry may come from a colleague. New fields need
    a default and `omit_defaults`, or old digests would no longer match.
    """
    inner = ""
    match command:
        case OnCard():
            command = msgspec.structs.replace(command, staff=StaffEntry(staff_id=command.staff.staff_id))
            inner = NAMES[type(command.command)]
        case VerifyPin(staff):
            command = VerifyPin(StaffEntry(staff_id=staff.staff_id))
        case OnProgram() | OnPin() | OnMerchant() | OnTerminal():
            inner = NAMES[type(command.command)]
        case _:
            pass
    return f"{NAMES[type(command)]} {inner} {_encoder.encode(command).decode()}"
