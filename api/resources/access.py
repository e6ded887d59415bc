"""Signing in, health, and the pages that explain problems."""

import html
from typing import Annotated

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import Body, FromPath

from api.documented import answer, answers
from api.parts import Parts
from api.problems import KINDS, MEDIA_TYPE
from api.tokens import Identity
from ledger.errors import Rejected, Unavailable
from ledger.store.names import ACCOUNT
from ledger.streams import account_stream
from schemas.access import Health, Problem, Token, TokenRequest


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


HANDLERS = [sign_in, get_liveness, get_readiness, explain_problem]
