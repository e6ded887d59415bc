"""Cards: enrol, find, list, and what happened to them."""

from datetime import date, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import Body, FromPath, HeaderParameter, QueryParameter

from api.auth import MANAGERS, STORE_SIDE, named_store
from api.commands import answered, positioned, send
from api.days import FirstDay, LastDay, days_between
from api.documented import answers
from api.exports import Asked, Format, Place, listed
from api.parts import Parts
from api.resources.till import card_after, which_card
from ledger import card as rules_of_cards
from ledger.actor import Caller, Role
from ledger.commands import EnrolCard
from ledger.errors import Rejected
from ledger.store import END_OF_LOG
from projections import card_list, card_search, cards, transactions
from schemas.cards import (
    Card,
    CardPage,
    CardStatus,
    CardTransaction,
    CardTransactionPage,
    EnrolRequest,
    ListedCard,
    LookupRequest,
    Transaction,
    TransactionKind,
    TransactionPage,
)
from schemas.kinds import PRINTABLE

ROLES: dict[str, Any] = {"roles": STORE_SIDE}
TILL_DIGITS_MIN = 6
CHARACTERS_MIN = 2

Position = Annotated[
    str | None, HeaderParameter(name="Loyalty-Position", description="Position that the answer must reflect at least.")
]
Cursor = Annotated[str | None, QueryParameter(description="`next_cursor` of the page before.")]
Limit = Annotated[int, QueryParameter(ge=1, le=200, description="How many at the most.")]
Search = Annotated[
    str | None,
    QueryParameter(
        max_length=100,
        pattern=PRINTABLE,
        description="Beginnings of words of a name, of an e-mail address, the customer's reference or a card's number,"
        " or a telephone number or its end; at a till only numbers. Sorted by what was found.",
    ),
]
Status = Annotated[CardStatus | None, QueryParameter(description="Only cards of this status.")]
StoreFilter = Annotated[str | None, QueryParameter(description="Only of the store of this code.")]
Sort = Annotated[
    Literal["enrolled", "activity"], QueryParameter(description="Newest first, or those that were used last.")
]
KindFilter = Annotated[TransactionKind | None, QueryParameter(description="Only of this kind.")]
StaffFilter = Annotated[UUID | None, QueryParameter(description="Only with the PIN of this staff member.")]
OrderFilter = Annotated[
    str | None, QueryParameter(max_length=64, pattern=PRINTABLE, description="Only of this order reference.")
]


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
    card = await cards.find_merged(parts.ledger.log, caller.merchant_id, stream, parts.clock.now())
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
    q: Search = None,
    status: Status = None,
    store: StoreFilter = None,
    sort: Sort = "enrolled",
    file_format: Format = "json",
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[Any]:
    """The merchant's cards, page by page, or as a file in the order that they were enrolled in."""
    # In the order of use, a card that is used while a file is made would jump ahead of what is still to come.
    if sort != "enrolled" and (q is not None or file_format != "json"):
        raise Rejected("invalid_sort")
    text = searched(q, caller.role)
    position = await positioned(parts, loyalty_position, cards.MODEL, *([card_search.MODEL] if text else []))
    store_id = await store_of(parts, caller, store)
    wanted = card_list.Wanted(status, store_id, text, lately_used=sort == "activity")

    async def page(after: Place | None, most: int) -> tuple[list[ListedCard], Place | None]:
        log, now = parts.ledger.log, parts.clock.now()
        found, following = await card_list.page(parts.reader, log, caller.merchant_id, wanted, after, most, now)
        if caller.role is Role.TERMINAL:
            found = [msgspec.structs.replace(each, person=None) for each in found]
        return found, following

    return await listed(page, CardPage, "cards", Asked(file_format, cursor, limit, position), *last_place(wanted))


def last_place(wanted: card_list.Wanted) -> Place:
    """Where a list may go on at the most: an id, an instant in microseconds and a position, or a position."""
    if wanted.text is not None:
        return (2**128 - 1,)
    return (card_list.LAST_MICROSECOND, END_OF_LOG) if wanted.lately_used else (END_OF_LOG,)


def searched(text: str | None, role: Role) -> str | None:
    """What is looked for. At a till that is a card's number or a telephone's, not a name that somebody tries.

    Raises `invalid_search` for what would find everybody, or what a till may not look for.
    """
    if text is None:
        return None
    if role is Role.TERMINAL and len(card_search.digits_in(text)) < TILL_DIGITS_MIN:
        raise Rejected("invalid_search", digits_min=TILL_DIGITS_MIN)
    if max(map(len, card_search.looked_for(text)), default=0) < CHARACTERS_MIN:
        raise Rejected("invalid_search", characters_min=CHARACTERS_MIN)
    return text


async def store_of(parts: Parts, caller: Caller, code: str | None) -> UUID | None:
    """The merchant's store of that code."""
    return await named_store(parts, caller.merchant_id, code, fresh=False)


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
    kind: KindFilter = None,
    file_format: Format = "json",
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[Any]:
    """What happened to a card and to those merged into it, page by page, or as a file."""
    position = await positioned(parts, loyalty_position, transactions.MODEL)
    card = await cards.current(parts.ledger.log, caller.merchant_id, card_id)
    if card is None:
        raise Rejected("card_not_found")
    return await history(parts, card, kind, Asked(file_format, cursor, limit, position))


async def history(
    parts: Parts,
    card: rules_of_cards.Card,
    kind: TransactionKind | None,
    asked: Asked,
    *,
    for_customer: bool = False,
) -> Response[Any]:
    """The transactions of a card, whoever reads them; its customer reads of no staff member and no till."""

    async def page(after: Place | None, most: int) -> tuple[list[Transaction], Place | None]:
        whose = [card.id, *card.absorbed]
        before = after[0] if after else None
        log, merchant = parts.ledger.log, card.merchant_id
        items, following = await transactions.of_card(parts.reader, log, merchant, whose, before, most, kind)
        if for_customer:
            nobody: dict[str, Any] = {"staff_id": None, "staff_name": None, "terminal_id": None}
            items = [msgspec.structs.replace(each, **nobody) for each in items]
        return items, (following,) if following is not None else None

    return await listed(page, TransactionPage, "transactions", asked, END_OF_LOG)


@get(
    "/transactions",
    opt={"roles": MANAGERS},
    responses=answers(CardTransactionPage),
    summary="Transactions of all cards, latest day first",
)
async def list_all_transactions(
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    first_day: FirstDay = None,
    last_day: LastDay = None,
    kind: KindFilter = None,
    store: StoreFilter = None,
    staff_id: StaffFilter = None,
    order_reference: OrderFilter = None,
    file_format: Format = "json",
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[Any]:
    """What happened to the merchant's cards, page by page, or as a file; days are the stores' own."""
    position = await positioned(parts, loyalty_position, transactions.MODEL, cards.MODEL)
    store_id = await store_of(parts, caller, store)
    days = days_between(first_day, last_day)
    wanted = transactions.Wanted(*days, kind, store_id, staff_id, order_reference)

    async def page(after: Place | None, most: int) -> tuple[list[CardTransaction], Place | None]:
        before = (date.min + timedelta(after[0]), after[1]) if after else None
        log, merchant = parts.ledger.log, caller.merchant_id
        items, following = await transactions.of_merchant(parts.reader, log, merchant, wanted, before, most)
        return items, ((following[0] - date.min).days, following[1]) if following is not None else None

    asked = Asked(file_format, cursor, limit, position)
    return await listed(page, CardTransactionPage, "transactions", asked, (date.max - date.min).days, END_OF_LOG)


async def found(parts: Parts, caller: Caller, stream: UUID) -> Card:
    """The card, or `card_not_found` for none and for another merchant's."""
    card = await cards.find(parts.ledger.log, caller.merchant_id, stream, parts.clock.now())
    if card is None:
        raise Rejected("card_not_found")
    return card


HANDLERS = [enroll_customer, look_up_card, get_card, list_cards, list_transactions, list_all_transactions]
