"""What customers see: the program of a shop, their own card, and what happened to it."""

from typing import Any
from uuid import UUID

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from api.auth import Connection, bearer
from api.commands import answered, positioned
from api.documented import answers
from api.exports import Asked, Format
from api.parts import Parts
from api.resources.cards import Cursor, KindFilter, Limit, Position, history
from api.tokens import Identity
from ledger import card as rules_of_cards
from ledger.actor import PLATFORM, Role
from ledger.errors import Rejected
from ledger.store.names import MERCHANT, PROGRAM
from ledger.streams import program_stream
from ledger.view import holder_of
from projections import cards, programs, transactions
from schemas.cards import Card, TransactionPage
from schemas.programs import PublicProgram

OWN: dict[str, Any] = {
    "opt": {"roles": (Role.CUSTOMER,)},
    "security": [{"bearer": []}, {"card_link": []}],
    "tags": ["storefront"],
}


@get(
    "/api/v1/loyalty/programs/{store_code:str}",
    opt={"refuses": (400, 404, 503)},
    responses=answers(PublicProgram),
    summary="The program of a store, for everybody",
    tags=["storefront"],
)
async def get_public_program(
    store_code: FromPath[str], parts: NamedDependency[Parts], loyalty_position: Position = None
) -> Response[bytes]:
    """What a card of this store's program is good for, as anybody may know it."""
    position = await positioned(parts, loyalty_position)
    log = parts.ledger.log
    value = await log.claim(PLATFORM, "store_code", store_code) if "\0" not in store_code else None
    merchant = await log.load(MERCHANT, holder_of(value).stream, fresh=True) if value is not None else None
    stores = merchant.state.stores.values() if merchant is not None else ()
    store = next((store for store in stores if store.code == store_code), None)
    if merchant is None or store is None:
        raise Rejected("store_not_found")
    program = await log.load(PROGRAM, program_stream(merchant.stream), fresh=True)
    if program is None:
        raise Rejected("program_not_found")
    return answered(programs.for_everybody(program.state, merchant.state, store), position)


@get("/api/v1/storefront/loyalty/card", **OWN, responses=answers(Card), summary="The customer's own card")
async def get_own_card(
    request: Connection,
    parts: NamedDependency[Parts],
    link: FromQuery[str | None] = None,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The card of the customer whose token or card link this is."""
    customer = customer_of(request, parts, link)
    position = await positioned(parts, loyalty_position)
    card = await own_card(parts, customer)
    program = await cards.current_program(parts.ledger.log, card.merchant_id)
    return answered(cards.shown(card, program, parts.clock.now()), position)


@get(
    "/api/v1/storefront/loyalty/transactions",
    **OWN,
    responses=answers(TransactionPage),
    summary="What happened to the customer's own card, newest first",
)
async def list_own_transactions(
    request: Connection,
    parts: NamedDependency[Parts],
    link: FromQuery[str | None] = None,
    kind: KindFilter = None,
    file_format: Format = "json",
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[Any]:
    """The transactions of the card and of those merged into it; who served them, and at which till, is null."""
    customer = customer_of(request, parts, link)
    position = await positioned(parts, loyalty_position, transactions.MODEL)
    card = await own_card(parts, customer)
    return await history(parts, card, kind, Asked(file_format, cursor, limit, position), for_customer=True)


def customer_of(request: Connection, parts: Parts, link: str | None) -> Identity:
    """Whose token or card link a request came with."""
    audience = "api" if link is None else "card_link"
    identity = parts.tokens.read(link or bearer(request), audience, parts.clock.now())
    if identity.role is not Role.CUSTOMER or identity.customer_id is None:
        raise Rejected("not_allowed")
    return identity


async def own_card(parts: Parts, customer: Identity) -> rules_of_cards.Card:
    """The customer's card as of now, or the one that it was merged into."""
    log, merchant = parts.ledger.log, customer.merchant_id
    assert customer.customer_id is not None, "whoever is no customer was refused"
    name = parts.ledger.secrecy.blind("customer", merchant, customer.customer_id)
    value = await log.claim(merchant, "customer", name)
    stream = holder_of(value).stream if value is not None else UUID(int=0)
    card = await cards.current_merged(log, merchant, stream)
    if card is None:
        raise Rejected("card_not_found")
    return card


HANDLERS = [get_public_program, get_own_card, list_own_transactions]
