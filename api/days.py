"""Days as they are asked for: those of the stores, first and last one included."""

from datetime import date
from typing import Annotated

import msgspec
from litestar.params import QueryParameter

from ledger.errors import Rejected

FirstDay = Annotated[
    str | None, QueryParameter(name="from", description="First day, as 2026-01-31 in the store's own time zone.")
]
LastDay = Annotated[
    str | None, QueryParameter(name="to", description="Last day, as 2026-01-31 in the store's own time zone.")
]


def days_between(first: str | None, last: str | None) -> tuple[date | None, date | None]:
    """The days that were asked for; raises `invalid_day` for what is none, `invalid_days` where none lies between."""
    first_day, last_day = day_from("from", first), day_from("to", last)
    if first_day is not None and last_day is not None and first_day > last_day:
        raise Rejected("invalid_days")
    return first_day, last_day


def day_from(parameter: str, text: str | None) -> date | None:
    """A day as ISO 8601 writes it with hyphens."""
    if text is None:
        return None
    try:
        return msgspec.convert(text, date)
    except msgspec.ValidationError:
        raise Rejected("invalid_day", parameter=parameter) from None
