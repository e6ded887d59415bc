"""From a request to the door and back: keys, positions, cursors and answers, the same for every command."""

import re
from collections.abc import Callable
from datetime import datetime
from operator import gt
from typing import Annotated, Any

import msgspec
from litestar import Response
from litestar.di import NamedDependency
from litestar.params import HeaderParameter

from api.answer import JsonAnswer
from api.auth import Connection
from api.parts import Parts
from ledger.actor import Caller
from ledger.commands import Command
from ledger.entry import Handled, Result
from ledger.errors import Rejected
from projections.read_model import ReadModel

BARE_KEY = r"([\x21\x23-\x7e](?:[\x20\x21\x23-\x7e]{0,253}[\x21\x23-\x7e])?)"
KEY = re.compile(f'"{BARE_KEY}"|{BARE_KEY}')
CURSOR = re.compile(r"p([0-9]{1,39}(?:\.[0-9]{1,39})*)")

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="New for each command, the same when it is sent again. Required where a balance moves.",
    ),
]


async def provide_key(
    request: Connection,
    caller: NamedDependency[Caller],  # noqa: ARG001 known first, so that strangers are told of credentials only
    idempotency_key: IdempotencyKey = None,
) -> str | None:
    """The key of a command; a route says with `needs_key` that it takes no command without."""
    return key_from(idempotency_key, required=bool(request.route_handler.opt.get("needs_key")))


def key_from(header: str | None, *, required: bool) -> str | None:
    """The key in its header, quoted as the IETF draft has it or bare as most clients send it."""
    if header is None:
        if required:
            raise Rejected("idempotency_key_required")
        return None
    match = KEY.fullmatch(header)
    if match is None:
        raise Rejected("invalid_idempotency_key")
    return match[1] or match[2]


async def send(
    parts: Parts,
    caller: Caller,
    command: Command,
    answer: Callable[[Result], msgspec.Struct],
    *,
    key: str | None = None,
    location: str | None = None,
) -> Response[bytes]:
    """Sends a command through the door and answers with what it came to, or came to the first time.

    With `location`, a template for the new resource's `id`, what creates it answers 201.
    """

    def render(result: Result) -> bytes:
        return msgspec.json.encode(answer(result))

    handled = await parts.ledger.handle(command, caller, key=key, answer=render)
    assert handled.answer is not None, "an answer was asked for"
    created = handled.created and location is not None
    headers = {"Loyalty-Position": str(handled.position)}
    if handled.replayed:
        headers["Idempotency-Replayed"] = "true"
    if created and location is not None:
        headers["Location"] = location.format(id=identifier(handled))
    return JsonAnswer(handled.answer, status_code=201 if created else 200, headers=headers)


async def foretold(
    parts: Parts,
    caller: Caller,
    command: Command,
    answer: Callable[[Result], msgspec.Struct],
    shape: type[msgspec.Struct],
    *,
    at: datetime | None = None,
) -> Response[bytes]:
    """Answers what a command would come to: its own answer, without what only a recorded one has."""

    def render(result: Result) -> bytes:
        return msgspec.json.encode(answer(result))

    told = await parts.ledger.previews.foretell(command, caller, render, occurred_at=at)
    return answered(msgspec.json.decode(told.answer, type=shape), told.position)


class Identified(msgspec.Struct):
    """The part of an answer that names what it is about."""

    id: str


def identifier(handled: Handled) -> str:
    """The id of what a command created, out of its answer, so that a replay names the same."""
    assert handled.answer is not None, "an answer was asked for"
    return msgspec.json.decode(handled.answer, type=Identified).id


async def positioned(parts: Parts, wanted: str | None, *models: ReadModel) -> int:
    """The position that an answer reflects at least, once it is the one that is wanted, or a later one.

    Read models are waited for, for a moment. What follows the log itself is as far as the log is, with nothing to wait
    for. Raises `behind` where the position is not reached: a read model lags, or the log never was there.
    """
    if wanted is not None and not re.fullmatch(r"[0-9]{1,18}", wanted):
        raise Rejected("invalid_position")
    if models:
        return await parts.reader.reached(models, int(wanted or 0))
    head = await parts.ledger.log.head()
    if wanted is not None and int(wanted) > head:
        raise Rejected("behind", position=head)
    return head


def answered(body: Any, position: int) -> Response[bytes]:
    """A read's answer, with the position that it reflects."""
    return JsonAnswer(
        msgspec.json.encode(body), headers={"Loyalty-Position": str(position), "Cache-Control": "no-store"}
    )


def place_from(text: str | None, *largest: int) -> tuple[int, ...] | None:
    """The numbers in a cursor, each up to its largest; raises `invalid_cursor` for what cannot have been given."""
    if text is None:
        return None
    match = CURSOR.fullmatch(text)
    place = tuple(map(int, match[1].split("."))) if match is not None else ()
    if len(place) != len(largest) or any(map(gt, place, largest)):
        raise Rejected("invalid_cursor")
    return place


def cursor_at(place: tuple[int, ...] | int | None) -> str | None:
    """A cursor for a place that is made of numbers, or of one."""
    numbers = (place,) if isinstance(place, int) else place
    return "p" + ".".join(map(str, numbers)) if numbers is not None else None
