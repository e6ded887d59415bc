"""PostgreSQL gone or stuck: 503 with Retry-After in time, never a defect or a hang, and well again by itself."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, perf_counter
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from ledger.errors import Unavailable
from loyalty.embedded import Servers
from tests.database import named
from tests.served import OWN_CARD, STORE, Served, ServedShop, answer_of, fresh_database, refusal, serving
from tests.shop import PIN

ANSWER_SECONDS_MAX = 3.0
HEALTHY_SECONDS_MAX = 0.5
WELL_AGAIN_SECONDS_MAX = 10.0
TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def database_url(servers: Servers) -> Iterator[str]:
    """A database that only these tests break."""
    with fresh_database(servers) as url:
        yield url


@pytest.fixture(scope="module")
def server(database_url: str) -> Iterator[Served]:
    """A server whose database goes away again and again, and that is never started anew."""
    with serving(database_url) as running:
        yield running
        assert "defect" not in running.errors()
        assert "Traceback" not in running.errors()


@pytest.fixture
def shop(server: Served) -> Iterator[ServedShop]:
    """A shop, opened once the server is well."""
    well_again(lambda: server.client().get("/health/ready"))
    yield opened(server)
    well_again(lambda: server.client().get("/health/ready"))


def opened(server: Served) -> ServedShop:
    """A shop, through a ledger whose connections were cut as well."""
    until = monotonic() + WELL_AGAIN_SECONDS_MAX
    while True:
        try:
            return server.shop()
        except Unavailable:
            assert monotonic() < until


@pytest.fixture
def admin(servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    """Somebody on the same PostgreSQL, on another database."""
    with psycopg.connect(named(servers, "postgres"), autocommit=True) as connection:
        yield connection


def well_again(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Asks until it is answered well; meanwhile nothing but 503 is said, each in time."""
    began = monotonic()
    while True:
        response, seconds = timed(ask)
        if response.status_code < 300:
            return response
        unavailable(response, seconds)
        assert monotonic() - began < WELL_AGAIN_SECONDS_MAX


def timed(ask: Callable[[], httpx.Response]) -> tuple[httpx.Response, float]:
    began = perf_counter()
    return ask(), perf_counter() - began


def unavailable(response: httpx.Response, seconds: float) -> None:
    """Holds an answer to what is said while the database is away."""
    assert seconds < ANSWER_SECONDS_MAX
    assert response.status_code == 503, response.text
    assert int(response.headers["retry-after"]) >= 1
    if not response.request.url.path.startswith("/health/"):
        refusal(response, 503, "unavailable")


def asked(shop: ServedShop, card: dict[str, Any]) -> dict[str, Callable[[], httpx.Response]]:
    """One of each kind of request."""
    which = {"card_id": card["id"], "staff_pin": PIN}
    return {
        "a command": lambda: shop.till.command("points", which | {"purchase_amount_cents": 100}),
        "a stamp": lambda: shop.till.command("stamp", which),
        "a command by a number": lambda: shop.till.command(
            "points", {"card_number": card["card_number"], "staff_pin": PIN, "purchase_amount_cents": 100}
        ),
        "enrolling": lambda: shop.till.post("cards/enroll", {}),
        "a card": lambda: shop.till.get(f"cards/{card['id']}"),
        "a list": lambda: shop.till.get("cards"),
        "a history": lambda: shop.till.get(f"cards/{card['id']}/transactions"),
        "a lookup": lambda: shop.till.post("cards/lookup", {"qr_code": card["qr_code"]}),
        "the program": lambda: shop.manager.get("program"),
        "a change": lambda: shop.manager.patch("program", {"terms": uuid4().hex}),
        "a PIN": lambda: shop.till.post("pins/verify", {"staff_pin": PIN}),
        "the PINs": lambda: shop.manager.get("pins"),
        "the own card": lambda: shop.customer(card["customer_id"]).get(OWN_CARD),
        "signing in": lambda: shop.served.client().post(
            "/api/v1/auth/token", {"email": "nobody@shop.example", "password": "x"}
        ),
        "readiness": lambda: shop.served.client().get("/health/ready"),
    }


def holds_meanwhile(shop: ServedShop, requests: dict[str, Callable[[], httpx.Response]]) -> None:
    """All of it at once is 503 in time, while the process stays alive."""
    with ThreadPoolExecutor(len(requests) + 1) as pool:
        outcomes = {name: pool.submit(timed, ask) for name, ask in requests.items()}
        alive = [timed(lambda: shop.served.client().get("/health/live")) for _ in range(20)]
        answered = {name: outcome.result() for name, outcome in outcomes.items()}
    late = {name: seconds for name, (_, seconds) in answered.items() if seconds >= ANSWER_SECONDS_MAX}
    assert late == {}
    for response, seconds in answered.values():
        unavailable(response, seconds)
    for response, seconds in alive:
        assert response.status_code == 200
        assert seconds < HEALTHY_SECONDS_MAX


def all_well_again(shop: ServedShop, card: dict[str, Any]) -> None:
    """Everything works as before, without anybody doing anything."""
    for name, ask in asked(shop, card).items():
        if name == "signing in":
            well_again(lambda: shop.served.client().get("/health/ready"))
            refusal(ask(), 401, "wrong_password")
        elif name == "a stamp":
            assert ask().status_code in (200, 409)
        else:
            well_again(ask)


@contextmanager
def locked(database_url: str, table: str) -> Iterator[None]:
    """A session that keeps a table to itself."""
    with psycopg.connect(database_url) as session:
        session.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        session.rollback()


@contextmanager
def gone(admin: psycopg.Connection[Any], database_url: str) -> Iterator[None]:
    """A database that nobody can connect to any more."""
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    assert isinstance(name, str)
    admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    try:
        admin.execute(TERMINATE, [name])
        yield
    finally:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


@pytest.mark.parametrize("table", ["events", "claims"])
def test_while_a_table_is_locked_whoever_needs_it_gets_503_in_time(
    shop: ServedShop, database_url: str, table: str
) -> None:
    card = shop.enrol()
    needing = asked(shop, card)
    if table == "claims":
        needing = {name: needing[name] for name in ("enrolling", "a command", "a stamp", "the own card")}
    with locked(database_url, table):
        holds_meanwhile(shop, needing)
    all_well_again(shop, card)


def test_while_the_database_is_gone_everything_gets_503_in_time(
    shop: ServedShop, database_url: str, admin: psycopg.Connection[Any]
) -> None:
    card = shop.enrol()
    with gone(admin, database_url):
        holds_meanwhile(shop, asked(shop, card))
    all_well_again(shop, card)


def test_when_every_connection_is_cut_the_same_requests_soon_work(
    shop: ServedShop, database_url: str, admin: psycopg.Connection[Any]
) -> None:
    card = shop.enrol()
    for _ in range(3):
        admin.execute(TERMINATE, [psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]])
        for name, ask in asked(shop, card).items():
            if name not in {"a stamp", "signing in"}:
                well_again(ask)


def test_a_command_that_was_answered_503_counts_once_however_often_it_is_sent_again(
    shop: ServedShop, database_url: str, admin: psycopg.Connection[Any]
) -> None:
    card = shop.enrol()
    body = {"card_id": card["id"], "staff_pin": PIN, "purchase_amount_cents": 100}
    keys = [uuid4().hex for _ in range(4)]
    with locked(database_url, "events"), ThreadPoolExecutor(len(keys)) as pool:
        for response in pool.map(lambda key: shop.till.post("points", body, key=key), keys):
            refusal(response, 503, "unavailable")
    with gone(admin, database_url):
        refusal(shop.till.post("points", body, key=keys[0]), 503, "unavailable")
    first = [well_again(lambda key=key: shop.till.post("points", body, key=key)) for key in keys]  # type: ignore[misc]  # a lambda with a default has no type
    again = [shop.till.post("points", body, key=key) for key in keys]
    assert [response.content for response in first] == [response.content for response in again]
    assert answer_of(shop.till.get(f"cards/{card['id']}"))["points_balance"] == 10 * len(keys)
    kinds = [item["kind"] for item in answer_of(shop.till.get(f"cards/{card['id']}/transactions"))["items"]]
    assert kinds == ["points_earned"] * len(keys) + ["enrolled"]


def test_more_requests_than_connections_wait_no_longer_than_they_may(shop: ServedShop, database_url: str) -> None:
    card = shop.enrol()
    with locked(database_url, "events"), ThreadPoolExecutor(40) as pool:
        asks = [asked(shop, card)[name] for name in ("a card", "a command", "a list", "enrolling")] * 10
        for response, seconds in pool.map(timed, asks):
            unavailable(response, seconds)
    all_well_again(shop, card)


def test_a_bad_request_is_told_so_though_the_database_is_gone(
    shop: ServedShop, database_url: str, admin: psycopg.Connection[Any]
) -> None:
    with gone(admin, database_url):
        refusal(shop.till.command("points", {"unknown": 1}), 400, "invalid_request")
        refusal(shop.served.client("nonsense").get("cards"), 401, "invalid_credentials")
        refusal(shop.served.client().get(f"{STORE}/nothing"), 404, "not_found")
        assert shop.served.client().get("/schema/openapi.json").status_code == 200
