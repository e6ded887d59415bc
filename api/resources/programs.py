"""The merchant's program."""

import hashlib
from typing import Annotated, Any

import msgspec
from litestar import Response, get, patch, post
from litestar.di import NamedDependency
from litestar.params import Body

from api.auth import MANAGERS, STORE_SIDE
from api.commands import answered, positioned, send
from api.documented import answers
from api.parts import Parts
from api.resources.cards import Position
from ledger.actor import Caller
from ledger.commands import OnProgram
from ledger.defaults import default_rules
from ledger.entry import Result
from ledger.errors import Rejected
from ledger.program import ChangeProgram, CreateProgram, ExpiryPolicy, ProgramType, Reward
from ledger.streams import program_stream
from projections import programs
from schemas.programs import BrandingRequest, Program, ProgramChange, ProgramRequest, RewardRequest

REWARD_ID_CHARACTERS = 12


def changes_in(request: ProgramChange) -> dict[str, Any]:
    """What a request sets, as the rules hold it."""
    given = {
        field: value for field in request.__struct_fields__ if (value := getattr(request, field)) is not msgspec.UNSET
    }
    if isinstance(given.get("type"), str):
        given["type"] = ProgramType(given["type"])
    if isinstance(given.get("expiry_policy"), str):
        given["expiry_policy"] = ExpiryPolicy(given["expiry_policy"])
    if isinstance(request.rewards, list):
        given["rewards"] = tuple(reward_from(number, reward) for number, reward in enumerate(request.rewards))
    if isinstance(request.branding, BrandingRequest):
        given["branding"] = msgspec.to_builtins(request.branding)
    return given


def reward_from(number: int, request: RewardRequest) -> Reward:
    """A reward with its own id, or one that the same request always gives it."""
    reward_id = request.id or hashlib.sha256(f"{number} {request.name}".encode()).hexdigest()[:REWARD_ID_CHARACTERS]
    return Reward(id=reward_id, name=request.name, points_cost=request.points_cost, active=request.active)


def shown(result: Result) -> Program:
    """The program after a command."""
    return programs.shown(result.main.state)


@get("/program", opt={"roles": STORE_SIDE}, responses=answers(Program), summary="The program")
async def get_program(
    parts: NamedDependency[Parts], caller: NamedDependency[Caller], loyalty_position: Position = None
) -> Response[bytes]:
    """The program as it stands now."""
    position = await positioned(parts, loyalty_position)
    found = await programs.find(parts.ledger.log, program_stream(caller.merchant_id))
    if found is None:
        raise Rejected("program_not_found")
    return answered(found, position)


@post(
    "/program",
    status_code=201,
    opt={"roles": MANAGERS, "decides": True},
    responses=answers(Program, created=True),
    summary="Create the program",
)
async def create_program(
    data: Annotated[ProgramRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Gives the merchant its one program."""
    plain = default_rules(parts.settings, ProgramType(data.type))
    changes = changes_in(data)
    branding = msgspec.structs.replace(plain.branding, **changes.pop("branding", {}))
    command = OnProgram(CreateProgram(msgspec.structs.replace(plain, branding=branding, **changes)))
    return await send(parts, caller, command, shown, key=key, location="/api/v1/store/loyalty/program")


@patch("/program", opt={"roles": MANAGERS, "decides": True}, responses=answers(Program), summary="Change the program")
async def change_program(
    data: Annotated[ProgramChange, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Changes what is given; the new version counts from the next command on."""
    command = OnProgram(ChangeProgram(changes_in(data)))
    return await send(parts, caller, command, shown, key=key)


HANDLERS = [get_program, create_program, change_program]
