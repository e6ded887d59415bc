"""What auditors read over HTTP: cards' events, balances and their reasons, and the log, each merchant's for itself."""

import base64
import hashlib
import json
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ledger.actor import PLATFORM, Role
from projections.audit import lines
from tests.served import Client, Served, ServedShop, answer_of, refusal
from tests.shop import PIN

AUDIT = "/api/v1/audit/loyalty"
LINE = [
    "position",
    "stream",
    "version",
    "merchant_id",
    "name",
    "event_version",
    "occurred_at",
    "recorded_at",
    "actor",
    "data",
    "stored",
    "previous_hash",
    "hash",
]


def card_of(shop: ServedShop) -> dict[str, Any]:
    """A card with a purchase, a reward, a correction and a refusal."""
    card = shop.enrol()
    shop.earn(card, 2_500, order_reference="O-1")
    which = {"card_id": card["id"], "staff_pin": PIN}
    assert shop.till.command("points/redeem", which | {"reward_id": "coffee"}).status_code == 200
    assert shop.till.command("points/redeem", which | {"reward_id": "cake"}).status_code == 409
    adjusted = shop.manager.command(f"cards/{card['id']}/adjust", {"points": -20, "reason": "Counted again"})
    assert adjusted.status_code == 200
    return card


def asked(client: Client, card: dict[str, Any], what: str, **parameters: Any) -> httpx.Response:
    return client.get(f"{AUDIT}/cards/{card['id']}/{what}", params=parameters)


def pages_of(client: Client, path: str, **parameters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = answer_of(client.get(path, params=parameters | cursor))
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# ---- cards ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.ADMIN, Role.MANAGER])
def test_a_card_is_told_in_full_with_what_was_refused(shop: ServedShop, role: Role) -> None:
    card = card_of(shop)
    client = shop.caller(role)
    events = pages_of(client, f"{AUDIT}/cards/{card['id']}/events", limit=2)
    names = ["card_enrolled", "points_earned", "points_redeemed", "command_refused", "balance_adjusted"]
    assert [event["name"] for event in events] == names
    for event in events:
        stored = base64.b64decode(event["stored"])
        assert event["hash"] == hashlib.sha256(stored).hexdigest()
        envelope = json.loads(stored)
        shared = set(envelope) - {"sealed"}
        assert {name: event[name] for name in shared} == {name: envelope[name] for name in shared}
    assert events[-1]["private"] == {"reason": "Counted again"}
    assert [event["program_version"] for event in events] == [1] * 5
    newest = pages_of(client, f"{AUDIT}/cards/{card['id']}/events", limit=2, order="newest")
    assert newest == events[::-1]
    earned = events[1]
    assert pages_of(client, f"{AUDIT}/cards/{card['id']}/events", name="points_earned") == [earned]
    assert pages_of(client, f"{AUDIT}/cards/{card['id']}/events", as_of=earned["position"]) == events[:2]
    after = {"from": events[2]["occurred_at"], "to": events[2]["occurred_at"]}
    assert pages_of(client, f"{AUDIT}/cards/{card['id']}/events", **after) == [events[2]]


def test_events_of_cards_that_were_merged_come_on_request(shop: ServedShop) -> None:
    old, new = card_of(shop), shop.enrol()
    merged = shop.manager.command(f"cards/{old['id']}/merge", {"into_card_id": new["id"]})
    assert merged.status_code == 200
    own = asked(shop.manager, new, "events").json()["items"]
    whole = asked(shop.manager, new, "events", merged=True).json()["items"]
    assert [event["name"] for event in own] == ["card_enrolled", "card_absorbed"]
    assert [event["position"] for event in whole] == sorted(event["position"] for event in whole)
    assert len(whole) == 8


def test_a_balance_is_answered_with_its_reasons(shop: ServedShop) -> None:
    card = card_of(shop)
    auditor = shop.caller(Role.AUDITOR)
    balance = asked(auditor, card, "balance").json()
    assert (balance["points_balance"], balance["stamp_count"], balance["status"]) == (130, 0, "active")
    assert [lot["points"] for lot in balance["lots"]] == [130]
    told = asked(auditor, card, "explain").json()
    assert [line["points"] for line in told["lines"]] == [250, -100, -20]
    assert told["lots"][0]["positions"] == [line["positions"][0] for line in told["lines"]]
    then = asked(auditor, card, "balance", as_of=told["lines"][0]["positions"][0]).json()
    assert (then["points_balance"], then["position"]) == (250, told["lines"][0]["positions"][0])
    before = (datetime.fromisoformat(card["enrolled_at"]) - timedelta(seconds=1)).isoformat()
    nothing = asked(auditor, card, "balance", as_of=before).json()
    assert (nothing["points_balance"], nothing["status"], nothing["events"]) == (0, None, 0)
    unknown = asked(auditor, card, "explain", known_at=before).json()
    assert (unknown["lines"], unknown["balance"]["known_at"] is not None) == ([], True)


@pytest.mark.parametrize(
    ("what", "parameters", "code", "facts"),
    [
        ("events", {"as_of": "yesterday"}, "invalid_moment", {"parameter": "as_of"}),
        ("balance", {"as_of": "2026-03-02T11:00:00"}, "invalid_moment", {"parameter": "as_of"}),
        ("balance", {"known_at": "-1"}, "invalid_moment", {"parameter": "known_at"}),
        ("explain", {"known_at": ""}, "invalid_moment", {"parameter": "known_at"}),
        ("explain", {"as_of": "9" * 30}, "invalid_moment", {"parameter": "as_of"}),
        ("events", {"from": "2026-03-02"}, "invalid_moment", {"parameter": "from"}),
        ("events", {"from": "2026-03-02T11:00:01Z", "to": "2026-03-02T11:00:00Z"}, "invalid_time_range", {}),
        ("events", {"name": "points_earnt"}, "unknown_event_name", {}),
        ("events", {"cursor": "x"}, "invalid_cursor", {}),
        ("events", {"order": "any"}, "invalid_request", {}),
        ("events", {"limit": 201}, "invalid_request", {}),
    ],
)
def test_what_cannot_be_asked_is_refused_clearly(
    shop: ServedShop, what: str, parameters: dict[str, Any], code: str, facts: dict[str, Any]
) -> None:
    refused = asked(shop.caller(Role.AUDITOR), shop.enrol(), what, **parameters)
    assert refusal(refused, 400, code) == facts


@pytest.mark.parametrize("parameter", ["as_of", "known_at"])
@pytest.mark.parametrize("what", ["events", "balance", "explain"])
def test_a_position_past_the_end_is_not_reached_yet(shop: ServedShop, what: str, parameter: str) -> None:
    facts = refusal(asked(shop.manager, shop.enrol(), what, **{parameter: 10**15}), 400, "position_not_reached")
    assert facts["parameter"] == parameter
    assert facts["position"] < 10**15


# ---- whose ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.MANAGER])
@pytest.mark.parametrize("what", ["events", "balance", "explain"])
def test_another_merchants_card_answers_as_none(served: Served, shop: ServedShop, what: str, role: Role) -> None:
    theirs, nobodys = shop.enrol(), {"id": str(uuid4())}
    client = served.shop().caller(role)
    answers = [asked(client, card, what) for card in (theirs, nobodys)]
    assert refusal(answers[0], 404, "card_not_found") == {}
    assert answers[0].content == answers[1].content
    assert asked(shop.caller(role), theirs, what).status_code == 200


def test_an_auditor_of_all_reads_every_merchant_and_the_platform(served: Served, shop: ServedShop) -> None:
    mine, theirs = card_of(shop), card_of(served.shop())
    everywhere, auditor = served.account(Role.AUDITOR, PLATFORM), shop.caller(Role.AUDITOR)
    for card in (mine, theirs):
        assert asked(everywhere, card, "explain").json()["balance"]["points_balance"] == 130
    merchants = {item["merchant_id"] for item in pages_of(everywhere, f"{AUDIT}/events", limit=200)}
    assert {str(shop.merchant_id), str(PLATFORM)} < merchants
    only = pages_of(everywhere, f"{AUDIT}/events", merchant_id=str(shop.merchant_id))
    assert {item["merchant_id"] for item in only} == {str(shop.merchant_id)}
    assert only == pages_of(auditor, f"{AUDIT}/events", limit=3)
    nobody = everywhere.get(f"{AUDIT}/events", params={"merchant_id": str(uuid4())})
    assert refusal(nobody, 404, "merchant_not_found") == {}


def test_another_merchant_is_as_none_to_an_auditor_of_one(served: Served, shop: ServedShop) -> None:
    auditor = shop.caller(Role.AUDITOR)
    answers = [
        auditor.get(f"{AUDIT}/events", params={"merchant_id": str(merchant)})
        for merchant in (served.shop().merchant_id, uuid4())
    ]
    assert refusal(answers[0], 404, "merchant_not_found") == {}
    assert answers[0].content == answers[1].content
    assert auditor.get(f"{AUDIT}/events", params={"merchant_id": str(shop.merchant_id)}).status_code == 200


# ---- the log --------------------------------------------------------------------------------------------------


def test_the_log_comes_as_json_lines_with_the_members_in_order(shop: ServedShop) -> None:
    card_of(shop)
    auditor = shop.caller(Role.AUDITOR)
    paged = pages_of(auditor, f"{AUDIT}/events", limit=4)
    answer = auditor.get(f"{AUDIT}/events", params={"format": "jsonl", "limit": 1})
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert int(answer.headers["loyalty-position"]) >= paged[-1]["position"]
    assert answer.text.endswith("\n")
    exported = lines_of(answer.text)
    assert exported == paged
    assert all(list(line) == LINE for line in exported)
    assert "Counted again" not in answer.text
    rest = auditor.get(f"{AUDIT}/events", params={"format": "jsonl", "after": exported[3]["position"]})
    assert lines_of(rest.text) == exported[4:]
    continued = auditor.get(f"{AUDIT}/events", params={"format": "jsonl", "cursor": f"p{exported[3]['position']}"})
    assert continued.text == rest.text
    none = auditor.get(f"{AUDIT}/events", params={"format": "jsonl", "after": 10**12})
    assert (none.status_code, none.content) == (200, b"")


def test_a_long_log_is_streamed_and_whoever_leaves_early_does_no_harm(served: Served) -> None:
    shop = served.shop()
    cards = [shop.enrol() for _ in range(3)]
    for _ in range(lines.LINES_AT_ONCE // 10):
        for card in cards:
            shop.earn(card, 100)
    everywhere = served.account(Role.AUDITOR, PLATFORM)
    head = answer_of(everywhere.get(f"{AUDIT}/events", params={"limit": 1}))
    assert head["next_cursor"] is not None
    headers = {"Authorization": f"Bearer {everywhere.credential}"}
    for _ in range(3):
        with served.http.stream("GET", f"{AUDIT}/events", params={"format": "jsonl"}, headers=headers) as response:
            assert response.status_code == 200
            assert b'"position":1,' in next(response.iter_bytes())
    whole = everywhere.get(f"{AUDIT}/events", params={"format": "jsonl"})
    positions = [line["position"] for line in lines_of(whole.text)]
    assert positions == list(range(1, int(whole.headers["loyalty-position"]) + 1))
