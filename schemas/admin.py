"""What who runs the platform reads of it."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Status = Annotated[
    Literal["current", "building", "of_another_release"],
    Meta(
        description="`current`: its tables are this release's; `building`: they are not there yet; "
        "`of_another_release`: a newer release put its own in their place."
    ),
]


class Rebuilding(Struct, frozen=True):
    """Tables that are built from the log beside those that are read, how far they are and how far the log is."""

    position: int
    of: int


class Projection(Struct, frozen=True, kw_only=True):
    """A read model: how far its tables tell the log, and whose they are."""

    name: str
    position: int
    lag_events: Annotated[int, Meta(description="How many events of the log it has not applied yet")]
    lag_seconds: Annotated[
        float, Meta(ge=0, description="How long ago the oldest event that it has not applied yet was recorded; 0: none")
    ]
    status: Status
    rebuilding: Rebuilding | None


class Projections(Struct, frozen=True):
    """All read models, and how far the log is that they tell."""

    head: int
    items: list[Projection]
