"""What puts right what went wrong: reversals at the till; adjusting, stopping, ending and merging cards."""

import re
from typing import Annotated
from uuid import UUID

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import Body, FromPath

from api.auth import MANAGERS, STORE_SIDE
from api.commands import send
from api.documented import answers
from api.parts import Parts
from api.resources.till import card_after, made
from ledger import card
from ledger.actor import Caller
from ledger.commands import CardCommand, MergeCards, OnCard, StaffEntry, WhichCard
from ledger.entry import Result, transaction_id
from ledger.errors import Rejected
from schemas import till
from schemas.cards import AdjustAnswer, AdjustRequest, Card, MergeAnswer, MergeRequest, ReasonRequest

TRANSACTION = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-([1-9][0-9]{0,14})")
"""As `transaction_id` writes it."""

KEYED = {"decides": True, "needs_key": True}
BY_MANAGERS = {"roles": MANAGERS, "decides": True}


def reversal_of(transaction: str, request: till.ReverseRequest) -> OnCard:
    """The command to undo the transaction of that id; `transaction_not_found` for what is no id at all."""
    match = TRANSACTION.fullmatch(transaction)
    if match is None:
        raise Rejected("transaction_not_found")
    card_id = UUID(match[1])
    command = card.Reverse(
        card=card_id,
        version=int(match[2]),
        purchase_amount_cents=request.purchase_amount_cents,
        allow_negative_balance=request.allow_negative_balance,
        reason=request.reason,
    )
    staff = StaffEntry(staff_id=request.staff_id, staff_pin=request.staff_pin)
    return OnCard(which=WhichCard(card_id=card_id), staff=staff, command=command)


def reversed_(result: Result) -> till.ReverseAnswer:
    """What a till is told of a reversal."""
    transaction, event = made(result, card.TransactionReversed)
    after = result.main.state
    return till.ReverseAnswer(
        transaction_id=transaction,
        reverses=transaction_id(event.card, event.version),
        points_reversed=abs(event.points),
        stamps_reversed=abs(event.stamps),
        points_balance=after.points_balance,
        stamp_count=after.stamp_count,
        card=card_after(result),
    )


def adjusted(result: Result) -> AdjustAnswer:
    """What a manager is told of a correction."""
    transaction, event = made(result, card.BalanceAdjusted)
    return AdjustAnswer(
        transaction_id=transaction,
        points_balance=event.points_balance,
        stamp_count=event.stamp_count,
        card=card_after(result),
    )


def merged(result: Result) -> MergeAnswer:
    """What a manager is told of a merge."""
    transaction, event = made(result, card.CardAbsorbed)
    return MergeAnswer(
        transaction_id=transaction,
        points=event.points,
        stamps=event.stamps,
        card=card_after(result),
    )


def on_this(card_id: UUID, rule: CardCommand) -> OnCard:
    """A command on the very card that a manager looks at."""
    return OnCard(which=WhichCard(card_id=card_id), command=rule)


@post(
    "/transactions/{transaction:str}/reverse",
    status_code=200,
    opt={"roles": STORE_SIDE} | KEYED,
    responses=answers(till.ReverseAnswer),
    summary="Reverse a transaction",
)
async def reverse_transaction(
    transaction: FromPath[str],
    data: Annotated[till.ReverseRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Undoes a transaction, or the part of a purchase that is refunded: never twice, never more than is left."""
    return await send(parts, caller, reversal_of(transaction, data), reversed_, key=key)


@post(
    "/cards/{card_id:uuid}/adjust",
    status_code=200,
    opt={"roles": MANAGERS} | KEYED,
    responses=answers(AdjustAnswer),
    summary="Adjust a card's balances",
)
async def adjust_card(
    card_id: FromPath[UUID],
    data: Annotated[AdjustRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Corrects the balances by hand, for a reason; never below zero."""
    rule = card.Adjust(points=data.points, stamps=data.stamps, reason=data.reason)
    return await send(parts, caller, on_this(card_id, rule), adjusted, key=key)


@post(
    "/cards/{card_id:uuid}/merge",
    status_code=200,
    opt={"roles": MANAGERS} | KEYED,
    responses=answers(MergeAnswer),
    summary="Merge a card into another",
)
async def merge_card(
    card_id: FromPath[UUID],
    data: Annotated[MergeRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Gives all that the card has to another card; its number and QR code find that one from then on."""
    command = MergeCards(WhichCard(card_id=card_id), data.into_card_id)
    return await send(parts, caller, command, merged, key=key)


@post(
    "/cards/{card_id:uuid}/suspend",
    status_code=200,
    opt=BY_MANAGERS,
    responses=answers(Card),
    summary="Suspend a card",
)
async def suspend_card(
    card_id: FromPath[UUID],
    data: Annotated[ReasonRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Stops a card for a while: it neither collects nor redeems."""
    return await send(parts, caller, on_this(card_id, card.Suspend(data.reason)), card_after, key=key)


@post(
    "/cards/{card_id:uuid}/reactivate",
    status_code=200,
    opt=BY_MANAGERS,
    responses=answers(Card),
    summary="Reactivate a card",
)
async def reactivate_card(
    card_id: FromPath[UUID],
    data: Annotated[ReasonRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Lets a suspended card take part again."""
    return await send(parts, caller, on_this(card_id, card.Reactivate(data.reason)), card_after, key=key)


@post("/cards/{card_id:uuid}/close", status_code=200, opt=BY_MANAGERS, responses=answers(Card), summary="Close a card")
async def close_card(
    card_id: FromPath[UUID],
    data: Annotated[ReasonRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Ends a card for good; the customer may be given another."""
    return await send(parts, caller, on_this(card_id, card.Close(data.reason)), card_after, key=key)


HANDLERS = [reverse_transaction, adjust_card, merge_card, suspend_card, reactivate_card, close_card]
