"""Real API processes to test with, over HTTP, and shops on the database that they serve."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import IO, Any, TypeVar
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from api.parts import Parts, parts_from
from api.tokens import Identity
from ledger.actor import PLATFORM, Caller, Role
from ledger.commands import Command, OpenAccount
from ledger.entry import Handled
from ledger.settings import Settings
from loyalty.cli import environment_of
from loyalty.embedded import Servers
from projections.models import MODELS
from tests.database import TEMPLATE, named
from tests.openapi import undocumented
from tests.shop import PIN, Shop, open_shop

STORE = "/api/v1/store/loyalty"
OWN_CARD = "/api/v1/storefront/loyalty/card"
PASSWORD = "correct horse battery staple"
SECRETS: dict[str, Any] = {"bcrypt_rounds": 4, "pepper": "p" * 32, "master_key": "m" * 32, "token_secret": "t" * 32}
STANDARD = {"type", "title", "status", "detail", "code"}
STOP_SECONDS_MAX = 30
KEEP_ALIVE_SECONDS = 2

T = TypeVar("T")


@dataclass
class Seen:
    """The newest position that anybody was told of."""

    position: int = 0

    def at(self, position: int) -> None:
        """Notes a position."""
        self.position = max(self.position, position)


@dataclass(frozen=True)
class Client:
    """Somebody who calls the API: with a till's key, an account's token, or nothing."""

    http: httpx.Client
    credential: str | None = None
    store_code: str | None = None
    seen: "Seen" = field(default_factory=Seen)

    def send(self, method: str, path: str, *, key: str | None = None, **options: Any) -> httpx.Response:
        """Any request; a path without a leading slash is one of the store's side.

        What is read shows what was written before, by whoever shares what was seen. Whatever is answered must be as the
        OpenAPI document says.
        """
        headers = dict(options.pop("headers", {}))
        if self.credential is not None:
            headers.setdefault("Authorization", f"Bearer {self.credential}")
        if self.store_code is not None:
            headers.setdefault("Loyalty-Store", self.store_code)
        if key is not None:
            headers["Idempotency-Key"] = key
        if method == "GET":
            headers.setdefault("Loyalty-Position", str(self.seen.position))
        url = path if path.startswith("/") else f"{STORE}/{path}"
        response = self.http.request(method, url, headers=headers, **options)
        assert undocumented(response) == []
        self.seen.at(int(response.headers.get("Loyalty-Position", 0)))
        return response

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Reads."""
        return self.send("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """Sends a command without a key, unless one is given."""
        return self.send("POST", path, json=body, **options)

    def patch(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """Changes something."""
        return self.send("PATCH", path, json=body, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        """Ends something."""
        return self.send("DELETE", path, **options)

    def command(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """Sends a command under a key of its own."""
        return self.post(path, body, **{"key": str(uuid4()), **options})


@dataclass
class Served:
    """An API process, and the ledger on the same database with the same secrets."""

    base_url: str
    settings: Settings
    http: httpx.Client
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    parts: Parts
    runner: asyncio.Runner
    seen: Seen = field(default_factory=Seen)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Does something with the ledger itself."""
        return self.runner.run(work)

    def handle(self, command: Command, caller: Caller) -> Handled:
        """Sends a command through the door, past HTTP."""
        handled = self.run(self.parts.ledger.handle(command, caller))
        self.seen.at(handled.position)
        return handled

    def client(self, credential: str | None = None) -> Client:
        """Somebody with that credential."""
        return Client(self.http, credential, seen=self.seen)

    def account(self, role: Role, merchant_id: UUID) -> Client:
        """Somebody with a token of an account of their own."""
        caller = Caller(role=Role.OPERATOR, id=UUID(int=1), merchant_id=merchant_id)
        email = f"{uuid4().hex}@shop.example"
        opened = self.handle(OpenAccount(email=email, password=PASSWORD, role=role), caller)
        assert opened.result is not None
        identity = Identity(role=role, merchant_id=merchant_id, account_id=opened.result.main.stream)
        return self.client(self.token(identity))

    def token(self, identity: Identity, *, minutes_ago: int = 0) -> str:
        """An access token, issued now or earlier."""
        return self.parts.tokens.issue(identity, self.parts.clock.now() - timedelta(minutes=minutes_ago))

    def shop(self, **options: Any) -> "ServedShop":
        """A merchant of its own, with all that a till needs."""
        shop = self.run(open_shop(self.parts.ledger, self.parts.clock, **options))
        manager = self.account(Role.MANAGER, shop.merchant.merchant_id)
        return ServedShop(self, shop, self.client(shop.terminal_key), manager)

    def errors(self) -> str:
        """What the process wrote of defects and warnings."""
        self.said.seek(0)
        return self.said.read().decode()


@dataclass
class ServedShop:
    """A merchant as its till and its manager reach it over HTTP."""

    served: Served
    shop: Shop
    till: Client
    manager: Client
    roles: dict[Role, Client] = field(default_factory=dict)

    @property
    def merchant_id(self) -> UUID:
        """Whose shop it is."""
        return self.shop.merchant.merchant_id

    def enrol(self, customer_id: str | None = None) -> dict[str, Any]:
        """A new card, as it was answered."""
        response = self.till.post("cards/enroll", {"customer_id": customer_id or uuid4().hex})
        assert response.status_code == 201, response.text
        return answer_of(response)

    def earn(self, card: Mapping[str, Any], cents: int, **more: Any) -> dict[str, Any]:
        """A purchase, as it was answered."""
        body = {"card_id": card["id"], "staff_pin": PIN, "purchase_amount_cents": cents, **more}
        response = self.till.command("points", body)
        assert response.status_code == 200, response.text
        return answer_of(response)

    def stamp(self, card: Mapping[str, Any]) -> httpx.Response:
        """A stamp, however it was answered."""
        return self.till.command("stamp", {"card_id": card["id"], "staff_pin": PIN})

    def customer(self, customer_id: str) -> Client:
        """The customer with that reference, signed in by the shop."""
        identity = Identity(role=Role.CUSTOMER, merchant_id=self.merchant_id, customer_id=customer_id)
        return self.served.client(self.served.token(identity))

    def card_link(self, customer_id: str) -> str:
        """What stands in a customer's card link."""
        identity = Identity(role=Role.CUSTOMER, merchant_id=self.merchant_id, customer_id=customer_id)
        return self.served.parts.tokens.issue_card_link(identity, self.served.parts.clock.now())

    def caller(self, role: Role | None) -> Client:
        """Somebody of that role and of this merchant, as far as the role has one; None is nobody."""
        if role is None:
            return self.served.client()
        if role not in self.roles:
            self.roles |= {Role.TERMINAL: self.till, Role.MANAGER: self.manager}
            self.roles[Role.CUSTOMER] = self.customer("C-1")
            self.roles[Role.ADMIN] = self.served.account(Role.ADMIN, PLATFORM)
            self.roles[Role.AUDITOR] = self.served.account(Role.AUDITOR, self.merchant_id)
        return self.roles[role]


def answer_of(response: httpx.Response) -> dict[str, Any]:
    """A body that is a JSON object."""
    body = response.json()
    assert isinstance(body, dict)
    return body


def refusal(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The facts of a refusal, once it is seen to be a whole problem body with that status and code."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = answer_of(response)
    assert (response.status_code, body.get("code")) == (status, code), body
    assert body.keys() >= STANDARD
    assert body["status"] == status
    assert body["type"].endswith(f"/problems/{code}")
    assert all(isinstance(body[member], str) and body[member] for member in ("type", "title", "detail"))
    return {name: value for name, value in body.items() if name not in STANDARD}


@contextmanager
def serving(database_url: str, **settings: Any) -> Iterator[Served]:
    """An API process on that database, with a feed and a ledger beside it; other settings as they are given.

    It listens before it is started, so that the first request waits for it. It must have nothing to say when it ends.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        host, port = listener.getsockname()
        configured = Settings(database_url=database_url, host=host, port=port, **{**SECRETS, **settings})
        said = stack.enter_context(tempfile.TemporaryFile())
        environment = {**environment_of(configured), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

        def started(*arguments: str) -> subprocess.Popen[bytes]:
            child = subprocess.Popen(
                [sys.executable, "-m", "loyalty", *arguments],
                cwd=Path(__file__).parents[1],
                env=environment,
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
            )
            stack.callback(stop, child)
            return child

        process = started("serve", "--fd", str(listener.fileno()))
        started("project", "--beside")
        listener.close()
        base_url = f"http://{host}:{port}"
        http = stack.enter_context(client_of(base_url))
        assert http.get("/health/ready").status_code == 200
        wait_until_built(database_url)
        runner = stack.enter_context(asyncio.Runner())
        parts = parts_from(configured)
        runner.run(parts.ledger.log.open())
        stack.callback(lambda: runner.run(parts.ledger.log.close()))
        stack.callback(parts.ledger.secrecy.close)
        yield Served(base_url, configured, http, process, said, parts, runner)


def wait_until_built(database_url: str) -> None:
    """Returns once every read model is in place; until then lists are answered 503."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        while connection.execute("SELECT count(*) FROM projections.checkpoints").fetchone() != (len(MODELS),):
            sleep(0.05)


def client_of(base_url: str) -> httpx.Client:
    """A client that lets idle connections go before the server does, so that no request meets their end."""
    limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS)
    return httpx.Client(base_url=base_url, timeout=30, limits=limits, verify=False, trust_env=False)  # noqa: S501 plain HTTP within this machine


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process as its supervisor would."""
    with process:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        finally:
            process.kill()


@contextmanager
def fresh_database(servers: Servers) -> Iterator[str]:
    """A database with all tables, for as long as a block takes."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        try:
            yield named(servers, name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def served(servers: Servers) -> Iterator[Served]:
    """One API process for all tests that leave it running; they keep apart by opening shops of their own."""
    with fresh_database(servers) as database_url, serving(database_url) as running:
        yield running
        assert running.errors() == ""


@pytest.fixture(scope="session")
def served_twice(servers: Servers) -> Iterator[tuple[Served, Served]]:
    """Two API processes over one database."""
    with fresh_database(servers) as database_url, serving(database_url) as here, serving(database_url) as there:
        there.seen = here.seen
        yield here, there
        assert here.errors() + there.errors() == ""


@pytest.fixture
def shop(served: Served) -> ServedShop:
    """A merchant of the test's own."""
    return served.shop()
