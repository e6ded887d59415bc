"""Nothing that is asked makes the database look at more of a table that grows with trade than is answered of it."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from litestar.testing import AsyncTestClient

from api.app import create_app
from api.parts import parts_from
from ledger.actor import PLATFORM, Role
from ledger.store.keys import key_from_text
from ledger.store.pool import Pool
from ledger.streams import program_stream
from loyalty.embedded import Servers
from projections.applying import LIVE
from tests.bulk_history import fill
from tests.openapi import operations
from tests.plans import EXPLAIN, Scan, answered, too_much
from tests.projections.telling import caught_up, tables_of
from tests.served import SECRETS, ServedShop, fresh_database, serving

EVENTS, CARDS = 20_000, 1_000

STORE, ADMIN = "/api/v1/store/loyalty", "/api/v1/admin/loyalty"
AUDIT, STOREFRONT, PUBLIC = "/api/v1/audit/loyalty", "/api/v1/storefront/loyalty", "/api/v1/loyalty"
ASKED: dict[str, tuple[str, ...]] = {
    f"{STORE}/cards": (
        "",
        "?limit=200",
        "?cursor=p500",
        "?status=suspended",
        "?status=active&store={code}",
        "?sort=activity",
        "?sort=activity&cursor=p1700000000000000.500",
        "?q=anna",
        "?q=weber&status=active",
        "?q=c77",
        "?q=000000",
        "?q=noah&cursor=p{card}",
        "?format=csv",
    ),
    f"{STORE}/cards/{{card_id}}": ("",),
    f"{STORE}/cards/{{card_id}}/transactions": ("", "?kind=points_earned", "?cursor=p9000", "?format=jsonl"),
    f"{STORE}/transactions": (
        "",
        "?from=2024-02-01&to=2024-02-10",
        "?kind=points_redeemed",
        "?store={code}&staff_id={staff_id}",
        "?order_reference=O-7-3",
        "?cursor=p738000.500",
        "?format=csv&from=2024-02-01",
    ),
    f"{STORE}/program": ("",),
    f"{STORE}/pins": ("",),
    f"{STORE}/pins/use": ("",),
    f"{STORE}/pins/{{pin_id}}": ("",),
    f"{STORE}/stats": (
        "",
        "?from=2024-02-01&to=2024-02-10",
        "?store={code}",
        "?staff_id={staff_id}&from=2024-02-01",
        "?format=csv",
    ),
    f"{AUDIT}/cards/{{card_id}}/events": ("", "?as_of=2024-02-01T00:00:00Z", "?order=newest", "?merged=true"),
    f"{AUDIT}/cards/{{card_id}}/balance": ("", "?as_of=5000", "?known_at=2024-02-01T00:00:00Z"),
    f"{AUDIT}/cards/{{card_id}}/explain": ("",),
    f"{AUDIT}/events": ("", "?after=5000", "?format=jsonl&after=19000"),
    f"{ADMIN}/projections": ("",),
    f"{ADMIN}/programs": ("", "?limit=200", "?cursor=p1"),
    f"{ADMIN}/programs/{{program_id}}": ("",),
    f"{ADMIN}/programs/{{program_id}}/stats": ("", "?from=2024-02-01&to=2024-02-10"),
    f"{ADMIN}/stats": ("", "?from=2024-02-01&to=2024-02-10"),
    f"{ADMIN}/merchants": ("", "?cursor=p1"),
    f"{ADMIN}/merchants/{{merchant_id}}": ("",),
    f"{ADMIN}/merchants/{{merchant_id}}/settings": ("",),
    f"{ADMIN}/merchants/{{merchant_id}}/stores": ("",),
    f"{ADMIN}/stores/{{store_id}}/terminals": ("",),
    f"{STOREFRONT}/card": ("",),
    f"{STOREFRONT}/transactions": ("", "?kind=points_earned"),
    f"{PUBLIC}/programs/{{store_code}}": ("",),
}

COUNTED = "counts every visit of the days that are asked for, and no days are"
LOOKING_AT_MORE = {
    f"{STORE}/stats": COUNTED,
    f"{STORE}/stats?store={{code}}": COUNTED,
    f"{STORE}/stats?format=csv": COUNTED,
    f"{ADMIN}/programs/{{program_id}}/stats": COUNTED,
    f"{ADMIN}/stats": COUNTED,
    f"{STORE}/transactions?kind=points_redeemed": "one in seven is of that kind, which no index names",
    f"{STORE}/cards?q=weber&status=active": "a tenth of a thousand cards are theirs: looking at all is no more work",
}
"""The addresses that make the database look at more than is answered, and why; never at a table without an index."""


@pytest.fixture(scope="module")
def busy(servers: Servers) -> Iterator[ServedShop]:
    """A shop that has traded for long, with read models that were told of all of it."""
    with fresh_database(servers) as url:
        secrets = {"master_key": key_from_text(SECRETS["master_key"]), "pepper": SECRETS["pepper"].encode()}
        traded = fill(url, EVENTS, CARDS, **secrets)
        with serving(url) as served:
            manager = served.account(Role.MANAGER, traded.merchant.merchant_id)
            shop = ServedShop(served, traded, served.client(traded.terminal_key), manager)
            served.seen.at(served.run(served.parts.ledger.log.head()))
            with tables_of(url) as tables:
                asyncio.run(caught_up(tables))
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("VACUUM ANALYZE")
            yield shop
            assert served.errors() == ""


class Asked(NamedTuple):
    """A question to the database, the address that it was asked for, and the scans that looked at too much for it."""

    address: str
    query: str
    scans: list[Scan]


def test_every_address_that_is_read_is_asked_here() -> None:
    read = {path for method, path, _ in operations() if method == "GET" and path.startswith("/api/")}
    assert read == ASKED.keys()


def test_no_question_makes_the_database_look_at_much_more_than_is_answered(
    busy: ServedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = [path + query for path, queries in ASKED.items() for query in queries]
    asked = explained(busy, addresses, monkeypatch)
    assert {each.address for each in asked} == set(addresses)
    wrong = [each for each in asked if each.scans and each.address not in LOOKING_AT_MORE]
    assert wrong == []
    whole = [each for each in asked if "Seq Scan" in {scan.kind for scan in each.scans}]
    assert whole == []


NEEDED = [
    ("cards_enrolled", f"{STORE}/cards"),
    ("cards_status", f"{STORE}/cards?status=suspended"),
    ("cards_activity", f"{STORE}/cards?sort=activity"),
    ("cards_customer", f"{STORE}/cards?q=noah"),
    ("search_terms_customer", f"{STORE}/cards?q=noah"),
    ("transactions_card", f"{STORE}/cards/{{card_id}}/transactions"),
    ("transactions_day", f"{STORE}/transactions"),
    ("transactions_order", f"{STORE}/transactions?order_reference=O-7-3"),
]


@pytest.mark.parametrize(("index", "address"), NEEDED)
def test_a_dropped_index_is_noticed(
    busy: ServedShop, monkeypatch: pytest.MonkeyPatch, index: str, address: str
) -> None:
    with dropped(str(busy.served.settings.database_url), index):
        asked = explained(busy, [address], monkeypatch)
    assert [scan for each in asked for scan in each.scans if index.startswith(scan.table)]


@contextmanager
def dropped(database_url: str, index: str) -> Iterator[None]:
    """A database without one of its read models' indexes, for as long as a block takes."""
    name = f"{LIVE}.{index}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        ((definition,),) = connection.execute("SELECT pg_get_indexdef(%s::regclass)", [name]).fetchall()
        connection.execute(f"DROP INDEX {name}".encode())
        try:
            yield
        finally:
            connection.execute(definition.encode())


def explained(busy: ServedShop, addresses: Iterable[str], monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Asks for each address, and tells what the database was asked for that and what it did."""
    asked: list[Asked] = []
    plain = Pool.rows
    address = ""

    async def rows(pool: Pool, query: str, parameters: dict[str, Any]) -> Any:
        async with pool.connection() as connection:
            cursor = await connection.execute(f"{EXPLAIN} {query}".encode(), parameters)
            ((plan,),) = await cursor.fetchall()
        if address:
            asked.append(Asked(address, query, too_much(plan[0]["Plan"], answered(plan[0]["Plan"]))))
        return await plain(pool, query, parameters)

    async def ask() -> None:
        nonlocal address
        async with AsyncTestClient(create_app(parts_from(busy.served.settings))) as client:
            for address in addresses:
                credential = next(known for prefix, known in credentials.items() if address.startswith(f"{prefix}/"))
                headers = {"Authorization": f"Bearer {credential}"} if credential else {}
                response = await client.get(address.format(**names), headers=headers)
                assert response.status_code == 200, (address, response.text)

    names, credentials = named(busy)
    with monkeypatch.context() as patch:
        patch.setattr(Pool, "rows", rows)
        asyncio.run(ask())
    return asked


def named(busy: ServedShop) -> tuple[dict[str, str], dict[str, str | None]]:
    """What stands in the addresses, and who asks for those that begin alike."""
    card = busy.till.get("cards?limit=1").json()["items"][0]
    names = {
        "card_id": card["id"],
        "card": str(UUID(card["id"]).int),
        "pin_id": str(busy.shop.staff_id),
        "staff_id": str(busy.shop.staff_id),
        "merchant_id": str(busy.merchant_id),
        "program_id": str(program_stream(busy.merchant_id)),
        "store_id": str(busy.shop.store_id),
        "code": busy.manager.get("transactions?limit=1").json()["items"][0]["store_code"],
    }
    names["store_code"] = names["code"]
    return names, {
        STORE: busy.manager.credential,
        ADMIN: busy.served.account(Role.ADMIN, PLATFORM).credential,
        AUDIT: busy.served.account(Role.AUDITOR, PLATFORM).credential,
        STOREFRONT: busy.customer(card["customer_id"]).credential,
        PUBLIC: None,
    }
