"""Staff PINs. A PIN goes in and never comes out."""

from typing import Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from schemas.kinds import Instant, Name, Pin

StaffRole = Literal["staff", "manager"]


class PinRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Give a staff member a PIN; without `store_id` it counts in every store."""

    name: Name
    pin: Pin
    role: StaffRole = "staff"
    store_id: UUID | None = None


class PinChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to change; what is absent stays as it is."""

    name: Name | UnsetType = UNSET
    pin: Pin | UnsetType = UNSET
    role: StaffRole | UnsetType = UNSET
    store_id: UUID | UnsetType | None = UNSET


class VerifyRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose PIN is this; wrong ones count."""

    staff_pin: Pin
    staff_id: UUID | None = None


class StaffPin(Struct, frozen=True, kw_only=True):
    """A staff member's PIN, without the PIN."""

    id: UUID
    name: str
    role: StaffRole
    store_id: UUID | None
    active: bool
    failed_attempts: int
    locked_until: Instant | None


class StaffPinPage(Struct, frozen=True):
    """Some PINs, oldest first; `next_cursor` gives the ones after them, null at the end."""

    items: list[StaffPin]
    next_cursor: str | None


class PinUse(Struct, frozen=True, kw_only=True):
    """How a PIN was used: transactions made with it, wrong ones typed for it, and how often those locked it."""

    id: UUID
    name: str
    transactions: int
    last_used_at: Instant | None
    failures: int
    lockouts: int
    last_failed_at: Instant | None


class StaffUse(PinUse, frozen=True, kw_only=True):
    """How a staff member's PIN was used."""

    active: bool


class PinUses(Struct, frozen=True):
    """How all PINs were used; at a till count the transactions made with a PIN there, and PINs that were nobody's."""

    staff: list[StaffUse]
    terminals: list[PinUse]
