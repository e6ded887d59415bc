"""What who runs the platform looks after."""

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency

from api.auth import ADMINS
from api.commands import answered
from api.documented import answers
from api.parts import Parts
from ledger.actor import Caller
from projections.lag import lag
from projections.models import MODELS
from schemas.admin import Projections

ROLES: dict[str, Any] = {"roles": ADMINS}


@get("/projections", opt=ROLES, responses=answers(Projections), summary="How far the read models are")
async def list_projections(
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
) -> Response[bytes]:
    """Each read model with its lag behind the log, and what is being built anew."""
    found = await lag(parts.reader, MODELS, parts.clock.now())
    return answered(found, min(each.position for each in found.items))


HANDLERS = [list_projections]
