"""The two times of an audit question: what had occurred by then, as it had been recorded by then."""

from datetime import datetime

import msgspec

from ledger.store.codec import decode
from ledger.store.log import Log

Moment = datetime | int
"""A time, or a position of the log."""


class Horizon(msgspec.Struct, frozen=True, kw_only=True):
    """How far a question looks. Without `as_of` and `known_at` it is all that stands up to `head`.

    `by` is the time as of which is asked: that of `as_of`, or when the event at that position was recorded, or now.
    """

    head: int
    by: datetime
    as_of: Moment | None = None
    known_at: Moment | None = None

    @property
    def until(self) -> int:
        """The last position that can be within."""
        return min([self.head, *(each for each in (self.as_of, self.known_at) if isinstance(each, int))])

    def admits(self, position: int, occurred_at: datetime, recorded_at: datetime) -> bool:
        """Whether an event is within: occurred by the one time, recorded by the other."""
        if position > self.until:
            return False
        if isinstance(self.as_of, datetime) and occurred_at > self.as_of:
            return False
        return not isinstance(self.known_at, datetime) or recorded_at <= self.known_at


async def horizon(
    log: Log, head: int, now: datetime, as_of: Moment | None = None, known_at: Moment | None = None
) -> Horizon:
    """The horizon of a question asked now, when the log ends at `head`."""
    by = as_of if isinstance(as_of, datetime) else now
    if isinstance(as_of, int):
        stored = await log.records.at(as_of)
        by = decode(stored, None).at.recorded_at if stored is not None else now
    return Horizon(head=head, by=by, as_of=as_of, known_at=known_at)
