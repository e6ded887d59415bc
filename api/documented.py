"""What the OpenAPI document says of every answer, beside the shape that the handler itself gives."""

from typing import Any

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIHeader, OpenAPIMediaType, OpenAPIResponse, Reference, Schema
from litestar.openapi.spec.enums import OpenAPIType

from schemas.access import Problem

POSITION = OpenAPIHeader(
    schema=Schema(type=OpenAPIType.INTEGER), description="Log position that the answer reflects", required=True
)
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

__all__ = ["POSITION", "OpenAPIMediaType", "OpenAPIResponse", "Reference", "answers"]


def answers(shape: type[Any], *, created: bool = False, description: str = "Done") -> dict[int, ResponseSpec]:
    """The answers of a route: its shape at 200 (and 201 where it creates), and problems for everything else."""
    shapes = {200: ResponseSpec(data_container=shape, description=description, generate_examples=False)}
    if created:
        shapes[201] = ResponseSpec(data_container=shape, description="Created", generate_examples=False)
    for status, meaning in SAID_BY_PROBLEMS.items():
        shapes[status] = ResponseSpec(
            data_container=Problem,
            description=meaning,
            generate_examples=False,
            media_type="application/problem+json",
        )
    return shapes
