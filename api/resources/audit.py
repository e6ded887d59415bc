"""What auditors read: a card's events, its balance at any time and why, and the log itself."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath, QueryParameter

from api.auth import AUDITORS, AUDITORS_AND_MANAGERS
from api.commands import answered, cursor_at, place_from, positioned
from api.documented import answers
from api.exports import LinesFormat, file_of
from api.parts import Parts
from api.resources.cards import Cursor, Limit, Position
from ledger.actor import PLATFORM, Caller
from ledger.card import Card
from ledger.errors import Rejected
from ledger.store import END_OF_LOG
from ledger.store.names import CARD, CURRENT, MERCHANT
from projections.audit import balance, events, explain, lines
from projections.audit.horizon import Horizon, Moment, horizon
from schemas.audit import Balance, CardEventPage, EventPage, Explanation
from schemas.kinds import Instant

ROLES: dict[str, Any] = {"roles": AUDITORS_AND_MANAGERS}
MOMENT = "a time (RFC 3339, with its zone) or a position of the log"

AsOf = Annotated[str | None, QueryParameter(description=f"Only what had occurred by then: {MOMENT}.")]
KnownAt = Annotated[str | None, QueryParameter(description=f"Only what had been recorded by then: {MOMENT}.")]
EventName = Annotated[str | None, QueryParameter(description="Only events of this name, as `points_earned`.")]
Since = Annotated[str | None, QueryParameter(name="from", description="Only what occurred at this time or later.")]
Until = Annotated[str | None, QueryParameter(name="to", description="Only what occurred at this time or earlier.")]
Merged = Annotated[bool, QueryParameter(description="Also the events of all cards that were merged into this one.")]
Order = Annotated[Literal["oldest", "newest"], QueryParameter(description="Which comes first.")]
After = Annotated[int, QueryParameter(ge=0, le=END_OF_LOG, description="Only events past this position.")]
MerchantId = Annotated[UUID | None, QueryParameter(description="Only events of this merchant.")]


@get("/cards/{card_id:uuid}/events", opt=ROLES, responses=answers(CardEventPage), summary="A card's events in full")
async def list_card_events(
    card_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    name: EventName = None,
    since: Since = None,
    until: Until = None,
    as_of: AsOf = None,
    known_at: KnownAt = None,
    merged: Merged = False,
    order: Order = "oldest",
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """What happened to a card, and what of it was refused, as it is stored and with what was sealed."""
    head = await positioned(parts, loyalty_position)
    wanted = events.Wanted(
        horizon=await horizon_of(parts, head, as_of, known_at),
        name=known_name(name),
        since=time_from("from", since),
        until=time_from("to", until),
    )
    if wanted.since is not None and wanted.until is not None and wanted.since > wanted.until:
        raise Rejected("invalid_time_range")
    card = await found(parts, caller, card_id)
    (after,) = place_from(cursor, END_OF_LOG) or (None,)
    cards = [card.id, *(card.absorbed if merged else ())]
    page = events.page(parts.ledger.log, cards, wanted, after, limit, newest_first=order == "newest")
    items, following = await page
    return answered(CardEventPage(items, cursor_at(following)), head)


@get("/cards/{card_id:uuid}/balance", opt=ROLES, responses=answers(Balance), summary="A card's balance at any time")
async def get_card_balance(
    card_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    as_of: AsOf = None,
    known_at: KnownAt = None,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """What the card's events come to that had occurred by one time and were recorded by another; now, without them."""
    head = await positioned(parts, loyalty_position)
    asked = await horizon_of(parts, head, as_of, known_at)
    card = await found(parts, caller, card_id)
    return answered(await balance.balance(parts.ledger.log, card, asked), head)


@get("/cards/{card_id:uuid}/explain", opt=ROLES, responses=answers(Explanation), summary="Why a card's balance is so")
async def explain_card_balance(
    card_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    as_of: AsOf = None,
    known_at: KnownAt = None,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The balance, each transaction that it rests on with its position in the log, and each lot that is left."""
    head = await positioned(parts, loyalty_position)
    asked = await horizon_of(parts, head, as_of, known_at)
    card = await found(parts, caller, card_id)
    return answered(await explain.explain(parts.ledger.log, card, asked), head)


@get(
    "/events",
    opt={"roles": AUDITORS},
    responses=answers(EventPage),
    summary="The log, oldest first",
)
async def list_events(
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    merchant_id: MerchantId = None,
    after: After = 0,
    file_format: LinesFormat = "json",
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[Any]:
    """Events of the merchant, or of all for an auditor of all, as they are stored: page by page, or as JSON Lines."""
    head = await positioned(parts, loyalty_position)
    merchant = await audited(parts, caller, merchant_id)
    after = max(after, *(place_from(cursor, END_OF_LOG) or (0,)))
    if file_format == "jsonl":
        texts = (text async for _, _, text in lines.texts(parts.ledger.log, merchant, after, head))
        return await file_of(texts, "events", file_format, head)
    items, following = await lines.page(parts.ledger.log, merchant, after, head, limit)
    return answered({"items": items, "next_cursor": cursor_at(following)}, head)


# ---- what was asked -------------------------------------------------------------------------------------------


def every_merchant(caller: Caller) -> bool:
    """Whether the caller's account names no merchant and so sees all."""
    return caller.role in AUDITORS and caller.merchant_id == PLATFORM


async def found(parts: Parts, caller: Caller, card_id: UUID) -> Card:
    """The card as of now, or `card_not_found` for none and for one that is not the caller's to see."""
    loaded = await parts.ledger.log.load(CARD, card_id, fresh=True)
    if loaded is None or not (every_merchant(caller) or loaded.merchant_id == caller.merchant_id):
        raise Rejected("card_not_found")
    return loaded.state


async def audited(parts: Parts, caller: Caller, merchant_id: UUID | None) -> UUID | None:
    """Whose events are asked for, None for all; `merchant_not_found` for one that is not the caller's to see."""
    if not every_merchant(caller):
        if merchant_id not in (None, caller.merchant_id):
            raise Rejected("merchant_not_found")
        return caller.merchant_id
    if merchant_id is not None and await parts.ledger.log.load(MERCHANT, merchant_id, fresh=True) is None:
        raise Rejected("merchant_not_found")
    return merchant_id


async def horizon_of(parts: Parts, head: int, as_of: str | None, known_at: str | None) -> Horizon:
    """How far a question looks."""
    return await horizon(
        parts.ledger.log,
        head,
        parts.clock.now(),
        moment_from("as_of", as_of, head),
        moment_from("known_at", known_at, head),
    )


def moment_from(parameter: str, text: str | None, head: int) -> Moment | None:
    """A time or a position; `position_not_reached` for one that the log does not have yet."""
    if text is None or not re.fullmatch(r"[0-9]{1,18}", text):
        return time_from(parameter, text)
    if int(text) > head:
        raise Rejected("position_not_reached", parameter=parameter, position=head)
    return int(text)


def time_from(parameter: str, text: str | None) -> datetime | None:
    """A time with its zone."""
    if text is None:
        return None
    try:
        return msgspec.convert(text, Instant)
    except msgspec.ValidationError:
        raise Rejected("invalid_moment", parameter=parameter) from None


def known_name(name: str | None) -> str | None:
    """The name of an event that there is."""
    if name is not None and name not in CURRENT:
        raise Rejected("unknown_event_name")
    return name


HANDLERS = [list_card_events, get_card_balance, explain_card_balance, list_events]
