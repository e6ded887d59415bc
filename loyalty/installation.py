"""This installation: its settings with everything filled in that may be left out in development."""

import json
import os
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from ledger.entropy import SystemEntropy
from ledger.settings import PRODUCTION, BadSettings, Settings, settings_from
from loyalty.embedded import default_data_dir, find

SECRETS = ("pepper", "master_key", "token_secret")
SECRET_BYTES = 32


def installation() -> Settings:
    """The settings with a data folder and, outside production, secrets made up once and kept in it.

    Ends the command with one message that names every bad variable.
    """
    try:
        settings = settings_from()
    except BadSettings as error:
        raise click.ClickException(f"These settings cannot be used:\n{error}") from None
    folder = settings.data_dir or default_data_dir(os.getuid(), Path.home(), state_home())
    settings = msgspec.structs.replace(settings, data_dir=folder)
    if settings.environment == PRODUCTION:
        return settings
    return with_secrets(settings, folder)


def state_home() -> Path | None:
    """The XDG state folder, where one is named."""
    named = os.environ.get("XDG_STATE_HOME")
    return Path(named) if named else None


def with_secrets(settings: Settings, folder: Path) -> Settings:
    """Fills in the secrets that are not set, from `secrets.json` in the data folder."""
    missing = [name for name in SECRETS if getattr(settings, name) is None]
    if not missing:
        return settings
    try:
        kept = kept_secrets(folder / "secrets.json")
    except OSError as error:
        raise click.ClickException(
            f"The data folder {folder} cannot be used: {error.strerror}. "
            "Start the service as the user who owns it, or set LOYALTY_DATA_DIR to another folder."
        ) from None
    return msgspec.structs.replace(settings, **{name: kept[name] for name in missing})


def kept_secrets(path: Path) -> dict[str, str]:
    """The installation's own secrets, made on first use and readable by nobody else.

    Losing this file loses every PIN and all personal data: it belongs into backups, apart from the database's.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        entropy = SystemEntropy()
        secrets = {name: entropy.token(SECRET_BYTES).hex() for name in SECRETS}
        draft = path.with_suffix(f".{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(secrets, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        finally:
            draft.unlink()
    loaded: dict[str, str] = json.loads(path.read_text())
    return loaded


def running(settings: Settings) -> Settings:
    """The settings with the servers that run, for commands that work beside `loyalty up`."""
    if settings.database_url is not None:
        return settings
    assert settings.data_dir is not None, "an installation has a data folder"
    servers = find(settings.data_dir)
    if servers is None:
        raise click.ClickException(
            f"No servers run on {settings.data_dir}. Start `loyalty up`, or set LOYALTY_DATABASE_URL."
        )
    redis_url = settings.redis_url or servers.redis_url
    return msgspec.structs.replace(settings, database_url=servers.database_url, redis_url=redis_url)


def database_of(settings: Settings) -> str:
    """The connection string, once it is known."""
    assert settings.database_url is not None, "the servers were found or set"
    return settings.database_url
