"""The OpenAPI document: what litestar makes of the handlers, completed with what they have in common.

Roles, keys, headers and shapes are taken from where the service itself takes them, so that none can be forgotten.
"""

from typing import Any, get_args

import msgspec
from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.routes import HTTPRoute

from api.problems import KINDS, MEDIA_TYPE
from schemas.access import Problem

FILES = {"jsonl": "application/x-ndjson", "csv": "text/csv"}
"""What a list is as a file, by what is asked for as its `format`."""

REFERENCE = "#/components/schemas/{name}"
SAID_BY_PROBLEMS = {
    400: "The request is not as documented",
    401: "No good credentials",
    403: "Not allowed, or a wrong PIN",
    404: "No such thing in this merchant",
    408: "The body was too slow",
    409: "A rule refuses",
    410: "The customer was erased",
    413: "The body is too large",
    422: "The idempotency key was used for another request",
    423: "PIN entry is locked",
    503: "Not available now; try again with the same key",
}
POSITION = {
    "description": "Log position that the answer reflects",
    "required": True,
    "schema": {"type": "integer", "minimum": 0},
}
REPLAYED = {
    "description": "Present where this is the first answer again",
    "schema": {"type": "string", "const": "true"},
}
LOCATION = {
    "description": "Where the new resource is",
    "required": True,
    "schema": {"type": "string", "format": "uri-reference"},
}
RETRY_AFTER = {"description": "Seconds after which it is worth trying again", "schema": {"type": "integer"}}


def answers(shape: Any, *, created: bool = False) -> dict[int, ResponseSpec]:
    """The good answer of a route: its shape at 200, or at 201 where it creates."""
    return {201: answer(shape, "Created")} if created else {200: answer(shape)}


def answer(shape: Any, description: str = "Done", media_type: str = "application/json") -> ResponseSpec:
    """One answer of a route."""
    return ResponseSpec(data_container=shape, description=description, media_type=media_type, generate_examples=False)


class OpenApiJson(JsonRenderPlugin):
    """Serves the completed document."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document, made from the handlers that the application has."""
        return msgspec.json.encode(document(request.app, openapi_schema))


def document(app: Litestar, described: dict[str, Any]) -> dict[str, Any]:
    """The whole document, from what litestar describes."""
    paths: dict[str, dict[str, Any]] = {}
    shapes: set[type[Any]] = {Problem}
    for route in app.routes:
        item = described["paths"].get(route.path_format)
        if not isinstance(route, HTTPRoute) or item is None:
            continue
        for method, (handler, _) in route.route_handler_map.items():
            if method.lower() in item:
                paths.setdefault(route.path_format, {})[method.lower()] = completed(item[method.lower()], handler)
                shapes |= shapes_of(handler)
    return {
        **described,
        "paths": {path: dict(sorted(paths[path].items())) for path in sorted(paths)},
        "components": {
            **described["components"],
            "responses": {str(status): refusal(status) for status in SAID_BY_PROBLEMS},
            "schemas": schemas_of(shapes),
        },
    }


def completed(described: dict[str, Any], handler: HTTPRouteHandler) -> dict[str, Any]:
    """An operation with who may call it, its headers, and its refusals."""
    roles = [str(role) for role in handler.opt.get("roles", ())]
    parameters = [
        without_null(parameter) | ({"required": True} if needed(parameter, handler) else {})
        for parameter in described.get("parameters", ())
    ]
    keyed = any(parameter["name"] == "Idempotency-Key" for parameter in parameters)
    responses = {status: described["responses"][status] for status in map(str, sorted(own_answers(handler)))}
    for status in ("200", "201"):
        if roles and status in responses:
            headers: dict[str, Any] = {"Loyalty-Position": POSITION}
            headers |= {"Idempotency-Replayed": REPLAYED} if keyed else {}
            headers |= {"Location": LOCATION} if status == "201" else {}
            responses[status] = {**responses[status], "headers": headers}
    formats = [
        form for parameter in parameters if parameter["name"] == "format" for form in parameter["schema"]["enum"]
    ]
    if formats:
        files = {media_type: {"schema": {"type": "string"}} for form, media_type in FILES.items() if form in formats}
        responses["200"] = {**responses["200"], "content": {**responses["200"]["content"], **files}}
    for code in refusals_of(handler, bool(roles), keyed):
        responses.setdefault(str(code), {"$ref": f"#/components/responses/{code}"})
    who = f"For: {', '.join(roles)}." if roles else "For anyone."
    operation = {
        **described,
        "description": f"{described.get('description', '')}\n\n{who}".strip(),
        "parameters": parameters,
        "responses": dict(sorted(responses.items())),
        "security": described.get("security") or ([{"bearer": []}] if roles else []),
        "x-roles": roles or ["anyone"],
    }
    return operation if parameters else {name: value for name, value in operation.items() if name != "parameters"}


def needed(parameter: dict[str, Any], handler: HTTPRouteHandler) -> bool:
    """Whether a route refuses to do without a parameter, though it is read as one that may be absent."""
    return parameter["name"] == "Idempotency-Key" and bool(handler.opt.get("needs_key"))


def without_null(parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter as it is sent: absent it may be, null it cannot."""
    schema = dict(parameter["schema"])
    kinds = [kind for kind in schema.pop("oneOf", ()) if kind != {"type": "null"}]
    for kind in kinds:
        schema |= kind
    schema.pop("description", None)
    return {**parameter, "schema": portable(schema)}


def own_answers(handler: HTTPRouteHandler) -> set[int]:
    """The statuses of a route's own answers."""
    return set(handler.responses or ()) or {handler.status_code}


def refusals_of(handler: HTTPRouteHandler, credited: bool, keyed: bool) -> list[int]:
    """The statuses of the problems that a route can answer."""
    body = body_of(handler)
    if not credited and body is None:
        return list(handler.opt.get("refuses", ()))
    statuses = {400, 401, 503}
    statuses |= {403, 404} if credited else set()
    statuses |= {409, 410, 422} if keyed else set()
    statuses |= {409, 410} if handler.opt.get("foretells") else set()
    if body is not None:
        statuses |= {408, 413}
        statuses |= {423} if "staff_pin" in body.__struct_fields__ else set()
    return sorted(statuses)


def refusal(status: int) -> dict[str, Any]:
    """The answer of a status that says no."""
    said: dict[str, Any] = {
        "description": SAID_BY_PROBLEMS[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(name="Problem")}}},
    }
    return {**said, "headers": {"Retry-After": RETRY_AFTER}} if status == 503 else said


def body_of(handler: HTTPRouteHandler) -> type[msgspec.Struct] | None:
    """The shape of the body that a route takes."""
    field = handler.parsed_fn_signature.parameters.get("data")
    return field.annotation if field is not None else None


def shapes_of(handler: HTTPRouteHandler) -> set[type[Any]]:
    """Every shape that a route takes or answers."""
    body = body_of(handler)
    shapes: set[Any] = {answer.data_container for answer in (handler.responses or {}).values()}
    each = {kind for shape in shapes | {body} for kind in get_args(shape) or (shape,)}
    return {shape for shape in each if shape is not None and shape is not str}


def schemas_of(shapes: set[type[Any]]) -> dict[str, Any]:
    """JSON Schemas of the shapes and of what they are made of, by msgspec itself: the document says what it checks."""
    _, components = msgspec.json.schema_components(
        sorted(shapes, key=lambda shape: shape.__name__), ref_template=REFERENCE
    )
    for schema in components.values():
        if "additionalProperties" not in schema:
            # Answers are whole: what has a default in the code is there nevertheless.
            schema["required"] = list(schema["properties"])
    components["Problem"]["properties"]["code"]["enum"] = sorted(KINDS)
    patterned: dict[str, Any] = portable(components)
    return dict(sorted(patterned.items()))


def portable(schema: Any) -> Any:
    r"""The same schema with patterns in the dialect of JSON Schema (ECMA-262), where `$` ends the text as `\Z` does."""
    if isinstance(schema, dict):
        return {
            name: value.replace(r"\Z", "$") if name == "pattern" and isinstance(value, str) else portable(value)
            for name, value in schema.items()
        }
    return [portable(value) for value in schema] if isinstance(schema, list) else schema
