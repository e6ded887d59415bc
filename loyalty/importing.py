"""What all imports share: whose store it is, and taking a file chunk by chunk with a progress bar."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import TypeVar
from uuid import UUID

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ledger.actor import OPERATOR, PLATFORM, Caller, Role
from ledger.errors import Unavailable
from ledger.handle import Ledger
from ledger.merchant import Store
from ledger.store.names import MERCHANT
from ledger.view import holder_of

T = TypeVar("T")

FIRST_YEAR = 1900


async def store_by_code(ledger: Ledger, code: str) -> tuple[UUID, Store]:
    """The store with that code and its merchant."""
    value = await ledger.log.claim(PLATFORM, "store_code", code)
    merchant = await ledger.log.load(MERCHANT, holder_of(value).stream) if value is not None else None
    for store in merchant.state.stores.values() if merchant is not None else ():
        if store.code == code and merchant is not None:
            return merchant.stream, store
    raise click.ClickException(f"There is no store {code}.")


def operator_at(merchant_id: UUID, store: Store) -> Caller:
    """Who imports, and where."""
    return Caller(role=Role.OPERATOR, id=OPERATOR, merchant_id=merchant_id, store_id=store.id)


async def take_in_chunks(
    title: str, total: int, items: Iterator[T], at_once: int, take: Callable[[list[T]], Awaitable[None]]
) -> None:
    """Takes items, so many at once; raises Unavailable where the log stops answering.

    `total` may be an estimate that is too high.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # What is said of bad lines goes above the bar, but only where both are on the same screen.
    with Progress(*columns, redirect_stderr=sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total)
        while chunk := list(islice(items, at_once)):
            try:
                await take(chunk)
            except ExceptionGroup as group:
                if group.split(Unavailable)[1] is None:
                    raise Unavailable("the log stopped answering") from group
                raise
            progress.advance(task, len(chunk))
        progress.update(task, total=progress.tasks[task].completed)
