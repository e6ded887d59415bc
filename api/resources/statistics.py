"""Statistics of a merchant's program, for its managers."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Any
from uuid import UUID

from litestar import Response, get
from litestar.di import NamedDependency

from api.auth import MANAGERS
from api.commands import answered, positioned
from api.days import FirstDay, LastDay, days_between
from api.documented import answers
from api.exports import CsvFormat, csv_lines, file_of
from api.parts import Parts
from api.resources.cards import Position, StaffFilter, StoreFilter, store_of
from ledger.actor import Caller
from projections import cards, statistics, transactions, visits
from schemas.statistics import DayStatistics, Statistics, Totals

MODELS = (statistics.MODEL, transactions.MODEL, cards.MODEL)


@get(
    "/stats",
    opt={"roles": MANAGERS},
    responses=answers(Statistics),
    summary="Statistics of some days, by day, store and staff member",
)
async def get_statistics(
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    first_day: FirstDay = None,
    last_day: LastDay = None,
    store: StoreFilter = None,
    staff_id: StaffFilter = None,
    file_format: CsvFormat = "json",
    loyalty_position: Position = None,
) -> Response[Any]:
    """Figures of the days between, both included, as the stores' own calendars have them; of all days without."""
    days = days_between(first_day, last_day)
    position = await positioned(parts, loyalty_position, *MODELS)
    store_id = await store_of(parts, caller, store)
    return await told(parts, caller.merchant_id, days, position, store_id, staff_id, file_format)


async def told(
    parts: Parts,
    merchant: UUID,
    days: tuple[date | None, date | None],
    position: int,
    store_id: UUID | None = None,
    staff_id: UUID | None = None,
    file_format: str = "json",
) -> Response[Any]:
    """A merchant's figures, whoever reads them."""
    log, now = parts.ledger.log, parts.clock.now()
    wanted = visits.Wanted(*days, store_id, staff_id)
    found = await statistics.of_merchant(parts.reader, log, merchant, wanted, now)
    return await as_asked(found, file_format, position)


async def as_asked(found: Totals, file_format: str, position: int) -> Response[Any]:
    """All figures, or those by day as a file."""

    async def by_day() -> AsyncIterator[bytes]:
        yield csv_lines(DayStatistics, found.by_day, headed=True, first="day")

    if file_format == "json":
        return answered(found, position)
    return await file_of(by_day(), "statistics", file_format, position)


HANDLERS = [get_statistics]
