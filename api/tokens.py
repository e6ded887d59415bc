"""Access tokens of this service: JWT (RFC 7519), HMAC-SHA256, every claim required that could be left out."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import msgspec

from ledger.actor import Role
from ledger.errors import Rejected

ISSUER = "loyalty-ledger"
ALGORITHM = "HS256"
CARD_LINK_DAYS = 3650


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a token is about. A customer's has the merchant's own reference, the others an account."""

    role: Role
    merchant_id: UUID
    account_id: UUID | None = None
    customer_id: str | None = None


class Tokens:
    """Issues and reads tokens. The secret is at least 32 bytes (RFC 7518, section 3.2)."""

    def __init__(self, secret: str, good_for_minutes: int) -> None:
        self._secret = secret
        self.good_for = timedelta(minutes=good_for_minutes)

    def issue(self, identity: Identity, now: datetime) -> str:
        """A token for an account or a customer."""
        return self._encode(identity, now, "api", self.good_for)

    def issue_card_link(self, identity: Identity, now: datetime) -> str:
        """What stands in a customer's card link: it shows the card and does nothing else."""
        return self._encode(identity, now, "card_link", timedelta(days=CARD_LINK_DAYS))

    def read(self, token: str, audience: str, now: datetime) -> Identity:
        """The identity in a token; raises `invalid_credentials` for any that is not good now."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=audience,
                issuer=ISSUER,
                options={"require": ["exp", "iat", "aud", "iss", "sub"], "verify_exp": False, "verify_iat": False},
            )
            identity = msgspec.convert(claims["identity"], Identity)
            expires = int(claims["exp"])
        except (jwt.InvalidTokenError, msgspec.ValidationError, KeyError, ValueError, TypeError, OverflowError):
            raise Rejected("invalid_credentials") from None
        if now.timestamp() >= expires:
            raise Rejected("invalid_credentials")
        return identity

    def _encode(self, identity: Identity, now: datetime, audience: str, good_for: timedelta) -> str:
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "sub": str(identity.account_id or identity.customer_id),
            "iat": int(now.timestamp()),
            "exp": int((now + good_for).timestamp()),
            "identity": msgspec.to_builtins(identity),
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM)
