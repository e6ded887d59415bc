"""Signing in, the customer's own card, health, and the pages that explain problems."""

import html
from typing import Annotated
from uuid import UUID

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import Body, FromPath, FromQuery

from api.auth import Connection, bearer
from api.commands import answered, positioned
from api.documented import answer, answers
from api.parts import Parts
from api.problems import KINDS, MEDIA_TYPE
from api.resources.cards import Position
from api.tokens import Identity
from ledger.actor import Role
from ledger.errors import Rejected, Unavailable
from ledger.store.names import ACCOUNT
from ledger.streams import account_stream, program_stream
from ledger.view import holder_of
from projections import cards
from schemas.access import Health, Problem, Token, TokenRequest
from schemas.cards import Card


@post("/api/v1/auth/token", status_code=200, responses=answers(Token), summary="Sign in", tags=["access"])
async def sign_in(data: Annotated[TokenRequest, Body()], parts: NamedDependency[Parts]) -> Token:
    """A token for an account's e-mail address and password."""
    secrecy = parts.ledger.secrecy
    stream = account_stream(secrecy, data.email)
    account = await parts.ledger.log.load(ACCOUNT, stream, fresh=True)
    known = account.state.password_hash if account is not None else None
    good = await secrecy.matches(secrecy.password_fingerprint(data.password), known)
    if account is None or not good:
        raise Rejected("wrong_password")
    identity = Identity(role=account.state.role, merchant_id=account.merchant_id, account_id=stream)
    return Token(
        access_token=parts.tokens.issue(identity, parts.clock.now()),
        expires_in=int(parts.tokens.good_for.total_seconds()),
    )


@get(
    "/api/v1/storefront/loyalty/card",
    opt={"roles": (Role.CUSTOMER,)},
    security=[{"bearer": []}, {"card_link": []}],
    responses=answers(Card),
    summary="The customer's own card",
    tags=["storefront"],
)
async def get_own_card(
    request: Connection,
    parts: NamedDependency[Parts],
    link: FromQuery[str | None] = None,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The card of the customer whose token or card link this is."""
    audience = "api" if link is None else "card_link"
    identity = parts.tokens.read(link or bearer(request), audience, parts.clock.now())
    if identity.role is not Role.CUSTOMER or identity.customer_id is None:
        raise Rejected("not_allowed")
    position = await positioned(parts, loyalty_position)
    merchant = identity.merchant_id
    name = parts.ledger.secrecy.blind("customer", merchant, identity.customer_id)
    value = await parts.ledger.log.claim(merchant, "customer", name)
    stream = holder_of(value).stream if value is not None else UUID(int=0)
    card = await cards.find_merged(parts.ledger.log, merchant, program_stream(merchant), stream, parts.clock.now())
    if card is None:
        raise Rejected("card_not_found")
    return answered(card, position)


@get("/health/live", responses=answers(Health), summary="Alive", tags=["operation"])
async def get_liveness() -> Health:
    """Whether this process answers."""
    return Health("ok")


@get(
    "/health/ready",
    responses={200: answer(Health), 503: answer(Health, "Not ready")},
    summary="Ready",
    tags=["operation"],
)
async def get_readiness(parts: NamedDependency[Parts]) -> Response[Health]:
    """Whether this process can do its work: whether the log answers."""
    try:
        await parts.ledger.log.head()
    except Unavailable:
        return Response(Health("unavailable"), status_code=503, headers={"Retry-After": "1"})
    return Response(Health("ok"))


@get(
    "/problems/{code:str}",
    media_type="text/html",
    responses={200: answer(str, "The page", "text/html"), 404: answer(Problem, "No such code", MEDIA_TYPE)},
    summary="What a problem means",
    tags=["operation"],
)
async def explain_problem(code: FromPath[str]) -> Response[str]:
    """The page that a problem's `type` leads to."""
    kind = KINDS.get(code)
    if kind is None:
        raise Rejected("not_found")
    title, meaning = html.escape(kind.title), html.escape(kind.meaning)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<h1>{title}</h1><p>{meaning}</p><p>Code <code>{code}</code>, status {kind.status}.</p></html>"
    )
    return Response(page, media_type="text/html")


HANDLERS = [sign_in, get_own_card, get_liveness, get_readiness, explain_problem]
