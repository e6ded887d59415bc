"""How far the read models are behind the log that they tell."""

from collections.abc import Iterable
from datetime import datetime

import msgspec
from psycopg.rows import TupleRow

from projections.read_model import ReadModel
from projections.reading import Reader
from schemas.admin import Projection, Projections, Rebuilding, Status

LAG = """
    SELECT asked.model, head.position, live.identity, coalesce(live.position, 0), live.replaced, building.position,
        waiting.state
    FROM unnest(%(models)s::text[]) WITH ORDINALITY AS asked (model, number)
    CROSS JOIN (SELECT coalesce(max(notification_id), 0) AS position FROM events) AS head
    LEFT JOIN projections.checkpoints live ON live.model = asked.model
    LEFT JOIN rebuilding.checkpoints building ON building.model = asked.model
    LEFT JOIN LATERAL (
        SELECT state FROM events WHERE notification_id > coalesce(live.position, 0) ORDER BY notification_id LIMIT 1
    ) AS waiting ON true
    ORDER BY asked.number
"""


class Recorded(msgspec.Struct):
    """Of a stored event, whatever release wrote it, the one thing that is wanted here."""

    recorded_at: datetime


_recorded = msgspec.json.Decoder(Recorded)


async def lag(reader: Reader, models: Iterable[ReadModel], now: datetime) -> Projections:
    """How far each model is, and the log's head, all of one moment."""
    known = {model.name: model for model in models}
    rows = await reader.rows(LAG, {"models": list(known)})
    return Projections(rows[0][1], [shown(row, known[row[0]], now) for row in rows])


def shown(row: TupleRow, model: ReadModel, now: datetime) -> Projection:
    """One model as it crosses the wire."""
    name, head, identity, position, replaced, building, waiting = row
    lag_seconds = 0.0
    if waiting is not None:
        lag_seconds = max(0.0, (now - _recorded.decode(waiting).recorded_at).total_seconds())
    return Projection(
        name=name,
        position=position,
        lag_events=head - position,
        lag_seconds=lag_seconds,
        status=status_of(model, identity, replaced or ()),
        rebuilding=Rebuilding(building, head) if building is not None else None,
    )


def status_of(model: ReadModel, identity: str | None, replaced: Iterable[str]) -> Status:
    """Whose tables are read; those of an earlier release are read by that one alone."""
    if identity == model.identity:
        return "current"
    return "of_another_release" if model.identity in replaced else "building"
