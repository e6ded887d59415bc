"""What happens at a till: stamps and points."""

from typing import Annotated, TypeVar

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import Body

from api.auth import STORE_SIDE
from api.commands import send
from api.documented import answers
from api.parts import Parts
from ledger import card
from ledger.actor import Caller
from ledger.commands import OnCard, StaffEntry, WhichCard
from ledger.entry import Result, transaction_id
from ledger.errors import Rejected
from projections import cards
from schemas import till
from schemas.cards import Card, LookupRequest

COMMAND = {"roles": STORE_SIDE, "decides": True, "needs_key": True}


def which_card(request: till.StampRequest | LookupRequest) -> WhichCard:
    """The card that a request names in exactly one way."""
    if sum(name is not None for name in (request.card_id, request.qr_code, request.card_number)) != 1:
        raise Rejected("one_card_name")
    return WhichCard(card_id=request.card_id, qr_code=request.qr_code, card_number=request.card_number)


def on_card(
    request: till.StampRequest, command: card.AddStamp | card.RedeemStamps | card.EarnPoints | card.RedeemPoints
) -> OnCard:
    """A command about the card that the request names, with the PIN that it carries."""
    staff = StaffEntry(staff_id=request.staff_id, staff_pin=request.staff_pin)
    return OnCard(which=which_card(request), staff=staff, command=command)


E = TypeVar("E")


def made(result: Result, kind: type[E]) -> tuple[str, E]:
    """The transaction of that kind that a command made, and its id."""
    version, event = next((version, event) for version, event in result.events if isinstance(event, kind))
    return transaction_id(result.main.stream, version), event


def card_after(result: Result) -> Card:
    """The card as it is after a command."""
    return cards.shown(result.main.state, result.facts.program, result.facts.now)


def stamped(result: Result) -> till.StampAnswer:
    """What a till is told of a stamp."""
    transaction, event = made(result, card.StampAdded)
    rules = result.facts.program.rules
    return till.StampAnswer(
        transaction_id=transaction,
        stamp_count=event.stamp_count,
        stamps_target=rules.stamps_target,
        reward_earned=event.reward_earned,
        next_stamp_available_at=card.next_stamp_available_at(result.main.state, result.facts),
        stamps_today=event.stamps_today,
        card=card_after(result),
    )


def stamps_redeemed(result: Result) -> till.StampsRedeemedAnswer:
    """What a till is told of redeemed stamps."""
    transaction, event = made(result, card.StampsRedeemed)
    return till.StampsRedeemedAnswer(
        transaction_id=transaction,
        stamps_spent=event.stamps,
        stamp_count=event.stamp_count,
        card=card_after(result),
    )


def earned(result: Result) -> till.PointsAnswer:
    """What a till is told of a purchase."""
    transaction, event = made(result, card.PointsEarned)
    return till.PointsAnswer(
        transaction_id=transaction,
        points_earned=event.points,
        points_balance=event.points_balance,
        card=card_after(result),
    )


def points_redeemed(result: Result) -> till.PointsRedeemedAnswer:
    """What a till is told of spent points."""
    transaction, event = made(result, card.PointsRedeemed)
    return till.PointsRedeemedAnswer(
        transaction_id=transaction,
        points_spent=event.points,
        points_balance=event.points_balance,
        card=card_after(result),
    )


@post("/stamp", status_code=200, opt=COMMAND, responses=answers(till.StampAnswer), summary="Add a stamp")
async def add_stamp(
    data: Annotated[till.StampRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Adds one stamp to a card."""
    return await send(parts, caller, on_card(data, card.AddStamp()), stamped, key=key)


@post(
    "/stamp/redeem",
    status_code=200,
    opt=COMMAND,
    responses=answers(till.StampsRedeemedAnswer),
    summary="Redeem stamps",
)
async def redeem_stamps(
    data: Annotated[till.StampRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Takes the target's stamps for the reward; what is over stays."""
    return await send(parts, caller, on_card(data, card.RedeemStamps()), stamps_redeemed, key=key)


@post("/points", status_code=200, opt=COMMAND, responses=answers(till.PointsAnswer), summary="Earn points")
async def earn_points(
    data: Annotated[till.PointsRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Records a purchase and the points it earns, rounded down."""
    command = card.EarnPoints(data.purchase_amount_cents, data.order_reference)
    return await send(parts, caller, on_card(data, command), earned, key=key)


@post(
    "/points/redeem",
    status_code=200,
    opt=COMMAND,
    responses=answers(till.PointsRedeemedAnswer),
    summary="Redeem points",
)
async def redeem_points(
    data: Annotated[till.RedeemRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Spends points on a reward of the program; the balance never goes below zero."""
    return await send(parts, caller, on_card(data, card.RedeemPoints(data.reward_id)), points_redeemed, key=key)


HANDLERS = [add_stamp, redeem_stamps, earn_points, redeem_points]
