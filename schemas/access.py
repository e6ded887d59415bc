"""Tokens and health."""

from typing import Literal

from msgspec import Struct

from schemas.kinds import Email, Text


class TokenRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An account's e-mail address and password."""

    email: Email
    password: Text


class Token(Struct, frozen=True, kw_only=True):
    """A bearer token, good for `expires_in` seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 (RFC 6750 calls it so)
    expires_in: int


class Health(Struct, frozen=True):
    """Whether the service can do its work."""

    status: Literal["ok", "unavailable"]


class Problem(Struct, frozen=True, kw_only=True):
    """RFC 9457: what went wrong. `code` is stable; further members are facts that a program can act on."""

    type: str
    title: str
    status: int
    detail: str
    code: str
