"""What a read model is: tables, and how a batch of the log changes them."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger.store.codec import Read
from projections.movements import Movement

Connection = AsyncConnection[TupleRow]
Memory = dict[Any, Any]


class Told(NamedTuple):
    """An event where it stands in the log; `day` is the date at the store where it happened, of a card's events."""

    position: int
    read: Read
    day: date | None


class Batch(NamedTuple):
    """What stands in the log after one position and up to another: the events that matter, in order.

    `movements` are those of them that happened to cards, as people see them.
    """

    start: int
    end: int
    events: Sequence[Told]
    movements: Sequence[Movement]

    def after(self, position: int) -> "Batch":
        """The part of the batch that comes after a position."""
        if position <= self.start:
            return self
        events = [told for told in self.events if told.position > position]
        movements = [movement for movement in self.movements if movement.position > position]
        return Batch(position, self.end, events, movements)


class Untellable(Exception):
    """What stands next in the log cannot be told; says of which model, after which position, and what helps.

    `model` is the one whose tables are not as they should be; None where it is the log's own fault.
    """

    def __init__(self, why: str, model: str | None = None) -> None:
        super().__init__(why)
        self.model = model


Apply = Callable[[Batch, Connection, Memory], Awaitable[None]]


@dataclass(frozen=True)
class ReadModel:
    """Tables that are told from the log.

    `apply` changes them by a batch, with statements over sets, within the transaction of the connection that it is
    given, and does nothing else. What it wants to remember from batch to batch goes into the memory that it is given
    along, which is emptied whenever it may be wrong. `version` goes up with every change of what `apply` makes of the
    same events, and of the tables; the model is then built anew from the log, beside the one that is there.
    `rests_on` names code elsewhere, by its digest, whose change is such a change too. `private` are columns of primary
    keys that hold something personal; where rows are named, a digest stands in their place.

    Names of tables and indexes stand without a schema: the connection's search path says which tables are meant,
    those that are read or those that are being built. Every table has a primary key.
    """

    name: str
    version: int
    tables: dict[str, str]
    indexes: str
    topics: frozenset[str]
    apply: Apply
    rests_on: str = ""
    private: frozenset[str] = frozenset()

    @property
    def identity(self) -> str:
        """What the tables hold and how they look; tables of another identity are not this release's."""
        text = "\n".join((*self.tables, *self.tables.values(), self.indexes, self.rests_on))
        return f"{self.version}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
