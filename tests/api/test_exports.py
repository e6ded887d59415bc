"""Lists as files: all of it, streamed, and nothing in it that a spreadsheet would run."""

import csv
import io
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from api import exports
from api.exports import PAGE_ITEMS
from ledger.actor import Role
from loyalty.embedded import Servers
from projections import card_list
from projections.reading import Reader
from schemas.cards import CardPage, ListedCard
from tests.served import STORE, ServedShop, answer_of, fresh_database, refusal, serving


def rows_of(response: httpx.Response) -> list[dict[str, str]]:
    """The lines of a CSV file by the names of its columns."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/csv")
    assert "attachment" in response.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(response.text, newline="")))


def lines_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The lines of a JSON Lines file."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_json_lines_hold_what_pages_hold(shop: ServedShop) -> None:
    card = shop.enrol()
    for cents in (100, 250, 1_000):
        shop.earn(card, cents, order_reference=f"O-{cents}")
    for path in ("cards", "transactions", f"cards/{card['id']}/transactions"):
        whole = answer_of(shop.manager.get(path, params={"limit": 200}))["items"]
        assert whole
        assert lines_of(shop.manager.get(path, params={"format": "jsonl"})) == whole


def test_csv_has_a_column_for_each_member(shop: ServedShop) -> None:
    card = shop.enrol("C-1")
    shop.earn(card, 1_250, order_reference="O-1")
    earned, enrolled = rows_of(shop.manager.get("transactions", params={"format": "csv"}))
    told = answer_of(shop.manager.get("transactions"))["items"]
    assert list(earned) == list(told[0])
    assert (earned["kind"], earned["points"], earned["order_reference"]) == ("points_earned", "125", "O-1")
    assert (enrolled["kind"], enrolled["points"], enrolled["order_reference"]) == ("enrolled", "0", "")
    (row,) = rows_of(shop.manager.get("cards", params={"format": "csv"}))
    assert (row["id"], row["points_balance"], row["person.name"], row["next_expiry.at"]) == (card["id"], "125", "", "")


def test_what_a_semicolon_parts_is_no_formula_either(shop: ServedShop) -> None:
    assert shop.till.post("cards/enroll", {"customer_id": "C-1", "name": "x; =1+1;y"}).status_code == 201
    text = shop.manager.get("cards", params={"format": "csv"}).text
    parted = [cell for row in csv.reader(io.StringIO(text, newline=""), delimiter=";") for cell in row]
    assert len(parted) > len(text.splitlines())
    assert not any(cell.strip().startswith(("=", "+", "-", "@")) for cell in parted)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0"])
def test_a_name_is_no_formula(shop: ServedShop, name: str) -> None:
    assert shop.till.post("cards/enroll", {"customer_id": "C-1", "name": name}).status_code == 201
    (row,) = rows_of(shop.manager.get("cards", params={"format": "csv"}))
    assert row["person.name"] == f"'{name}"


def test_quotes_and_commas_stay_in_their_cell(shop: ServedShop) -> None:
    name = 'Weber, "Léa"; x'
    assert shop.till.post("cards/enroll", {"customer_id": "C-1", "name": name}).status_code == 201
    (row,) = rows_of(shop.manager.get("cards", params={"format": "csv"}))
    assert row["person.name"] == name


def test_a_file_has_everything_however_many_pages_that_takes(shop: ServedShop) -> None:
    held = [shop.enrol()["id"] for _ in range(PAGE_ITEMS + 3)]
    listed = [card["id"] for card in lines_of(shop.manager.get("cards", params={"format": "jsonl", "limit": 1}))]
    assert listed == held[::-1]
    rows = rows_of(shop.manager.get("cards", params={"format": "csv"}))
    assert [row["id"] for row in rows] == listed


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_a_card_that_is_used_while_a_file_is_made_is_in_it_once(
    shop: ServedShop, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    monkeypatch.setattr(exports, "PAGE_ITEMS", 2)
    held = [shop.enrol()["id"] for _ in range(5)]
    answer_of(shop.manager.get("cards"))
    parts = shop.served.parts
    reader = Reader(parts.settings.database_url or "")

    async def page(after: exports.Place | None, most: int) -> tuple[list[ListedCard], exports.Place | None]:
        ledger, merchant = parts.ledger, shop.merchant_id
        return await card_list.page(reader, ledger.log, merchant, card_list.Wanted(), after, most, parts.clock.now())

    shop.served.run(reader.open())
    try:
        pieces = exports.texts(page, None, CardPage, file_format)
        text = shop.served.run(first_of(pieces))
        for card_id in (held[0], held[4]):
            shop.earn({"id": card_id}, 100)
            answer_of(shop.manager.get("cards"))
            text += shop.served.run(first_of(pieces))
        assert shop.served.run(first_of(pieces)) == b""
    finally:
        shop.served.run(reader.close())
    found = [held.index(card_id) for card_id in re.findall(r"[0-9a-f-]{36}", text.decode()) if card_id in held]
    assert found == [4, 3, 2, 1, 0]


async def first_of(pieces: AsyncIterator[bytes]) -> bytes:
    """The next piece of a file, nothing at its end."""
    return await anext(pieces, b"")


def test_an_empty_list_is_an_empty_file(shop: ServedShop) -> None:
    assert lines_of(shop.manager.get("cards", params={"format": "jsonl"})) == []
    assert rows_of(shop.manager.get("cards", params={"format": "csv"})) == []


def test_what_is_wrong_with_the_request_is_told_as_a_problem(shop: ServedShop) -> None:
    refusal(shop.manager.get("cards?format=xml"), 400, "invalid_request")
    refusal(shop.manager.get("cards?format=csv&cursor=x"), 400, "invalid_cursor")
    refusal(shop.manager.get("transactions?format=csv&from=2026-02-30"), 400, "invalid_day")
    refusal(shop.till.get("transactions?format=csv"), 403, "not_allowed")


def test_transactions_of_days_kinds_stores_staff_and_orders_are_listed_alone(shop: ServedShop) -> None:
    card = shop.enrol()
    shop.earn(card, 100, order_reference="O-1")
    shop.earn(card, 200, order_reference="O-2")
    assert shop.stamp(card).status_code == 200
    every = answer_of(shop.manager.get("transactions"))["items"]
    assert [each["kind"] for each in every] == ["stamp_added", "points_earned", "points_earned", "enrolled"]
    assert {each["card_number"] for each in every} == {card["card_number"]}

    def kinds(**params: Any) -> list[str]:
        return [each["kind"] for each in answer_of(shop.manager.get("transactions", params=params))["items"]]

    assert kinds(kind="points_earned") == ["points_earned"] * 2
    assert kinds(order_reference="O-2") == ["points_earned"]
    assert kinds(staff_id=str(shop.shop.staff_id)) == ["stamp_added", "points_earned", "points_earned"]
    assert kinds(store=every[0]["store_code"]) == [each["kind"] for each in every]
    day = every[0]["occurred_at"][:10]
    assert kinds(**{"from": "2020-01-01", "to": "2020-12-31"}) == []
    assert len(kinds(**{"from": "2020-01-01"})) == 4
    assert kinds(to="2020-12-31") == []
    assert day
    refusal(shop.manager.get("transactions?from=2026-01-02&to=2026-01-01"), 400, "invalid_days")
    for wrong in ("2026-1-2", "today", "20260102", "2026-01-02T00:00:00Z", "2026-W05-6", ""):
        refusal(shop.manager.get("transactions", params={"from": wrong}), 400, "invalid_day")


# ---- the database is lost meanwhile ---------------------------------------------------------------------------

MANY_EVENTS = """
    WITH one AS (SELECT * FROM events ORDER BY notification_id LIMIT 1)
    INSERT INTO events (notification_id, originator_id, originator_version, topic, state, merchant_id)
    SELECT (SELECT max(notification_id) FROM events) + n, md5(n::text)::uuid, 1, 'unknown.1', one.state, one.merchant_id
    FROM one, generate_series(1, 50000) AS n
"""
MANY_MOVEMENTS = """
    CREATE TEMP TABLE many AS SELECT one.* FROM projections.transactions one, generate_series(1, 50000);
    CREATE TEMP SEQUENCE numbers START 1000000;
    UPDATE many SET position = nextval('numbers');
    INSERT INTO projections.transactions SELECT * FROM many
"""
END_CONNECTIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"


@pytest.mark.parametrize(
    ("path", "role", "file_format", "many"),
    [
        ("/api/v1/audit/loyalty/events", Role.AUDITOR, "jsonl", MANY_EVENTS),
        (f"{STORE}/transactions", Role.MANAGER, "jsonl", MANY_MOVEMENTS),
        (f"{STORE}/transactions", Role.MANAGER, "csv", MANY_MOVEMENTS),
    ],
)
def test_a_file_that_loses_the_database_breaks_off_so_that_nobody_takes_it_for_whole(
    servers: Servers, path: str, role: Role, file_format: str, many: str
) -> None:
    with fresh_database(servers) as database_url, serving(database_url) as served:
        shop = served.shop()
        shop.enrol()
        client = shop.caller(role)
        answer_of(client.get(path))
        name = conninfo_to_dict(database_url)["dbname"]
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(many.encode())
        headers = {"Authorization": f"Bearer {client.credential}"}
        with served.http.stream("GET", path, params={"format": file_format}, headers=headers) as response:
            pieces = response.iter_bytes()
            next(pieces)
            with psycopg.connect(servers.database_url, autocommit=True) as connection:
                connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
                connection.execute(END_CONNECTIONS, (name,))
            with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
                for _ in pieces:
                    pass
        assert served.errors().count(f"{path} broke off: ") == 1
        assert "Traceback" not in served.errors()
