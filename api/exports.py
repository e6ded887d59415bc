"""Lists as files: everything that a list has, page by page, as CSV or JSON Lines."""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from litestar import Response
from litestar.params import QueryParameter
from litestar.response import Stream

from api.documented import JSON_LINES

Item = TypeVar("Item", bound=msgspec.Struct)
Place = TypeVar("Place")

PAGE_ITEMS = 500
CSV = "text/csv; charset=utf-8"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a text for a formula (OWASP, CSV Injection)."""

Format = Annotated[
    Literal["json", "csv", "jsonl"],
    QueryParameter(
        name="format", description="`csv` and `jsonl` answer everything there is as a file, whatever the limit."
    ),
]


async def exported(
    file_format: str,
    name: str,
    shape: type[Item],
    page: Callable[[Place | None, int], Awaitable[tuple[Sequence[Item], Place | None]]],
    start: Place | None,
    position: int,
) -> Response[Any]:
    """A file of all items from a place on, of which no more than a page is ever held.

    The first page is read before the answer begins, so that what is wrong with the request is still told as a problem;
    an answer that cannot go on later breaks off, so that nobody takes it for a whole one.
    """
    items, following = await page(start, PAGE_ITEMS)
    encoded = csv_lines if file_format == "csv" else json_lines

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal items, following
        yield encoded(shape, items, first=True)
        while following is not None:
            items, following = await page(following, PAGE_ITEMS)
            yield encoded(shape, items, first=False)

    return Stream(
        pieces(),
        media_type=CSV if file_format == "csv" else JSON_LINES,
        headers={
            "Loyalty-Position": str(position),
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name}.{file_format}"',
        },
    )


def json_lines(_shape: type[Any], items: Sequence[msgspec.Struct], *, first: bool) -> bytes:  # noqa: ARG001 as csv_lines
    """One item a line, as it stands in a page."""
    return b"".join(msgspec.json.encode(item) + b"\n" for item in items)


def csv_lines(shape: type[Any], items: Sequence[msgspec.Struct], *, first: bool) -> bytes:
    """One item a line, after a line with the names of the columns (RFC 4180)."""
    written = io.StringIO()
    writer = csv.writer(written)
    columns = list(columns_of(shape))
    if first:
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
    return f"'{item}" if isinstance(item, str) and item.startswith(FORMULA) else item
