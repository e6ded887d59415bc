"""Statistics of a merchant's program, for its managers."""

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from api.auth import MANAGERS
from api.commands import answered, positioned
from api.days import FirstDay, LastDay, days_between
from api.documented import answers
from api.exports import exported
from api.parts import Parts
from api.resources.cards import Position, StaffFilter, StoreFilter, store_of
from ledger.actor import Caller
from projections import cards, statistics, transactions
from schemas.statistics import DayStatistics, Statistics, Totals

MODELS = (statistics.MODEL, transactions.MODEL, cards.MODEL)

FileFormat = Annotated[
    Literal["json", "csv"], QueryParameter(name="format", description="`csv` answers `by_day` as a file.")
]


@get(
    "/stats",
    opt={"roles": MANAGERS, "csv": True},
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
    file_format: FileFormat = "json",
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
    wanted = transactions.Wanted(*days, store_id=store_id, staff_id=staff_id)
    found = await statistics.of_merchant(parts.reader, log, merchant, wanted, now)
    return await as_asked(found, file_format, position)


async def as_asked(found: Totals, file_format: str, position: int) -> Response[Any]:
    """All figures, or those by day as a file."""
    if file_format == "json":
        return answered(found, position)

    async def page(_after: None, _most: int) -> tuple[list[DayStatistics], None]:
        return found.by_day, None

    return await exported(file_format, "statistics", DayStatistics, page, None, position)


HANDLERS = [get_statistics]
