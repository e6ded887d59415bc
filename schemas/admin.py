"""What who runs the platform reads of it."""

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, Struct

from schemas.kinds import Instant
from schemas.programs import Program, ProgramType

Status = Annotated[
    Literal["current", "building", "of_another_release"],
    Meta(
        description="`current`: its tables are this release's; `building`: they are not there yet; "
        "`of_another_release`: a newer release put its own in their place."
    ),
]


class Rebuilding(Struct, frozen=True):
    """Tables that are built from the log beside those that are read, how far they are and how far the log is."""

    position: int
    of: int


class Projection(Struct, frozen=True, kw_only=True):
    """A read model: how far its tables tell the log, and whose they are."""

    name: str
    position: int
    lag_events: Annotated[int, Meta(description="How many events of the log it has not applied yet")]
    lag_seconds: Annotated[
        float, Meta(ge=0, description="How long ago the oldest event that it has not applied yet was recorded; 0: none")
    ]
    status: Status
    rebuilding: Rebuilding | None


class Projections(Struct, frozen=True):
    """All read models, and how far the log is that they tell."""

    head: int
    items: list[Projection]


class Merchant(Struct, frozen=True, kw_only=True):
    """A tenant, with the codes of its stores and its program's id, null before it has one."""

    id: UUID
    name: str
    locale: str
    store_codes: list[str]
    program_id: UUID | None


class MerchantPage(Struct, frozen=True):
    """Some merchants, oldest first; `next_cursor` gives the ones after them, null at the end."""

    items: list[Merchant]
    next_cursor: str | None


class MerchantSettings(Struct, frozen=True, kw_only=True):
    """What admins control of a merchant."""

    staff_pin_policy: Literal["required", "optional", "disabled"]
    pin_max_failed_attempts: int
    pin_lockout_minutes: int
    allow_self_enrollment: bool
    allow_reversals: bool
    allow_cross_store_redemption: bool
    require_order_reference: bool
    log_ip_addresses: bool
    reversals_need_manager: bool


class Store(Struct, frozen=True, kw_only=True):
    """A shop; `code` is unique on the platform, `time_zone` an IANA name."""

    id: UUID
    merchant_id: UUID
    code: str
    name: str
    time_zone: str
    currency: str
    locale: str


class StorePage(Struct, frozen=True):
    """Some stores, oldest first; `next_cursor` gives the ones after them, null at the end."""

    items: list[Store]
    next_cursor: str | None


class Terminal(Struct, frozen=True, kw_only=True):
    """A till, without its keys: how many of them are live, and the wrong PINs typed at it without a name."""

    id: UUID
    store_id: UUID
    name: str
    live_keys: int
    revoked: bool
    failed_attempts: int
    locked_until: Instant | None


class TerminalPage(Struct, frozen=True):
    """Some tills, oldest first; `next_cursor` gives the ones after them, null at the end."""

    items: list[Terminal]
    next_cursor: str | None


class ProgramFigures(Struct, frozen=True, kw_only=True):
    """What a program came to: `active_cards` of the last 30 days, everything else since it began."""

    cards: Annotated[int, Meta(description="Open cards")]
    active_cards: Annotated[int, Meta(description="Distinct cards used in the last 30 days")]
    enrolments: int
    purchases: int
    purchase_amount_cents: int
    redemptions: int
    stamps_added: int
    stamps_redeemed: int
    stamps_outstanding: int
    points_earned: int
    points_redeemed: int
    points_expired: int
    points_outstanding: int


class ListedProgram(Struct, frozen=True, kw_only=True):
    """A program among others."""

    id: UUID
    type: ProgramType
    active: bool
    card_name: str
    merchant_id: UUID
    merchant_name: str
    store_codes: list[str]
    figures: ProgramFigures


class ProgramPage(Struct, frozen=True):
    """Some programs, oldest first; `next_cursor` gives the ones after them, null at the end."""

    items: list[ListedProgram]
    next_cursor: str | None


class MerchantProgram(Program, frozen=True, kw_only=True):
    """A program with whose it is."""

    merchant_id: UUID
    merchant_name: str
    store_codes: list[str]
