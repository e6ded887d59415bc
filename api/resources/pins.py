"""Staff PINs: managers give, change and end them; tills verify them."""

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import Body, FromPath

from api.auth import MANAGERS, STORE_SIDE
from api.commands import answered, cursor_at, place_from, positioned, send
from api.documented import answers
from api.parts import Parts
from api.resources.cards import Cursor, Limit, Position
from ledger.actor import Caller
from ledger.commands import ChangePin, CreatePin, OnPin, StaffEntry, VerifyPin
from ledger.entry import Result
from ledger.errors import Rejected
from ledger.staff_pin import DeactivateStaffPin, StaffRole, UnlockStaffPin
from ledger.store import END_OF_LOG
from projections import pin_use, pins
from schemas.pins import PinChange, PinRequest, PinUses, StaffPin, StaffPinPage, VerifyRequest


def shown(result: Result) -> StaffPin:
    """The PIN after a command."""
    return pins.shown(result.main.state)


@get("/pins", opt={"roles": MANAGERS}, responses=answers(StaffPinPage), summary="Staff PINs, oldest first")
async def list_pins(
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The merchant's PINs, page by page, deactivated ones too."""
    position = await positioned(parts, loyalty_position)
    (after,) = place_from(cursor, END_OF_LOG) or (0,)
    items, following = await pins.page(parts.ledger.log, caller.merchant_id, after, limit)
    return answered(StaffPinPage(items, cursor_at(following)), position)


@get("/pins/use", opt={"roles": MANAGERS}, responses=answers(PinUses), summary="How staff PINs were used")
async def list_pin_uses(
    parts: NamedDependency[Parts], caller: NamedDependency[Caller], loyalty_position: Position = None
) -> Response[bytes]:
    """What was done with each PIN and at each till, and how often a wrong one was tried, since the beginning."""
    position = await positioned(parts, loyalty_position, pin_use.MODEL)
    return answered(await pin_use.uses(parts.reader, parts.ledger.log, caller.merchant_id), position)


@get("/pins/{pin_id:uuid}", opt={"roles": MANAGERS}, responses=answers(StaffPin), summary="A staff PIN")
async def get_pin(
    pin_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    loyalty_position: Position = None,
) -> Response[bytes]:
    """A staff member's PIN as it stands now, without the PIN."""
    position = await positioned(parts, loyalty_position)
    found = await pins.find(parts.ledger.log, caller.merchant_id, pin_id)
    if found is None:
        raise Rejected("staff_pin_not_found")
    return answered(found, position)


@post(
    "/pins",
    status_code=201,
    opt={"roles": MANAGERS, "decides": True},
    responses=answers(StaffPin, created=True),
    summary="Create a PIN",
)
async def create_pin(
    data: Annotated[PinRequest, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Gives a staff member a PIN that no other active one of the merchant equals."""
    command = CreatePin(name=data.name, pin=data.pin, role=StaffRole(data.role), store_id=data.store_id)
    return await send(parts, caller, command, shown, key=key, location="/api/v1/store/loyalty/pins/{id}")


@patch(
    "/pins/{pin_id:uuid}", opt={"roles": MANAGERS, "decides": True}, responses=answers(StaffPin), summary="Change a PIN"
)
async def change_pin(
    pin_id: FromPath[UUID],
    data: Annotated[PinChange, Body()],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Changes what is given: name, digits, role, store."""
    command = ChangePin(
        staff_id=pin_id,
        name=data.name if isinstance(data.name, str) else None,
        pin=data.pin if isinstance(data.pin, str) else None,
        role=StaffRole(data.role) if isinstance(data.role, str) else None,
        changes_store=data.store_id is not msgspec.UNSET,
        store_id=data.store_id if isinstance(data.store_id, UUID) else None,
    )
    return await send(parts, caller, command, shown, key=key)


@delete(
    "/pins/{pin_id:uuid}",
    status_code=200,
    opt={"roles": MANAGERS, "decides": True},
    responses=answers(StaffPin),
    summary="Deactivate a PIN",
)
async def deactivate_pin(
    pin_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Ends a PIN; its digits are free for somebody else, its history stays."""
    return await send(parts, caller, OnPin(pin_id, DeactivateStaffPin()), shown, key=key)


@post(
    "/pins/{pin_id:uuid}/unlock",
    status_code=200,
    opt={"roles": MANAGERS, "decides": True},
    responses=answers(StaffPin),
    summary="Unlock a PIN",
)
async def unlock_pin(
    pin_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],
    key: NamedDependency[str | None],
) -> Response[bytes]:
    """Lets a PIN be tried again before its lock is over."""
    return await send(parts, caller, OnPin(pin_id, UnlockStaffPin()), shown, key=key)


@post(
    "/pins/verify",
    status_code=200,
    opt={"roles": STORE_SIDE, "decides": True},
    responses=answers(StaffPin),
    summary="Verify a PIN",
)
async def verify_pin(
    data: Annotated[VerifyRequest, Body()], parts: NamedDependency[Parts], caller: NamedDependency[Caller]
) -> Response[bytes]:
    """Whose PIN this is; a wrong one counts as it does with a command."""
    staff = StaffEntry(staff_id=data.staff_id, staff_pin=data.staff_pin)
    return await send(parts, caller, VerifyPin(staff), shown)


HANDLERS = [get_pin, list_pins, list_pin_uses, create_pin, change_pin, deactivate_pin, unlock_pin, verify_pin]
