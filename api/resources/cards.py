"""Cards: enrol, find, list, and what happened to them."""

from typing import Annotated
from uuid import UUID

from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import Body, FromPath, HeaderParameter, QueryParameter

from api.auth import STORE_SIDE
from api.commands import answered, cursor_from, cursor_of, positioned, send
from api.documented import answers
from api.parts import Parts
from api.resources.till import card_after, which_card
from ledger.actor import Caller
from ledger.commands import EnrolCard
from ledger.errors import Rejected
from ledger.streams import program_stream
from projections import cards, transactions
from schemas.cards import Card, CardPage, EnrolRequest, LookupRequest, TransactionPage

ROLES = {"roles": STORE_SIDE}
BEGINNING_OF_NEWEST = 2**62

Position = Annotated[
    str | None, HeaderParameter(name="Loyalty-Position", description="Position that the answer must reflect at least.")
]
Cursor = Annotated[str | None, QueryParameter(description="`next_cursor` of the page before.")]
Limit = Annotated[int, QueryParameter(ge=1, le=200, description="How many at the most.")]


@post(
    "/cards/enroll",
    status_code=201,
    opt=ROLES | {"decides": True},
    responses=answers(Card) | answers(Card, created=True),
    summary="Enrol a customer",
)
async def enroll_customer(
    data: Annotated[EnrolRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Gives a customer a card (201), or answers the one they have (200)."""
    command = EnrolCard(
        customer_id=data.customer_id, name=data.name, email=data.email, phone=data.phone, locale=data.locale
    )
    return await send(
        parts,
        caller,
        command,
        card_after,
        key=key,
        location="/api/v1/store/loyalty/cards/{id}",
    )


@post("/cards/lookup", status_code=200, opt=ROLES, responses=answers(Card), summary="Find a card")
async def look_up_card(
    data: Annotated[LookupRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The card with that QR token, number or id."""
    position = await positioned(parts, loyalty_position)
    stream = await parts.ledger.find_card(caller, which_card(data))
    program = program_stream(caller.merchant_id)
    card = await cards.find_merged(parts.ledger.log, caller.merchant_id, program, stream, parts.clock.now())
    if card is None:
        raise Rejected("card_not_found")
    return answered(card, position)


@get("/cards/{card_id:uuid}", opt=ROLES, responses=answers(Card), summary="A card")
async def get_card(
    card_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The card as it stands now."""
    position = await positioned(parts, loyalty_position)
    return answered(await found(parts, caller, card_id), position)


@get("/cards", opt=ROLES, responses=answers(CardPage), summary="Cards, newest first")
async def list_cards(
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The merchant's cards, page by page."""
    position = await positioned(parts, loyalty_position)
    before = cursor_from(cursor, BEGINNING_OF_NEWEST)
    program = program_stream(caller.merchant_id)
    items, following = await cards.page(parts.ledger.log, caller.merchant_id, program, before, limit, parts.clock.now())
    return answered(CardPage(items, cursor_of(following)), position)


@get(
    "/cards/{card_id:uuid}/transactions",
    opt=ROLES,
    responses=answers(TransactionPage),
    summary="A card's transactions, newest first",
)
async def list_transactions(
    card_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """What happened to a card, page by page."""
    position = await positioned(parts, loyalty_position)
    await found(parts, caller, card_id)
    before = cursor_from(cursor, BEGINNING_OF_NEWEST)
    items, following = await transactions.page(parts.ledger.log, caller.merchant_id, card_id, before, limit)
    return answered(TransactionPage(items, cursor_of(following)), position)


async def found(parts: Parts, caller: Caller, stream: UUID) -> Card:
    """The card, or `card_not_found` for none and for another merchant's."""
    program = program_stream(caller.merchant_id)
    card = await cards.find(parts.ledger.log, caller.merchant_id, program, stream, parts.clock.now())
    if card is None:
        raise Rejected("card_not_found")
    return card


HANDLERS = [enroll_customer, look_up_card, get_card, list_cards, list_transactions]
