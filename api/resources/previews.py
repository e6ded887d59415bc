"""What a command would come to, by the code that decides it, with nothing written."""

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import Body, FromPath

from api.auth import STORE_SIDE
from api.commands import foretold
from api.documented import answers
from api.parts import Parts
from api.resources.corrections import on_this, reversal_of, reversed_
from api.resources.till import card_after, earned, on_card, points_redeemed
from ledger import card
from ledger.actor import Caller
from ledger.attempts import rfc3339
from ledger.entry import Result
from ledger.errors import Rejected
from schemas import till
from schemas.cards import ExpiryPreview, ExpiryRequest

AHEAD_MAX = timedelta(days=36_525)
PREVIEW = {"roles": STORE_SIDE, "decides": True, "foretells": True}


@post(
    "/points/preview",
    status_code=200,
    opt=PREVIEW,
    responses=answers(till.PointsPreview | till.PointsRedeemedPreview),
    summary="Preview earning or redeeming points",
)
async def preview_points(
    data: Annotated[till.PreviewRequest, Body()], parts: NamedDependency[Parts], caller: NamedDependency[Caller]
) -> Response[bytes]:
    """What a purchase would earn, or a reward would take, or why not."""
    if data.purchase_amount_cents is not None and data.reward_id is None:
        earning = card.EarnPoints(data.purchase_amount_cents, data.order_reference)
        return await foretold(parts, caller, on_card(data, earning), earned, till.PointsPreview)
    if data.reward_id is not None and data.purchase_amount_cents is None and data.order_reference is None:
        spending = card.RedeemPoints(data.reward_id)
        return await foretold(parts, caller, on_card(data, spending), points_redeemed, till.PointsRedeemedPreview)
    raise Rejected("purchase_or_reward")


@post(
    "/transactions/{transaction:str}/reverse/preview",
    status_code=200,
    opt=PREVIEW,
    responses=answers(till.ReversePreview),
    summary="Preview a reversal",
)
async def preview_reversal(
    transaction: FromPath[str],
    data: Annotated[till.ReverseRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
) -> Response[bytes]:
    """What a reversal would take or give back, or why not."""
    return await foretold(parts, caller, reversal_of(transaction, data), reversed_, till.ReversePreview)


@post(
    "/cards/{card_id:uuid}/expiry/preview",
    status_code=200,
    opt=PREVIEW,
    responses=answers(ExpiryPreview),
    summary="Preview what expires",
)
async def preview_expiry(
    card_id: FromPath[UUID],
    data: Annotated[ExpiryRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
) -> Response[bytes]:
    """What would have expired by then if nothing happened before."""
    command = on_this(card_id, card.ExpirePoints())
    at = looked_at(data.at, parts.clock.now())
    return await foretold(parts, caller, command, would_expire, ExpiryPreview, at=at)


def looked_at(asked: datetime | None, now: datetime) -> datetime:
    """The time to look at: what has passed counts as now, and nobody knows what is far ahead."""
    latest = now + AHEAD_MAX
    if asked is not None and asked > latest:
        raise Rejected("invalid_time", latest=rfc3339(latest))
    return max(asked or now, now)


def would_expire(result: Result) -> ExpiryPreview:
    """What a card loses by then."""
    events = (event for _, event in result.events)
    return ExpiryPreview(
        points_expired=sum(event.points for event in events if isinstance(event, card.PointsExpired)),
        points_balance=result.main.state.points_balance,
        card=card_after(result),
    )


HANDLERS = [preview_points, preview_reversal, preview_expiry]
