"""Who may do what: every operation of the document times every role, and times another merchant's records."""

import json
from typing import Any
from uuid import uuid4

import pytest

from ledger.actor import Role
from ledger.streams import program_stream
from tests.openapi import Operation, operations
from tests.served import Client, Served, ServedShop, refusal
from tests.shop import PIN

ROLES: tuple[Role | None, ...] = (
    Role.TERMINAL,
    Role.MANAGER,
    Role.ADMIN,
    Role.AUDITOR,
    Role.CUSTOMER,
    None,
)
FOR_ANYONE = {"sign_in", "get_liveness", "get_readiness", "explain_problem", "get_public_program"}
FOR_MANAGERS = {
    "create_program",
    "change_program",
    "list_pins",
    "get_pin",
    "create_pin",
    "change_pin",
    "deactivate_pin",
    "unlock_pin",
    "adjust_card",
    "merge_card",
    "suspend_card",
    "reactivate_card",
    "close_card",
    "list_all_transactions",
    "list_pin_uses",
    "get_statistics",
}
FOR_TILLS_TOO = {
    "enroll_customer",
    "look_up_card",
    "get_card",
    "list_cards",
    "list_transactions",
    "get_program",
    "add_stamp",
    "redeem_stamps",
    "earn_points",
    "redeem_points",
    "reverse_transaction",
    "preview_points",
    "preview_reversal",
    "preview_expiry",
    "verify_pin",
}
FOR_CUSTOMERS = {"get_own_card", "list_own_transactions"}
FOR_AUDITORS = {"list_events"}
FOR_ADMINS = {
    "list_projections",
    "list_programs",
    "get_merchant_program",
    "get_program_statistics",
    "get_platform_statistics",
    "list_merchants",
    "get_merchant",
    "get_merchant_settings",
    "list_stores",
    "list_terminals",
}
FOR_MANAGERS_TOO = {"list_card_events", "get_card_balance", "explain_card_balance"}

each_operation = pytest.mark.parametrize(
    ("method", "path", "operation"),
    [pytest.param(*known, id=known[2]["operationId"]) for known in operations()],
)


def body_for(operation: Operation, card: dict[str, Any]) -> dict[str, Any] | None:
    """A good body for an operation."""
    which = {"card_id": card["id"], "staff_pin": PIN}
    bodies: dict[str, dict[str, Any]] = {
        "enroll_customer": {"customer_id": "C-2"},
        "look_up_card": {"card_id": card["id"]},
        "add_stamp": which,
        "redeem_stamps": which,
        "earn_points": which | {"purchase_amount_cents": 100},
        "redeem_points": which | {"reward_id": "coffee"},
        "create_program": {"type": "points"},
        "change_program": {"terms": "Be nice."},
        "create_pin": {"name": "Kim", "pin": "5678"},
        "change_pin": {"name": "Kim"},
        "reverse_transaction": {"staff_pin": PIN, "allow_negative_balance": True},
        "preview_points": {"card_id": card["id"], "purchase_amount_cents": 100},
        "preview_reversal": {},
        "preview_expiry": {},
        "adjust_card": {"points": 1, "reason": "Forgotten"},
        "merge_card": {"into_card_id": card["id"]},
        "suspend_card": {},
        "reactivate_card": {},
        "close_card": {},
        "verify_pin": {"staff_pin": PIN},
        "sign_in": {"email": "nobody@shop.example", "password": "wrong"},
    }
    return bodies.get(operation["operationId"])


def allowed(name: str) -> set[Role | None]:
    """Who may call an operation, as the contract has it."""
    if name in FOR_ANYONE:
        return set(ROLES)
    if name in FOR_CUSTOMERS:
        return {Role.CUSTOMER}
    if name in FOR_ADMINS:
        return {Role.ADMIN}
    if name in FOR_AUDITORS:
        return {Role.AUDITOR, Role.ADMIN}
    if name in FOR_MANAGERS_TOO:
        return {Role.AUDITOR, Role.ADMIN, Role.MANAGER}
    return {Role.MANAGER, Role.TERMINAL} if name in FOR_TILLS_TOO else {Role.MANAGER}


def test_the_table_names_every_operation_once() -> None:
    named = [*FOR_ANYONE, *FOR_MANAGERS, *FOR_TILLS_TOO, *FOR_CUSTOMERS, *FOR_AUDITORS, *FOR_ADMINS, *FOR_MANAGERS_TOO]
    assert sorted(named) == sorted(operation["operationId"] for _, _, operation in operations())


@each_operation
def test_the_document_says_who_may_call(method: str, path: str, operation: Operation) -> None:
    who = allowed(operation["operationId"])
    expected = ["anyone"] if None in who else sorted(str(role) for role in who)
    assert sorted(operation["x-roles"]) == expected, f"{method} {path}"


@pytest.fixture(scope="module")
def busy(served: Served) -> ServedShop:
    """A shop with a card that has something of everything."""
    shop = served.shop(stamps_target=1, cooldown_minutes=0, max_daily_stamps=1_000)
    card = shop.enrol("C-1")
    shop.earn(card, 100_000)
    assert shop.stamp(card).status_code == 200
    return shop


@pytest.fixture(scope="module")
def neighbour(served: Served) -> ServedShop:
    """Another merchant's shop."""
    return served.shop()


ENDING = {"merge_card", "suspend_card", "close_card"}
"""What a card does not survive as it was: each has one of its own."""


def call(client: Client, method: str, path: str, operation: Operation, shop: ServedShop) -> Any:
    """A good request for an operation, with records of that shop."""
    card = shop.till.get("cards?limit=200").json()["items"][-1]
    named = shop.enrol()["id"] if operation["operationId"] in ENDING else card["id"]
    transaction = shop.earn(card, 100)["transaction_id"] if "{transaction}" in path else ""
    address = path.format(
        card_id=named,
        pin_id=shop.shop.staff_id,
        code="unavailable",
        transaction=transaction,
        merchant_id=shop.merchant_id,
        program_id=program_stream(shop.merchant_id),
        store_id=shop.shop.store_id,
        store_code=shop.manager.get("transactions?limit=1").json()["items"][0]["store_code"],
    )
    body = body_for(operation, card)
    return client.send(method, address, key=str(uuid4()), **({"json": body} if body is not None else {}))


@each_operation
@pytest.mark.parametrize("role", ROLES, ids=str)
def test_an_operation_answers_its_roles_and_nobody_else(
    busy: ServedShop, method: str, path: str, operation: Operation, role: Role | None
) -> None:
    response = call(busy.caller(role), method, path, operation, busy)
    if role in allowed(operation["operationId"]):
        good = {"create_program": 409, "sign_in": 401, "create_pin": 201, "enroll_customer": (200, 201)}
        expected = good.get(operation["operationId"], 200)
        assert response.status_code in (expected if isinstance(expected, tuple) else (expected,)), response.text
        if operation["operationId"] in {"deactivate_pin", "create_pin", "change_pin"}:
            restore(busy)
    elif role is None or (role is Role.TERMINAL and operation["operationId"] in FOR_CUSTOMERS):
        # Customers' routes know tokens only.
        refusal(response, 401, "invalid_credentials")
    else:
        refusal(response, 403, "not_allowed")


def restore(shop: ServedShop) -> None:
    """Gives the shop its one PIN again, under its name."""
    for pin in shop.manager.get("pins").json()["items"]:
        if pin["active"]:
            shop.manager.delete(f"pins/{pin['id']}")
    response = shop.manager.post("pins", {"name": "Alex", "pin": PIN})
    assert response.status_code == 201
    shop.shop.staff_id = response.json()["id"]


# ---- another merchant's records -------------------------------------------------------------------------------


def without(text: str, *ids: str) -> str:
    """An answer with the ids that were asked for put out of sight."""
    for each in ids:
        text = text.replace(each, "?")
    return text


@pytest.mark.parametrize("role", [Role.TERMINAL, Role.MANAGER])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "cards/{card}", None),
        ("GET", "cards/{card}/transactions", None),
        ("GET", "cards/{card}/transactions?limit=1&cursor=p5", None),
        ("POST", "cards/lookup", {"card_id": "{card}"}),
        ("POST", "cards/lookup", {"card_number": "{number}"}),
        ("POST", "cards/lookup", {"qr_code": "{qr}"}),
        ("POST", "stamp", {"card_id": "{card}", "staff_pin": PIN}),
        ("POST", "stamp", {"card_number": "{number}", "staff_pin": PIN}),
        ("POST", "stamp", {"qr_code": "{qr}", "staff_pin": PIN}),
        ("POST", "stamp/redeem", {"card_id": "{card}", "staff_pin": PIN}),
        ("POST", "points", {"card_id": "{card}", "staff_pin": PIN, "purchase_amount_cents": 100}),
        ("POST", "points", {"qr_code": "{qr}", "staff_pin": PIN, "purchase_amount_cents": 1, "order_reference": "O"}),
        ("POST", "points/redeem", {"card_number": "{number}", "staff_pin": PIN, "reward_id": "coffee"}),
        ("POST", "points/preview", {"card_id": "{card}", "purchase_amount_cents": 100}),
        ("POST", "points/preview", {"qr_code": "{qr}", "reward_id": "coffee"}),
        ("POST", "transactions/{transaction}/reverse", {"staff_pin": PIN}),
        ("POST", "transactions/{transaction}/reverse", {"staff_pin": PIN, "purchase_amount_cents": 100}),
        ("POST", "transactions/{transaction}/reverse/preview", {}),
        ("POST", "cards/{card}/expiry/preview", {}),
        ("POST", "cards/{card}/adjust", {"points": 1, "reason": "Mine now"}),
        ("POST", "cards/{card}/merge", {"into_card_id": "{mine}"}),
        ("POST", "cards/{mine}/merge", {"into_card_id": "{card}"}),
        ("POST", "cards/{card}/suspend", {}),
        ("POST", "cards/{card}/reactivate", {}),
        ("POST", "cards/{card}/close", {}),
        ("POST", "pins/verify", {"staff_pin": PIN, "staff_id": "{pin}"}),
        ("PATCH", "pins/{pin}", {"name": "Mine now"}),
        ("PATCH", "pins/{pin}", {"pin": "8642"}),
        ("POST", "pins/{pin}/unlock", None),
        ("DELETE", "pins/{pin}", None),
    ],
)
def test_another_merchants_record_answers_as_none_byte_for_byte(
    served: Served,
    busy: ServedShop,
    neighbour: ServedShop,
    role: Role,
    method: str,
    path: str,
    body: dict[str, Any] | None,
) -> None:
    theirs = busy.till.get("cards?limit=200").json()["items"][-1]
    before = busy.till.get(f"cards/{theirs['id']}/transactions").json()
    foreign = {
        "card": theirs["id"],
        "number": theirs["card_number"],
        "qr": theirs["qr_code"],
        "pin": str(busy.shop.staff_id),
        "transaction": before["items"][0]["id"],
    }
    nothing = {
        "card": str(uuid4()),
        "number": "000000000018",
        "qr": "0" * 32,
        "pin": str(uuid4()),
        "transaction": f"{uuid4()}-2",
    }
    mine = {"mine": neighbour.enrol()["id"]}
    answers = []
    for names in (foreign, nothing):
        # What counts wrong PINs begins anew in a shop of its own.
        client = (served.shop() if path == "pins/verify" else neighbour).caller(role)
        sent = json.loads(fill(json.dumps(body), names | mine)) if body is not None else None
        options = {"json": sent} if sent is not None else {}
        response = client.send(method, fill(path, names | mine), key="k", **options)
        headers = {name: value for name, value in response.headers.items() if name != "date"}
        answers.append((response.status_code, headers, without(response.text, *names.values())))
    assert answers[0] == answers[1]
    # A till may do nothing of what is a manager's, whoever's card it is.
    assert answers[0][0] in (403, 404)
    assert busy.till.get(f"cards/{theirs['id']}/transactions").json() == before


def fill(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


def test_a_store_of_another_merchant_is_not_found(served: Served, busy: ServedShop) -> None:
    theirs = busy.till.get(f"cards/{busy.till.get('cards').json()['items'][-1]['id']}/transactions").json()
    code = theirs["items"][0]["store_code"]
    manager = served.shop().manager
    for named in (code, "NO-SUCH-STORE", ""):
        refusal(Client(manager.http, manager.credential, named).get("cards"), 404, "store_not_found")
    assert Client(busy.manager.http, busy.manager.credential, code).get("cards").status_code == 200
