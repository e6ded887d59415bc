"""Lists page by page, and as files: everything that a list has, as CSV or JSON Lines."""

import csv
import io
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

import msgspec
from litestar import Response
from litestar.params import QueryParameter
from litestar.response import Stream
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from api.commands import answered, cursor_at, place_from
from api.documented import FILES
from ledger.errors import Rejected, Unavailable

LOG = logging.getLogger("loyalty")
Item = TypeVar("Item", bound=msgspec.Struct)
Place = tuple[int, ...]
Page = Callable[[Place | None, int], Awaitable[tuple[list[Item], Place | None]]]
"""Asks for so many items from a place on; answers them, and from where the next page goes on."""

PAGE_ITEMS = 500
FORMULA = re.compile(r"(?:^|;)[ ]*(?=[=+\-@\t\r])")
"""What makes a spreadsheet take a text for a formula (OWASP, CSV Injection); to some, a semicolon begins a cell."""

Format = Annotated[
    Literal["json", "csv", "jsonl"],
    QueryParameter(
        name="format", description="`csv` and `jsonl` answer everything there is as a file, whatever the limit."
    ),
]
CsvFormat = Annotated[
    Literal["json", "csv"], QueryParameter(name="format", description="`csv` answers `by_day` as a file.")
]
LinesFormat = Annotated[
    Literal["json", "jsonl"],
    QueryParameter(
        name="format", description="`jsonl` answers everything there is, one event a line, whatever the limit."
    ),
]


class Asked(NamedTuple):
    """How a list is asked for: page by page or as a file, from which place on, and what position it reflects."""

    file_format: str
    cursor: str | None
    limit: int
    position: int


async def listed(
    page: Page[Item], shape: type[msgspec.Struct], name: str, asked: Asked, *largest: int
) -> Response[Any]:
    """A page of that shape, or a file of all items from a place on, of which no more than a page is ever held.

    `largest` are the bounds of the numbers that a place is made of.
    """
    place = place_from(asked.cursor, *largest)
    if asked.file_format == "json":
        items, following = await page(place, asked.limit)
        return answered(shape(items, cursor_at(following)), asked.position)
    return await file_of(texts(page, place, shape, asked.file_format), name, asked.file_format, asked.position)


async def texts(
    page: Page[Item], place: Place | None, shape: type[msgspec.Struct], file_format: str
) -> AsyncIterator[bytes]:
    """All items from a place on as text, a page at a time."""
    (item,) = get_args(msgspec.structs.fields(shape)[0].type)
    headed = True
    while True:
        items, place = await page(place, PAGE_ITEMS)
        yield csv_lines(item, items, headed=headed) if file_format == "csv" else json_lines(items)
        if place is None:
            return
        headed = False


async def file_of(pieces: AsyncIterator[bytes], name: str, file_format: str, position: int) -> Response[Any]:
    """A file that is made while it is sent.

    The first piece is made before the answer begins, so that what is wrong with the request is still told as a problem.
    """
    first = await anext(pieces, b"")

    async def whole() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    headers = {
        "Loyalty-Position": str(position),
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{name}.{file_format}"',
    }
    return File(whole(), media_type=FILES[file_format], headers=headers)


class File(Stream):
    """A file on its way out, which breaks off where it cannot go on."""

    def to_asgi_response(self, *arguments: Any, **more: Any) -> ASGIResponse:
        """The answer for the server."""
        return BreakingOff(super().to_asgi_response(*arguments, **more))


class BreakingOff(ASGIResponse):
    """An answer that ends without its end where the database is lost, so that nobody takes it for a whole one."""

    def __init__(self, whole: ASGIResponse) -> None:
        self.whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends what there is; the server closes the connection of an answer that was left without an end."""
        try:
            await self.whole(scope, receive, send)
        except* (Rejected, Unavailable) as broken:
            LOG.warning("%s broke off: %s", scope["path"], broken.exceptions[0])


def json_lines(items: Sequence[msgspec.Struct]) -> bytes:
    """One item a line, as it stands in a page."""
    return msgspec.json.Encoder().encode_lines(items)


def csv_lines(shape: type[Any], items: Sequence[msgspec.Struct], *, headed: bool, first: str = "") -> bytes:
    """One item a line, where it is headed after a line with the names of the columns (RFC 4180).

    The column named `first` comes first.
    """
    written = io.StringIO()
    writer = csv.writer(written)
    columns = sorted(columns_of(shape), key=lambda path: path != (first,))
    if headed:
        writer.writerow([".".join(path) for path in columns])
    for item in items:
        plain = msgspec.to_builtins(item)
        writer.writerow([cell(plain, path) for path in columns])
    return written.getvalue().encode()


def columns_of(shape: type[Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The members of a shape, and in place of one that has members itself, those."""
    for field in msgspec.structs.fields(shape):
        inner = [kind for kind in (field.type, *getattr(field.type, "__args__", ())) if is_shape(kind)]
        if inner:
            yield from columns_of(inner[0], (*path, field.encode_name))
        else:
            yield (*path, field.encode_name)


def is_shape(kind: Any) -> bool:
    """Whether a type has members."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def cell(item: Any, path: tuple[str, ...]) -> Any:
    """A value for a spreadsheet, in which text is text and no formula."""
    for name in path:
        item = item.get(name) if item is not None else None
    return FORMULA.sub(r"\g<0>'", item) if isinstance(item, str) else item
