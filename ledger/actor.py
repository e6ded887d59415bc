"""Who does something, where, and when: what every event tells of its cause."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

PLATFORM = UUID(int=0)
"""Stands for the merchant in what belongs to no merchant: admins' accounts, the directory of store codes."""

OPERATOR = UUID(int=1)
"""Stands for whoever runs commands on the machine itself."""


class Role(StrEnum):
    """The kinds of caller; which of them may do what is decided where they enter."""

    TERMINAL = "terminal"
    MANAGER = "manager"
    ADMIN = "admin"
    AUDITOR = "auditor"
    CUSTOMER = "customer"
    OPERATOR = "operator"


class Caller(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Whoever sent a command, as the door made them out.

    `id` is the stream of the terminal, account or customer; `store_id` is where the command takes effect.
    `key_digest` is of the terminal key that was shown, so that a key rotated away stops counting at once. The
    address and user agent are personal: they are kept only where the merchant's settings say so.
    """

    role: Role
    id: UUID
    merchant_id: UUID
    store_id: UUID | None = None
    key_digest: str | None = None
    ip_address: str | None = None
    user_agent: str | None = None


class Actor(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """The cause of an event as it is recorded with it."""

    role: Role
    id: UUID
    store_id: UUID | None = None
    staff_id: UUID | None = None


class Occurrence(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Where an event stands and what brought it about.

    `occurred_at` is the time at the till, `recorded_at` the time in the ledger; neither orders anything.
    """

    stream: UUID
    version: int
    merchant_id: UUID
    occurred_at: datetime
    recorded_at: datetime
    actor: Actor
