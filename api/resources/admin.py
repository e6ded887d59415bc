"""What who runs the platform looks after."""

from typing import Any
from uuid import UUID

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from api.auth import ADMINS
from api.commands import answered, cursor_at, place_from, positioned
from api.days import FirstDay, LastDay, days_between
from api.documented import answers
from api.exports import CsvFormat
from api.parts import Parts
from api.resources import statistics
from api.resources.cards import Cursor, Limit, Position
from ledger.actor import Caller
from ledger.errors import Rejected
from ledger.merchant import Merchant as Tenant
from ledger.store import END_OF_LOG
from ledger.store.names import MERCHANT, PROGRAM
from projections import platform, programs, tenants
from projections.lag import lag
from projections.models import MODELS
from schemas.admin import (
    Merchant,
    MerchantPage,
    MerchantProgram,
    MerchantSettings,
    ProgramPage,
    Projections,
    StorePage,
    TerminalPage,
)
from schemas.statistics import PlatformStatistics, Statistics

ROLES: dict[str, Any] = {"roles": ADMINS}


@get("/projections", opt=ROLES, responses=answers(Projections), summary="How far the read models are")
async def list_projections(
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
    loyalty_position: Position = None,
) -> Response[bytes]:
    """Each read model with its lag behind the log, and what is being built anew; waits for none unless asked to."""
    if loyalty_position is not None:
        await positioned(parts, loyalty_position, *MODELS)
    found = await lag(parts.reader, MODELS, parts.clock.now())
    return answered(found, min(each.position for each in found.items))


# ---- programs ---------------------------------------------------------------------------------------------------


@get("/programs", opt=ROLES, responses=answers(ProgramPage), summary="Programs of all merchants, oldest first")
async def list_programs(
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The programs page by page, with whose they are and what they came to."""
    position = await positioned(parts, loyalty_position, programs.MODEL, *statistics.MODELS)
    log, now = parts.ledger.log, parts.clock.now()
    (after,) = place_from(cursor, END_OF_LOG) or (0,)
    items, following = await programs.page(parts.reader, log, after, limit, now)
    return answered(ProgramPage(items, cursor_at(following)), position)


@get("/programs/{program_id:uuid}", opt=ROLES, responses=answers(MerchantProgram), summary="A merchant's program")
async def get_merchant_program(
    program_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The whole program as it stands now, with whose it is."""
    position = await positioned(parts, loyalty_position)
    found = await programs.with_merchant(parts.ledger.log, program_id)
    if found is None:
        raise Rejected("program_not_found")
    return answered(found, position)


@get(
    "/programs/{program_id:uuid}/stats",
    opt=ROLES,
    responses=answers(Statistics),
    summary="A program's statistics",
)
async def get_program_statistics(
    program_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
    first_day: FirstDay = None,
    last_day: LastDay = None,
    file_format: CsvFormat = "json",
    loyalty_position: Position = None,
) -> Response[Any]:
    """The figures as the merchant's own managers see them."""
    days = days_between(first_day, last_day)
    position = await positioned(parts, loyalty_position, *statistics.MODELS)
    program = await parts.ledger.log.load(PROGRAM, program_id, fresh=True)
    if program is None:
        raise Rejected("program_not_found")
    return await statistics.told(parts, program.merchant_id, days, position, file_format=file_format)


@get(
    "/stats",
    opt=ROLES,
    responses=answers(PlatformStatistics),
    summary="Statistics of the whole platform",
)
async def get_platform_statistics(
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
    first_day: FirstDay = None,
    last_day: LastDay = None,
    file_format: CsvFormat = "json",
    loyalty_position: Position = None,
) -> Response[Any]:
    """The figures of all merchants together; each day is that of the store where something happened."""
    days = days_between(first_day, last_day)
    position = await positioned(parts, loyalty_position, platform.MODEL, programs.MODEL, *statistics.MODELS)
    found = await platform.of_all(parts.reader, *days, parts.clock.now())
    return await statistics.as_asked(found, file_format, position)


# ---- merchants --------------------------------------------------------------------------------------------------


@get("/merchants", opt=ROLES, responses=answers(MerchantPage), summary="Merchants, oldest first")
async def list_merchants(
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """Everyone who has cards on this platform, page by page."""
    position = await positioned(parts, loyalty_position, programs.MODEL)
    (after,) = place_from(cursor, END_OF_LOG) or (0,)
    items, following = await tenants.merchants(parts.reader, parts.ledger.log, after, limit)
    return answered(MerchantPage(items, cursor_at(following)), position)


@get("/merchants/{merchant_id:uuid}", opt=ROLES, responses=answers(Merchant), summary="A merchant")
async def get_merchant(
    merchant_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The merchant as it stands now."""
    position = await positioned(parts, loyalty_position, programs.MODEL)
    found = await tenants.merchants_shown(parts.reader, parts.ledger.log, [merchant_id])
    if not found:
        raise Rejected("merchant_not_found")
    return answered(found[0], position)


@get(
    "/merchants/{merchant_id:uuid}/settings",
    opt=ROLES,
    responses=answers(MerchantSettings),
    summary="A merchant's settings",
)
async def get_merchant_settings(
    merchant_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
    loyalty_position: Position = None,
) -> Response[bytes]:
    """What admins control, as it stands now."""
    position = await positioned(parts, loyalty_position)
    return answered(tenants.settings(await tenant(parts, merchant_id)), position)


@get(
    "/merchants/{merchant_id:uuid}/stores",
    opt=ROLES,
    responses=answers(StorePage),
    summary="A merchant's stores, oldest first",
)
async def list_stores(
    merchant_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The merchant's shops, page by page."""
    position = await positioned(parts, loyalty_position)
    (after,) = place_from(cursor, END_OF_LOG) or (0,)
    items, following = tenants.stores(await tenant(parts, merchant_id), after, limit)
    return answered(StorePage(items, cursor_at(following)), position)


@get(
    "/stores/{store_id:uuid}/terminals",
    opt=ROLES,
    responses=answers(TerminalPage),
    summary="A store's tills, oldest first",
)
async def list_terminals(
    store_id: FromPath[UUID],
    parts: NamedDependency[Parts],
    caller: NamedDependency[Caller],  # noqa: ARG001 whoever asks has to be one of those who may
    cursor: Cursor = None,
    limit: Limit = 50,
    loyalty_position: Position = None,
) -> Response[bytes]:
    """The store's tills, page by page, those out of service too."""
    position = await positioned(parts, loyalty_position, programs.MODEL)
    merchant = await tenants.merchant_of_store(parts.reader, store_id)
    if merchant is None:
        raise Rejected("store_not_found")
    (after,) = place_from(cursor, END_OF_LOG) or (0,)
    found = tenants.terminals(parts.ledger.log, merchant, store_id, after, limit)
    items, following = await found
    return answered(TerminalPage(items, cursor_at(following)), position)


async def tenant(parts: Parts, merchant_id: UUID) -> Tenant:
    """The merchant as of now, or `merchant_not_found`."""
    loaded = await parts.ledger.log.load(MERCHANT, merchant_id, fresh=True)
    if loaded is None:
        raise Rejected("merchant_not_found")
    return loaded.state


HANDLERS = [
    list_projections,
    list_programs,
    get_merchant_program,
    get_program_statistics,
    get_platform_statistics,
    list_merchants,
    get_merchant,
    get_merchant_settings,
    list_stores,
    list_terminals,
]
