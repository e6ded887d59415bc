"""A load of points commands over HTTP from a process of its own, light enough to leave the cores to the service.

`python -m tests.bench.http_load HOST PORT CLIENTS SECONDS` reads from standard input a JSON object with a terminal
key and card numbers, and prints how many commands were answered, and the latencies at the middle and at 99 of 100.
"""

import asyncio
import json
import sys
import time
from uuid import uuid4

import uvloop

ARRIVAL_SECONDS = 0.02
"""Between one till and the next. Of many that connect at once to idle processes, one process may take all."""


async def client(
    host: str, port: int, key: str, card: str, times: tuple[float, float, float], latencies: list[float]
) -> None:
    """One till: a connection that is kept, a command after the other; what counts are those begun within the times."""
    arrives, since, until = times
    await asyncio.sleep(arrives - time.perf_counter())
    reader, writer = await asyncio.open_connection(host, port)
    body = json.dumps({"card_number": card, "purchase_amount_cents": 2500, "staff_pin": "1234"}).encode()
    while (began := time.perf_counter()) < until:
        writer.write(
            b"POST /api/v1/store/loyalty/points HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            + f"Authorization: Bearer {key}\r\nIdempotency-Key: {uuid4()}\r\n".encode()
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{head!r} {answer!r}")
        if began >= since:
            latencies.append(time.perf_counter() - began)
    writer.close()


async def main() -> None:
    """Runs all clients and prints the figures as JSON."""
    host, port, clients, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    shop = json.load(sys.stdin)
    latencies: list[float] = []
    begin = time.perf_counter()
    since = begin + clients * ARRIVAL_SECONDS
    times = [(begin + n * ARRIVAL_SECONDS, since, since + seconds) for n in range(clients)]
    await asyncio.gather(
        *(client(host, port, shop["terminal_key"], shop["cards"][n], times[n], latencies) for n in range(clients))
    )
    took = time.perf_counter() - since
    latencies.sort()
    figures = {
        "per_second": len(latencies) / took,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    uvloop.run(main())
