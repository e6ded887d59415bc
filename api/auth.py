"""Who is calling: terminal keys and tokens in, a Caller out. Each route names the roles that it admits."""

import hmac
import re
from typing import Annotated
from uuid import UUID

from litestar.di import NamedDependency
from litestar.params import HeaderParameter

from api.limits import JsonRequest
from api.parts import Parts
from ledger.actor import Caller, Role
from ledger.errors import Rejected
from ledger.secrecy import key_digest
from ledger.store.names import ACCOUNT, MERCHANT, TERMINAL

TERMINAL_KEY = re.compile(r"lt_([0-9a-f]{32})_([0-9a-f]{48})")
STORE_SIDE = (Role.TERMINAL, Role.MANAGER)
MANAGERS = (Role.MANAGER,)
ADMINS = (Role.ADMIN,)
AUDITORS = (Role.AUDITOR, Role.ADMIN)
AUDITORS_AND_MANAGERS = (*AUDITORS, Role.MANAGER)

# A class and no generic alias: litestar looks at each request whether it is one, and an alias answers by an exception.
Connection = JsonRequest
StoreCode = Annotated[
    str | None,
    HeaderParameter(
        name="Loyalty-Store",
        description="Code of the store, with an account of a merchant that has several; terminals have one.",
    ),
]


async def provide_caller(request: Connection, parts: NamedDependency[Parts], loyalty_store: StoreCode = None) -> Caller:
    """The caller of a store-side route.

    Raises `invalid_credentials` without good credentials and `not_allowed` for a role that the route does not admit.
    """
    token = bearer(request)
    # Whatever ends in `ledger.handle` has its credential looked at again there, under the guard; nothing else has.
    fresh = not request.route_handler.opt.get("decides", False)
    match = TERMINAL_KEY.fullmatch(token)
    caller = (
        await terminal_caller(request, parts, UUID(match[1]), match[2], fresh=fresh)
        if match
        else await account_caller(request, parts, token, loyalty_store, fresh=fresh)
    )
    if caller.role not in request.route_handler.opt["roles"]:
        raise Rejected("not_allowed")
    return caller


def bearer(request: Connection) -> str:
    """What stands after `Bearer` (RFC 6750, section 2.1)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Rejected("invalid_credentials")
    return token.strip()


async def terminal_caller(request: Connection, parts: Parts, terminal_id: UUID, secret: str, *, fresh: bool) -> Caller:
    """The till with that key. Commands may use the cache here: the ledger checks the key again when it decides."""
    digest = key_digest(secret)
    log = parts.ledger.log
    loaded = await log.load(TERMINAL, terminal_id, fresh=fresh)
    if loaded is not None and not knows(loaded.state.key_digests, digest) and not fresh:
        loaded = await log.load(TERMINAL, terminal_id, fresh=True)
    if loaded is None or not knows(loaded.state.key_digests, digest):
        raise Rejected("invalid_credentials")
    return Caller(
        role=Role.TERMINAL,
        id=terminal_id,
        merchant_id=loaded.merchant_id,
        store_id=loaded.state.store_id,
        key_digest=digest,
        ip_address=request.client.host if request.client else None,
        user_agent=request.headers.get("user-agent", "")[:200] or None,
    )


def knows(digests: tuple[str, ...], digest: str) -> bool:
    """Whether one of the live keys is this one, in a time that does not tell which."""
    return sum(hmac.compare_digest(known, digest) for known in digests) > 0


async def account_caller(
    request: Connection, parts: Parts, token: str, store_code: str | None, *, fresh: bool
) -> Caller:
    """The account behind a token, in the store of that code."""
    identity = parts.tokens.read(token, "api", parts.clock.now())
    if identity.account_id is None:
        raise Rejected("not_allowed")
    account = await parts.ledger.log.load(ACCOUNT, identity.account_id, fresh=True)
    if account is None or (account.state.role, account.merchant_id) != (identity.role, identity.merchant_id):
        raise Rejected("invalid_credentials")
    return Caller(
        role=identity.role,
        id=identity.account_id,
        merchant_id=identity.merchant_id,
        store_id=await named_store(parts, identity.merchant_id, store_code, fresh=fresh),
        ip_address=request.client.host if request.client else None,
        user_agent=request.headers.get("user-agent", "")[:200] or None,
    )


async def named_store(parts: Parts, merchant_id: UUID, code: str | None, *, fresh: bool) -> UUID | None:
    """The store of the merchant with that code; None where none is named."""
    if code is None:
        return None
    for read_fresh in (fresh, True):
        merchant = await parts.ledger.log.load(MERCHANT, merchant_id, fresh=read_fresh)
        for store in merchant.state.stores.values() if merchant is not None else ():
            if store.code == code:
                return store.id
    raise Rejected("store_not_found")
