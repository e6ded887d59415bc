"""Nothing that is asked makes the database read a whole table that grows with trade."""

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from litestar.testing import AsyncTestClient

from api.app import create_app, parts_from
from ledger.actor import PLATFORM, Role
from ledger.store.keys import key_from_text
from ledger.store.pool import Pool
from ledger.streams import program_stream
from loyalty.embedded import Servers
from tests.openapi import operations
from tests.served import SECRETS, ServedShop, fresh_database, serving
from tests.trade import fill

EVENTS, CARDS = 20_000, 1_000
GROWING = {"events", "claims", "subject_keys", "snapshots", "cards", "transactions", "search_terms"}

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
            while shop.manager.get("transactions").status_code == 503:
                pass
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("ANALYZE")
            yield shop
            assert served.errors() == ""


def test_every_address_that_is_read_is_asked_here() -> None:
    read = {path for method, path, _ in operations() if method == "GET" and path.startswith("/api/")}
    assert read == ASKED.keys()


def test_no_question_makes_the_database_read_a_growing_table_whole(
    busy: ServedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    whole: set[str] = set()
    plain = Pool.rows

    async def explained(pool: Pool, query: str, parameters: dict[str, Any]) -> Any:
        async with pool.connection() as connection:
            cursor = await connection.execute(f"EXPLAIN (FORMAT JSON) {query}".encode(), parameters)
            ((plan,),) = await cursor.fetchall()
        asked.append(query)
        whole.update(f"{table} for {current}: {query}" for table in scanned(plan[0]["Plan"]) & GROWING)
        return await plain(pool, query, parameters)

    monkeypatch.setattr(Pool, "rows", explained)
    card = busy.till.get("cards?limit=1").json()["items"][0]
    names = {
        "card_id": card["id"],
        "card": str(UUID(card["id"]).int),
        "pin_id": str(busy.shop.staff_id),
        "staff_id": str(busy.shop.staff_id),
        "merchant_id": str(busy.merchant_id),
        "program_id": str(program_stream(busy.merchant_id)),
        "store_id": str(busy.shop.store_id),
        "code": next(iter(busy.manager.get("transactions?limit=1").json()["items"]))["store_code"],
    }
    names["store_code"] = names["code"]
    credentials = {
        STORE: busy.manager.credential,
        ADMIN: busy.served.account(Role.ADMIN, PLATFORM).credential,
        AUDIT: busy.served.account(Role.AUDITOR, PLATFORM).credential,
        STOREFRONT: busy.customer(card["customer_id"]).credential,
        PUBLIC: None,
    }
    current = ""

    async def ask_everything() -> None:
        nonlocal current
        async with AsyncTestClient(create_app(parts_from(busy.served.settings))) as client:
            for path, queries in ASKED.items():
                credential = credentials[next(prefix for prefix in credentials if path.startswith(f"{prefix}/"))]
                headers = {"Authorization": f"Bearer {credential}"} if credential else {}
                for query in queries:
                    current = path + query
                    asked_before = len(asked)
                    response = await client.get(current.format(**names), headers=headers)
                    assert response.status_code == 200, (current, response.text)
                    assert len(asked) > asked_before, current

    asyncio.run(ask_everything())
    assert whole == set()


def scanned(plan: dict[str, Any]) -> set[str]:
    """The tables that a plan reads from end to end."""
    tables = {plan["Relation Name"]} if plan["Node Type"] == "Seq Scan" else set()
    return tables.union(*(scanned(inner) for inner in plan.get("Plans", ())))
