"""The OpenAPI document: as it is checked in, and as what real answers are held against.

`python -m tests.openapi` writes it from the application.
"""

import asyncio
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from openapi_schema_validator import OAS31Validator, oas31_format_checker

from api.app import create_app
from api.documented import document
from api.parts import parts_from
from ledger.settings import Settings

CHECKED_IN = Path(__file__).parents[1] / "schemas" / "openapi.json"
NOT_DOCUMENTED = {404, 405}
"""What any address may answer, there or not."""

Operation = dict[str, Any]


def generated() -> dict[str, Any]:
    """The document of an application that need not run."""
    settings = Settings(
        database_url="postgresql:///unused", pepper="p" * 32, master_key="m" * 32, token_secret="t" * 32
    )

    async def described() -> dict[str, Any]:
        app = create_app(parts_from(settings))
        return document(app, app.openapi_schema.to_schema())

    return asyncio.run(described())


def text_of(openapi: dict[str, Any]) -> str:
    """The document as it is written to the file."""
    return json.dumps(openapi, indent=2, ensure_ascii=False) + "\n"


@cache
def checked_in() -> dict[str, Any]:
    """The document that clients are given."""
    loaded: dict[str, Any] = json.loads(CHECKED_IN.read_text(encoding="utf-8"))
    return loaded


@cache
def operations() -> list[tuple[str, str, Operation]]:
    """Every method and path with what is said of it."""
    return [
        (method.upper(), path, operation)
        for path, item in checked_in()["paths"].items()
        for method, operation in item.items()
    ]


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """What a reference within the document leads to, or the value itself."""
    while "$ref" in value:
        target: Any = checked_in()
        for step in value["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        value = target
    return value


def operation_of(method: str, path: str) -> Operation | None:
    """What the document says of a request, None where it says nothing; exact paths before those with parameters."""
    return next(
        (operation for known, pattern, operation in addresses() if known == method and pattern.fullmatch(path)), None
    )


@cache
def addresses() -> list[tuple[str, re.Pattern[str], Operation]]:
    """Every method and the pattern of its path, exact paths first."""
    return [
        (method, re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))), operation)
        for method, template, operation in sorted(operations(), key=lambda known: known[1].count("{"))
    ]


@cache
def validator(name: str) -> OAS31Validator:
    """Checks answers of a shape; what is answered beyond what is documented is an error too."""
    components = json.loads(json.dumps(checked_in()["components"]))
    for schema_name, schema in components["schemas"].items():
        if schema_name != "Problem":
            schema.setdefault("additionalProperties", False)
    whole = {"$ref": f"#/components/schemas/{name}", "components": components}
    return OAS31Validator(whole, format_checker=oas31_format_checker)


def undocumented(response: httpx.Response) -> list[str]:
    """In what an answer differs from what the document promises."""
    request = response.request
    operation = operation_of(request.method, request.url.path)
    if operation is None:
        return []
    promised = operation["responses"].get(str(response.status_code))
    if promised is None:
        known = response.status_code in NOT_DOCUMENTED
        return [] if known else [f"{operation['operationId']} answers {response.status_code}"]
    promised = resolved(promised)
    media_type = response.headers.get("content-type", "").partition(";")[0]
    if media_type not in promised["content"]:
        return [f"{operation['operationId']} answers {response.status_code} as {media_type}"]
    missing = [
        f"{operation['operationId']} answers {response.status_code} without {name}"
        for name, header in promised.get("headers", {}).items()
        if header.get("required") and name not in response.headers
    ]
    reference = promised["content"][media_type]["schema"].get("$ref")
    if reference is None:
        return missing
    errors = validator(reference.rpartition("/")[2]).iter_errors(response.json())
    return missing + [f"{operation['operationId']}: {error.json_path} {error.message}" for error in errors]


if __name__ == "__main__":
    CHECKED_IN.write_text(text_of(generated()), encoding="utf-8")
