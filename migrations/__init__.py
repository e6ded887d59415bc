"""Forward-only migrations: numbered SQL files beside this module, each applied once, in one transaction."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import psycopg

FOLDER = Path(__file__).parent
LOCK = 7310868725460103214


class MigrationError(Exception):
    """The database and this release do not belong together; the message says why."""


@dataclass(frozen=True)
class Migration:
    """One SQL file; its checksum is kept with it, so that an applied file that was edited is found out."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Every migration of this release, oldest first."""
    return [Migration(path.stem, path.read_text()) for path in sorted(FOLDER.glob("[0-9]*.sql"))]


def migrate(database_url: str) -> list[str]:
    """Applies what is missing and returns its names. Several processes may call it at once: one works, all wait.

    Raises `MigrationError` where an applied file was edited since, the database is newer than this release, or it
    cannot be reached.
    """
    try:
        return apply(database_url)
    except psycopg.OperationalError as error:
        raise MigrationError(f"The database cannot be reached: {error}") from None


def missing(database_url: str) -> list[str]:
    """The names of what this release would apply; raises as `migrate` does."""
    try:
        with psycopg.connect(database_url, autocommit=True) as connection:
            begun = connection.execute("SELECT to_regclass('migrations') IS NOT NULL").fetchone()
            rows = connection.execute("SELECT name, checksum FROM migrations").fetchall() if begun == (True,) else []
    except psycopg.OperationalError as error:
        raise MigrationError(f"The database cannot be reached: {error}") from None
    applied: dict[str, str] = dict(rows)
    refuse_strangers(applied, migrations())
    return [migration.name for migration in migrations() if migration.name not in applied]


def apply(database_url: str) -> list[str]:
    """Applies what is missing, as `migrate` says."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        applied: dict[str, str] = dict(connection.execute("SELECT name, checksum FROM migrations").fetchall())
        known = migrations()
        refuse_strangers(applied, known)
        missing = [migration for migration in known if migration.name not in applied]
        for migration in missing:
            with connection.transaction():
                connection.execute(migration.sql.encode())
                connection.execute(
                    "INSERT INTO migrations (name, checksum) VALUES (%s, %s)",
                    (migration.name, migration.checksum),
                )
        return [migration.name for migration in missing]


def refuse_strangers(applied: dict[str, str], known: list[Migration]) -> None:
    """Raises `MigrationError` for an applied migration that this release lacks or has otherwise."""
    checksums = {migration.name: migration.checksum for migration in known}
    for name, checksum in applied.items():
        if name not in checksums:
            raise MigrationError(f"The database has migration {name}, which this release does not know.")
        if checksums[name] != checksum:
            raise MigrationError(f"Migration {name} was edited after it had been applied.")
