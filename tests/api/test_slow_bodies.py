"""Bodies that come too slowly: they are given their time and no more, and nobody else notices."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from time import perf_counter

import httpx
import pytest

from loyalty.embedded import Servers
from tests.running import running
from tests.served import STORE, Served, ServedShop, fresh_database, refusal, serving

CONNECTIONS = 200
SECONDS_MAX = 1
PAUSE_SECONDS = 0.1
PATIENCE_SECONDS = 20
HEALTHY_SECONDS_MAX = 2.0


@pytest.fixture(scope="module")
def impatient(servers: Servers) -> Iterator[Served]:
    """A server that gives bodies a second."""
    with fresh_database(servers) as database_url, serving(database_url, body_seconds_max=SECONDS_MAX) as server:
        yield server
        assert server.errors() == ""


def head(shop: ServedShop, path: str, *lines: str) -> bytes:
    """The head of a request whose body is still to come."""
    return "\r\n".join(
        [
            f"POST {STORE}/{path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {shop.shop.terminal_key}",
            "Idempotency-Key: k",
            "Content-Type: application/json",
            *lines,
            "",
            "",
        ]
    ).encode()


async def connected(server: Served) -> socket.socket:
    """A bare connection: what arrived before it broke can still be read."""
    url = httpx.URL(server.base_url)
    connection = socket.socket()
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (url.host, url.port))
    return connection


async def trickle(connection: socket.socket, piece: bytes) -> None:
    """Sends a piece again and again until the other side has had enough."""
    with suppress(OSError):
        while piece:
            await asyncio.get_running_loop().sock_sendall(connection, piece)
            await asyncio.sleep(PAUSE_SECONDS)


async def everything(connection: socket.socket) -> bytes:
    """All that arrives until the connection ends, however it does."""
    received = b""
    with suppress(ConnectionError):
        while piece := await asyncio.get_running_loop().sock_recv(connection, 65_536):
            received += piece
    return received


async def answer_to_trickle(server: Served, start: bytes, piece: bytes) -> tuple[bytes, float]:
    """All that is answered to a body that never ends, and how long the connection was kept for it."""
    connection = await connected(server)
    began = perf_counter()
    await asyncio.get_running_loop().sock_sendall(connection, start)
    sending = asyncio.create_task(trickle(connection, piece))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await everything(connection)
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        connection.close()
    return answer, perf_counter() - began


def timed_out(answer: bytes) -> None:
    """Holds a raw answer to the problem that it has to be."""
    said, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = said.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert status.startswith("HTTP/1.1 408 ")
    assert headers["connection"] == "close"
    response = httpx.Response(408, headers={"content-type": headers["content-type"]}, content=body)
    refusal(response, 408, "body_timeout")


async def slowest_health(server: Served, until: asyncio.Event) -> float:
    """The longest that a health check took, asked again and again."""
    slowest = 0.0
    async with httpx.AsyncClient(base_url=server.base_url, trust_env=False) as client:
        while not until.is_set():
            began = perf_counter()
            response = await client.get("/health/live")
            slowest = max(slowest, perf_counter() - began)
            assert response.status_code == 200
            await asyncio.sleep(0.02)
    return slowest


@running
async def test_200_bodies_sent_byte_by_byte_each_get_408_and_health_answers_meanwhile(impatient: Served) -> None:
    shop = await asyncio.to_thread(impatient.shop)
    start = head(shop, "points", "Content-Length: 60000")
    over = asyncio.Event()
    health = asyncio.create_task(slowest_health(impatient, over))
    outcomes = await asyncio.gather(*(answer_to_trickle(impatient, start, b" ") for _ in range(CONNECTIONS)))
    over.set()
    assert await health < HEALTHY_SECONDS_MAX
    for answer, after in outcomes:
        timed_out(answer)
        assert SECONDS_MAX - 0.1 < after < SECONDS_MAX + 3
    assert (await asyncio.to_thread(shop.till.get, "cards")).status_code == 200


@pytest.mark.parametrize(
    ("lines", "piece"),
    [
        pytest.param(("Content-Length: 60000",), b"", id="nothing"),
        pytest.param(("Transfer-Encoding: chunked",), b"1\r\n \r\n", id="chunks of a byte"),
        pytest.param(("Transfer-Encoding: chunked",), b"", id="no chunk"),
    ],
)
def test_however_a_body_is_late_it_gets_408(impatient: Served, lines: tuple[str, ...], piece: bytes) -> None:
    start = head(impatient.shop(), "points", *lines)
    answer, after = asyncio.run(answer_to_trickle(impatient, start, piece))
    timed_out(answer)
    assert after < SECONDS_MAX + 3


def test_a_slow_body_that_arrives_in_time_counts(impatient: Served) -> None:
    shop = impatient.shop()
    card = shop.enrol()
    body = json.dumps({"card_id": card["id"], "staff_pin": "1234", "purchase_amount_cents": 100}).encode()

    async def in_time() -> bytes:
        connection = await connected(impatient)
        send = asyncio.get_running_loop().sock_sendall
        await send(connection, head(shop, "points", f"Content-Length: {len(body)}", "Connection: close"))
        for at in range(0, len(body), 10):
            await send(connection, body[at : at + 10])
            await asyncio.sleep(SECONDS_MAX / len(body))
        answer = await everything(connection)
        connection.close()
        return answer

    assert asyncio.run(in_time()).startswith(b"HTTP/1.1 200 ")
    assert shop.till.get(f"cards/{card['id']}").json()["points_balance"] == 10


def test_a_client_that_leaves_in_mid_body_leaves_nothing_behind(impatient: Served) -> None:
    shop = impatient.shop()

    async def leave() -> None:
        connection = await connected(impatient)
        begun = head(shop, "cards/enroll", "Content-Length: 100") + b"{"
        await asyncio.get_running_loop().sock_sendall(connection, begun)
        connection.close()

    asyncio.run(leave())
    assert shop.till.get("cards").json()["items"] == []
