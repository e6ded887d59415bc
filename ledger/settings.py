"""LOYALTY_* to one frozen Settings: the only reader of those variables."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

PREFIX = "LOYALTY_"
SECRET_BYTES_MIN = 32
PRODUCTION: Final = "production"
BCRYPT_ROUNDS_PRODUCTION_MIN = 10
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (who listens on every address is reached on this one)

Secret = Annotated[str, Meta(min_length=SECRET_BYTES_MIN)]


class BadSettings(Exception):
    """Some variables cannot be used; the message names all of them, a line each, and never their values."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How this installation runs. The environment variable of a field is its name in capitals after `LOYALTY_`."""

    environment: Annotated[
        Literal["development", "production"],
        Meta(description="`production` refuses embedded servers and generated secrets."),
    ] = "development"
    data_dir: Annotated[
        Path | None, Meta(description="Folder of embedded servers and generated secrets; has a default per user.")
    ] = None
    database_url: Annotated[
        str | None, Meta(description="PostgreSQL connection string; unset: embedded PostgreSQL.")
    ] = None
    redis_url: Annotated[str | None, Meta(description="Redis or Valkey URL; unset: embedded Valkey.")] = None
    host: Annotated[str, Meta(description="Address that the API listens on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port that the API listens on.")] = 8000
    workers: Annotated[int, Meta(ge=1, le=64, description="API processes.")] = 1
    public_base_url: Annotated[
        str | None, Meta(description="Address under which the outside reaches the API; unset: host and port.")
    ] = None
    pepper: Annotated[
        Secret | None, Meta(description="Hides PINs and names in claims; 32 characters or more. Can never be changed.")
    ] = None
    master_key: Annotated[
        Secret | None, Meta(description="Wraps the keys of personal data; 32 characters or more.")
    ] = None
    token_secret: Annotated[Secret | None, Meta(description="Signs access tokens; 32 characters or more.")] = None
    token_minutes: Annotated[int, Meta(ge=1, le=1_440, description="How long an access token is good.")] = 60
    bcrypt_rounds: Annotated[int, Meta(ge=4, le=16, description="Cost of PIN and password hashes.")] = 10
    body_bytes_max: Annotated[int, Meta(ge=1_024, le=1_048_576, description="Largest request body.")] = 65_536
    body_seconds_max: Annotated[int, Meta(ge=1, le=60, description="How long a request body may take to arrive.")] = 10
    default_cooldown_minutes: Annotated[
        int, Meta(ge=0, le=10_080, description="Cooldown of a new program that names none.")
    ] = 15
    max_daily_stamps: Annotated[
        int, Meta(ge=1, le=1_000, description="Daily stamps of a new program that names none.")
    ] = 5
    pin_max_failed_attempts: Annotated[
        int, Meta(ge=1, le=100, description="Wrong PINs that lock, for a new merchant.")
    ] = 5
    pin_lockout_minutes: Annotated[
        int, Meta(ge=1, le=10_080, description="How long a lock lasts, for a new merchant.")
    ] = 30
    default_points_per_euro: Annotated[
        int, Meta(ge=0, le=100_000, description="Points per unit of currency of a new program that names none.")
    ] = 10

    @property
    def base_url(self) -> str:
        """Where the API is reached: as configured, or on this machine."""
        if self.public_base_url is not None:
            return self.public_base_url.rstrip("/")
        host = LOOPBACK.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def settings_from(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads and checks all variables; an empty one counts as unset.

    Raises `BadSettings` with every bad variable in it, misspelt ones included.
    """
    given = os.environ if environ is None else environ
    ours = {name.removeprefix(PREFIX).lower(): value for name, value in given.items() if name.startswith(PREFIX)}
    fields = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    values: dict[str, Any] = {}
    bad = [f"{PREFIX}{name.upper()}: there is no such setting" for name in ours if name not in fields]
    for name, value in ours.items():
        if name in fields and value:
            try:
                values[name] = msgspec.convert(value, fields[name], strict=False, dec_hook=decode_path)
            except msgspec.ValidationError as error:
                bad.append(f"{PREFIX}{name.upper()}: {error}")
    settings = Settings(**values)
    if settings.environment == PRODUCTION:
        named = {line.partition(":")[0] for line in bad}
        bad += [line for line in refused_in_production(settings) if line.partition(":")[0] not in named]
    if bad:
        raise BadSettings("\n".join(sorted(bad)))
    return settings


def decode_path(kind: type, value: object) -> object:
    """Paths come as text."""
    return kind(value)


def refused_in_production(settings: Settings) -> list[str]:
    """What must be set, or set better, before production is named."""
    needed = ("database_url", "redis_url", "public_base_url", "pepper", "master_key", "token_secret")
    bad = [f"{PREFIX}{name.upper()}: must be set in production" for name in needed if not getattr(settings, name)]
    if settings.bcrypt_rounds < BCRYPT_ROUNDS_PRODUCTION_MIN:
        bad.append(f"{PREFIX}BCRYPT_ROUNDS: must be at least {BCRYPT_ROUNDS_PRODUCTION_MIN} in production")
    return bad
