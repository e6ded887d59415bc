"""The composition root of the API: its parts in, an ASGI application out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from litestar import Litestar, Response, Router, get
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, Reference, SecurityScheme
from litestar.static_files import create_static_files_router

from api import problems
from api.auth import provide_caller
from api.commands import provide_key
from api.documented import OpenApiJson
from api.limits import AnswerTimeLimit, JsonRequest
from api.parts import Parts
from api.resources import (
    access,
    admin,
    audit,
    cards,
    corrections,
    pins,
    previews,
    programs,
    statistics,
    storefront,
    till,
)
from ledger.errors import Rejected, Unavailable

STATIC = Path(__file__).parent / "static"


def create_app(parts: Parts) -> Litestar:
    """The API over these parts; it opens the log when it starts and closes it when it stops."""

    @asynccontextmanager
    async def open_log(_: Litestar) -> AsyncIterator[None]:
        await parts.ledger.open()
        await parts.reader.open()
        try:
            yield
        finally:
            await parts.reader.close()
            await parts.ledger.close()

    store_side = Router(
        "/api/v1/store/loyalty",
        route_handlers=[
            *till.HANDLERS,
            *corrections.HANDLERS,
            *previews.HANDLERS,
            *cards.HANDLERS,
            *programs.HANDLERS,
            *pins.HANDLERS,
            *statistics.HANDLERS,
        ],
        dependencies={"caller": Provide(provide_caller), "key": Provide(provide_key)},
        tags=["store"],
    )
    auditors_side = Router(
        "/api/v1/audit/loyalty",
        route_handlers=[*audit.HANDLERS],
        dependencies={"caller": Provide(provide_caller), "key": Provide(provide_key)},
        tags=["audit"],
    )
    admins_side = Router(
        "/api/v1/admin/loyalty",
        route_handlers=[*admin.HANDLERS],
        dependencies={"caller": Provide(provide_caller), "key": Provide(provide_key)},
        tags=["admin"],
    )
    return Litestar(
        route_handlers=[
            store_side,
            auditors_side,
            admins_side,
            *access.HANDLERS,
            *storefront.HANDLERS,
            docs,
            create_static_files_router("/static", directories=[STATIC], include_in_schema=False),
        ],
        dependencies={"parts": Provide(lambda: parts, sync_to_thread=False, use_cache=True)},
        exception_handlers={
            Rejected: problems.on_rejected,
            Unavailable: problems.on_unavailable,
            HTTPException: problems.on_http_exception,
            Exception: problems.on_defect,
        },
        lifespan=[open_log],
        request_class=JsonRequest,
        middleware=[AnswerTimeLimit()],
        request_max_body_size=None,
        logging_config=None,
        openapi_config=openapi(),
        state=State({"base_url": parts.base_url, "settings": parts.settings}),
        debug=False,
    )


def openapi() -> OpenAPIConfig:
    """The document at /schema/openapi.json."""
    schemes: dict[str, SecurityScheme | Reference] = {
        "bearer": SecurityScheme(type="http", scheme="bearer", description="A terminal key or an access token"),
        "card_link": SecurityScheme(
            type="apiKey", name="link", security_scheme_in="query", description="A customer's card link"
        ),
    }
    return OpenAPIConfig(
        title="Loyalty Ledger",
        version="1",
        path="/schema",
        render_plugins=[OpenApiJson(path="/openapi.json")],
        components=Components(security_schemes=schemes),
        operation_id_creator=lambda handler, _method, _path: handler.handler_name,
        use_handler_docstrings=True,
    )


@get("/docs", include_in_schema=False, media_type="text/html")
async def docs() -> Response[str]:
    """The API's documentation to try things in, from this server alone."""
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Loyalty Ledger API</title>'
        '<link rel="stylesheet" href="/static/vendor/swagger-ui/swagger-ui.css"><div id="docs"></div>'
        '<script src="/static/vendor/swagger-ui/swagger-ui-bundle.js"></script>'
        '<script src="/static/docs.js"></script></html>'
    )
    return Response(page, media_type="text/html")
