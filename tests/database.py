"""Real servers for tests: one pair a session, and a database of its own for each test that asks for one."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from loyalty.embedded import EmbeddedServers, Servers
from migrations import migrate

TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Embedded PostgreSQL and Valkey on a folder that goes when the tests are over."""
    folder = Path(tempfile.mkdtemp(prefix="loyalty-tests-", dir="/tmp"))
    folder.chmod(0o755)
    embedded = EmbeddedServers(folder)
    urls = embedded.start()
    with psycopg.connect(urls.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate(named(urls, TEMPLATE))
    yield urls
    embedded.stop()
    shutil.rmtree(folder)


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    """A fresh database with all tables."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        yield named(servers, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def named(servers: Servers, name: str) -> str:
    """The connection string of another database on the same server."""
    return servers.database_url.replace("/loyalty?", f"/{name}?")
