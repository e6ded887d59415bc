"""Bad input of every kind, at every address that takes a body: a problem with a stable code, and never a defect."""

import json
import re
import string
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.problems import KINDS
from tests.openapi import Operation, operations, resolved, validator
from tests.served import STANDARD, STORE, Client, Served, ServedShop, refusal

PIN = "73915284"
"""Easy to recognize, should it come back."""

OTHER_PIN = "60482715"

DEPTH = 20_000
MEGABYTE = 1_048_576
BODIES: dict[str, dict[str, Any]] = {
    "sign_in": {"email": "nobody@shop.example", "password": PIN},
    "enroll_customer": {"customer_id": "C-9", "name": "Ada", "email": "ada@x.example", "phone": "123", "locale": "fr"},
    "look_up_card": {"qr_code": "unknown"},
    "create_pin": {"name": "Kim", "pin": PIN, "role": "staff", "store_id": None},
    "change_pin": {"name": "Kim", "pin": PIN, "role": "staff", "store_id": None},
    "verify_pin": {"staff_pin": PIN, "staff_id": str(uuid4())},
    "add_stamp": {"qr_code": "unknown", "staff_pin": PIN, "staff_id": str(uuid4())},
    "redeem_stamps": {"card_number": "123456789015", "staff_pin": PIN},
    "earn_points": {"card_id": str(uuid4()), "staff_pin": PIN, "purchase_amount_cents": 100, "order_reference": "O-1"},
    "redeem_points": {"qr_code": "unknown", "staff_pin": PIN, "reward_id": "coffee"},
    "create_program": {
        "type": "points",
        "rewards": [{"name": "Tea", "points_cost": 1}],
        "branding": {"card_name": "C"},
    },
    "change_program": {"stamps_target": 10, "terms": "", "active": True, "points_expiration_days": None},
    "reverse_transaction": {
        "purchase_amount_cents": 100,
        "allow_negative_balance": False,
        "reason": "Broken",
        "staff_pin": PIN,
        "staff_id": str(uuid4()),
    },
    "preview_reversal": {"purchase_amount_cents": 100, "allow_negative_balance": True, "reason": "Broken"},
    "preview_points": {"qr_code": "unknown", "purchase_amount_cents": 100, "order_reference": "O-1", "staff_pin": PIN},
    "preview_expiry": {"at": "2026-03-02T11:00:00Z"},
    "adjust_card": {"points": 10, "stamps": 1, "reason": "Miscounted"},
    "merge_card": {"into_card_id": str(uuid4())},
    "suspend_card": {"reason": "Lost"},
    "reactivate_card": {"reason": "Found"},
    "close_card": {"reason": "Moved away"},
}
NAMED_BY_NOBODY = {"card_id": str(uuid4()), "transaction": f"{uuid4()}-2"}
"""What stands in addresses: the body is read before anybody looks whether there is such a thing."""

TAKING_BODIES = [
    pytest.param(*known, id=known[2]["operationId"]) for known in operations() if "requestBody" in known[2]
]
each_route = pytest.mark.parametrize(("method", "path", "operation"), TAKING_BODIES)
each_address = pytest.mark.parametrize(
    ("method", "path"), [pytest.param(*known.values[:2], id=known.id) for known in TAKING_BODIES]
)


@pytest.fixture(scope="module")
def shop(served: Served) -> ServedShop:
    """One shop for all of it; nothing bad may change it."""
    return served.shop()


def shape_of(operation: Operation) -> str:
    reference: str = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    return reference.rpartition("/")[2]


def post(shop: ServedShop, method: str, path: str, content: Any, **headers: str) -> httpx.Response:
    """Sends bytes as they are, as somebody who may."""
    address = path.format(pin_id=shop.shop.staff_id, **NAMED_BY_NOBODY)
    sent = {"Content-Type": "application/json", **headers}
    return shop.manager.send(method, address, key=str(uuid4()), content=content, headers=sent)


def no_defect(response: httpx.Response, *codes: str) -> None:
    """Holds an answer to a bad request to what every refusal is, and to one of the codes."""
    assert 400 <= response.status_code < 500, response.text
    code = response.json()["code"]
    refusal(response, KINDS[code].status, code)
    assert code in codes or not codes, response.text
    assert PIN not in response.text


def with_field(body: dict[str, Any], name: str, value: str) -> bytes:
    """A good body in which one field is written just so."""
    members = [f"{json.dumps(key)}:{json.dumps(given)}" for key, given in body.items() if key != name]
    return ("{" + ",".join([*members, f"{json.dumps(name)}:{value}"]) + "}").encode("utf-8", "surrogatepass")


def text_field(body: dict[str, Any]) -> str:
    """A field that takes text."""
    return next(name for name, value in body.items() if isinstance(value, str))


def test_every_route_with_a_body_has_one_here() -> None:
    assert {operation["operationId"] for _, _, operation in operations() if "requestBody" in operation} == set(BODIES)
    for parameter in TAKING_BODIES:
        operation: Any = parameter.values[2]
        assert list(validator(shape_of(operation)).iter_errors(BODIES[operation["operationId"]])) == []


# ---- bodies that are no JSON, or not of the right shape -------------------------------------------------------

NO_JSON: dict[str, bytes] = {
    "nothing": b"",
    "space": b" \n",
    "text": b"stamp",
    "a form": b"qr_code=1&staff_pin=1234",
    "half": b'{"name"',
    "two": b"{}{}",
    "a comma too many": b'{"a":1,}',
    "single quotes": b"{'a': 1}",
    "a comment": b"{} // done",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "NUL": b"\x00",
    "NUL behind": b"{}\x00",
    "arrays without end": b"[" * DEPTH,
    "objects without end": b'{"a":' * 12_000,
    "NaN": b"NaN",
    "a bare surrogate": b'{"a":"\xed\xa0\x80"}',
    "an endless number": b"1" + b"0" * 60_000 + b"x",
}
OTHER_SHAPES: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "a number": b"17",
    "a huge number": b"1" + b"0" * 400,
    "a text": b'"text"',
    "an array": b"[]",
    "an array with the body": b"[{}]",
    "deep arrays": b"[" * DEPTH + b"]" * DEPTH,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
}


@each_address
def test_a_body_that_is_no_json_is_refused(shop: ServedShop, method: str, path: str) -> None:
    for content in NO_JSON.values():
        no_defect(post(shop, method, path, content), "invalid_json", "invalid_request")


@each_address
def test_a_body_of_another_shape_is_refused(shop: ServedShop, method: str, path: str) -> None:
    for content in OTHER_SHAPES.values():
        no_defect(post(shop, method, path, content), "invalid_request", "invalid_json")


@each_route
def test_depth_hidden_in_a_field_is_refused(shop: ServedShop, method: str, path: str, operation: Operation) -> None:
    body = BODIES[operation["operationId"]]
    for name in ("unknown", text_field(body)):
        for deep in ("[" * DEPTH + "]" * DEPTH, '{"a":' * 9_000 + "1" + "}" * 9_000, "[" * DEPTH, '{"":' * DEPTH):
            no_defect(
                post(shop, method, path, with_field(body, name, deep)[:65_536]), "invalid_request", "invalid_json"
            )


@each_route
def test_text_that_is_no_text_is_refused(shop: ServedShop, method: str, path: str, operation: Operation) -> None:
    body = BODIES[operation["operationId"]]
    name = text_field(body)
    for bad in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"a\x00b", b"a\nb", b"\x1f"):
        content = with_field(body, name, '"@@"').replace(b"@@", bad)
        no_defect(post(shop, method, path, content), "invalid_json", "invalid_request")
    for escaped in (r"\ud800", r"\udc00", r"\ud800\ud800", r"\u12", r"\x41", "\\"):
        no_defect(post(shop, method, path, with_field(body, name, f'"{escaped}"')), "invalid_json", "invalid_request")
    no_defect(post(shop, method, path, with_field(body, name, r'"\u0000"')), "invalid_request", "wrong_password")


# ---- fields ---------------------------------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    1.0,
    1.5,
    100.0,
    10**9 + 1,
    2**63,
    2**64,
    10**30,
    -(10**30),
    1e300,
    "",
    " ",
    "0",
    "100",
    "1e2",
    "true",
    "null",
    "\x00",
    "a\x00b",
    "a\nb",
    "\x1b[31m",
    "\x7f",
    "\u2028",
    "\U0010ffff",
    "x" * 65,
    "x" * 20_000,
    "1" * 20_000,
    "é" * 64,
    "00000000-0000-0000-0000-00000000000",
    "{00000000-0000-0000-0000-000000000000}",
    "urn:uuid:00000000-0000-0000-0000-000000000000",
    "\u0660\u0661\u0662\u0663",
    "1234\n",
    "-1234",
    "' OR 1=1 --",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "%00",
    "${jndi:ldap://x}",
    [],
    {},
    [None],
    [[]],
    {"a": 1},
    [{"name": "x"}],
    [{"name": "x", "points_cost": "1"}],
    {"card_name": None},
)


@each_route
def test_whatever_a_field_holds_is_taken_or_refused(
    shop: ServedShop, method: str, path: str, operation: Operation
) -> None:
    body = BODIES[operation["operationId"]]
    shape = validator(shape_of(operation))
    for name in resolved({"$ref": f"#/components/schemas/{shape_of(operation)}"})["properties"]:
        for value in VALUES:
            sent = body | {name: value}
            response = post(shop, method, path, json.dumps(sent).encode())
            assert response.status_code < 500, (sent, response.text)
            if shape.is_valid(sent):
                continue
            no_defect(response, "invalid_request")


@each_route
def test_what_is_no_integer_is_none(shop: ServedShop, method: str, path: str, operation: Operation) -> None:
    body = BODIES[operation["operationId"]]
    schema = resolved({"$ref": f"#/components/schemas/{shape_of(operation)}"})["properties"]
    for name in (name for name, kind in schema.items() if kind.get("type") == "integer"):
        for bad in (
            "1.0",
            "1.5",
            "1e2",
            "1E400",
            "-1e-400",
            '"1"',
            "true",
            "0x10",
            "01",
            "1_000",
            "\u0661",
            "[1]",
            "null",
        ):
            no_defect(post(shop, method, path, with_field(body, name, bad)), "invalid_request", "invalid_json")
        for huge in ("9" * 19, "9" * 40, "9" * 5_000, "-" + "9" * 5_000):
            no_defect(post(shop, method, path, with_field(body, name, huge)))


@each_route
def test_what_is_needed_must_be_there(shop: ServedShop, method: str, path: str, operation: Operation) -> None:
    body = BODIES[operation["operationId"]]
    for name in resolved({"$ref": f"#/components/schemas/{shape_of(operation)}"})["required"]:
        lacking = {key: value for key, value in body.items() if key != name}
        response = post(shop, method, path, json.dumps(lacking).encode())
        no_defect(response, "invalid_request")
        assert name in response.json()["detail"]


@each_route
def test_unknown_fields_are_refused_by_name(shop: ServedShop, method: str, path: str, operation: Operation) -> None:
    body = BODIES[operation["operationId"]]
    for name in ("unknown", "Staff_pin", "staff_pin ", "__class__", "id", "merchant_id", "caller", "occurred_at"):
        response = post(shop, method, path, with_field(body, name, "1"))
        no_defect(response, "invalid_request")
        assert name in response.json()["detail"]
    for name in ("", "\x00", "x" * 10_000, "é", "'\"`"):
        response = post(shop, method, path, with_field(body, name, "1"))
        no_defect(response, "invalid_request")
        assert len(response.json()["detail"]) < 500


def test_of_a_field_given_twice_the_last_counts(shop: ServedShop) -> None:
    right, wrong = f'"staff_pin":"{OTHER_PIN}"', '"staff_pin":"0000"'
    assert shop.manager.post("pins", {"name": "Kim", "pin": OTHER_PIN}).status_code == 201
    for first, last, status in ((wrong, right, 200), (right, wrong, 403)):
        response = post(shop, "POST", f"{STORE}/pins/verify", f"{{{first},{last}}}".encode())
        assert response.status_code == status
        assert OTHER_PIN not in response.text


# ---- sizes and types ------------------------------------------------------------------------------------------


@each_address
def test_a_body_that_is_too_large_is_refused(shop: ServedShop, method: str, path: str) -> None:
    def in_pieces(size: int) -> Iterator[bytes]:
        yield b'{"name":"'
        for _ in range(size // 8_192):
            yield b"x" * 8_192

    for content in (b"x" * MEGABYTE, b'{"a":"' + b"x" * MEGABYTE + b'"}', b" " * 65_537, in_pieces(MEGABYTE)):
        response = post(shop, method, path, content)
        refusal(response, 413, "body_too_large")
    assert shop.manager.get("program").status_code == 200


@each_address
def test_a_body_just_within_the_limit_is_read(shop: ServedShop, method: str, path: str) -> None:
    no_defect(post(shop, method, path, b'{"unknown":"' + b"x" * 65_000 + b'"}'), "invalid_request")


@each_address
def test_the_content_type_changes_nothing_but_what_is_refused(shop: ServedShop, method: str, path: str) -> None:
    kinds = (
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "application/x-msgpack",
        "application/xml",
        "application/json; charset=utf-16",
        "application/json; charset=nonsense",
        "nonsense",
        "a" * 5_000,
        "application/json;" * 500,
    )
    for kind in kinds:
        for content in (b"--x--", b"\x81\xa1a\x01", b"<a/>", b"qr_code=1"):
            no_defect(post(shop, method, path, content, **{"Content-Type": kind}), "invalid_json", "invalid_request")


@pytest.mark.parametrize("name", ["Idempotency-Key", "Loyalty-Store", "Authorization", "User-Agent", "X-Forwarded-For"])
@pytest.mark.parametrize(
    "value", [b"\xff", b"\xc3\xa9" * 100, b"a" * 10_000, b"a\tb", b"'; DROP TABLE events; --", b"%00"]
)
def test_odd_header_values_do_no_harm(served: Served, name: str, value: bytes) -> None:
    manager = served.shop().manager
    response = manager.post("cards/lookup", {"qr_code": "unknown"}, headers={name: value})
    assert response.status_code in (400, 401, 404)
    no_defect(response)
    response = manager.post("cards/enroll", {}, headers={name: value})
    assert response.status_code in (201, 400, 401, 404), response.text


def test_a_header_line_without_end_is_refused(shop: ServedShop) -> None:
    response = shop.manager.http.get("/health/live", headers={"X-Long": "a" * 1_000_000})
    assert response.status_code in (200, 400, 431)


# ---- addresses ------------------------------------------------------------------------------------------------

BAD_IDS = (
    "x",
    "0",
    "null",
    "00000000-0000-0000-0000-00000000000",
    "00000000-0000-0000-0000-0000000000000",
    "g0000000-0000-0000-0000-000000000000",
    "%00",
    "..%2f..%2f",
    "%ff",
    "%F0%9F%92%A3",
    "'",
    "a" * 5_000,
)


NAMING = [
    pytest.param(*known, id=known[2]["operationId"])
    for known in operations()
    if re.search(r"{(card_id|pin_id|transaction)}", known[1])
]


@pytest.mark.parametrize(("method", "path", "operation"), NAMING)
def test_an_address_that_names_nothing_is_not_found(
    shop: ServedShop, method: str, path: str, operation: Operation
) -> None:
    body = BODIES.get(operation["operationId"])
    options: dict[str, Any] = {"json": body} if body is not None else {}
    for bad in BAD_IDS:
        response = shop.manager.send(method, named(path, bad), key=str(uuid4()), **options)
        no_defect(response, "not_found", "method_not_allowed", "transaction_not_found")
    for unknown in (str(uuid4()), str(uuid4()).upper(), "0" * 32):
        response = shop.manager.send(method, named(path, unknown), key=str(uuid4()), **options)
        assert response.status_code == 404
        no_defect(response, "card_not_found", "staff_pin_not_found", "transaction_not_found", "not_found")


def named(path: str, name: str) -> str:
    """An address with that name in it, whatever it is of."""
    return path.format(card_id=name, pin_id=name, transaction=name)


@pytest.mark.parametrize(
    "query", ["limit=1&limit=2", "unknown=1", "cursor=%00", "cursor=%ff", "limit=%00", "&&&", "=", "a" * 9_000]
)
def test_odd_queries_do_no_harm(shop: ServedShop, query: str) -> None:
    for path in ("cards", "pins"):
        response = shop.manager.get(f"{path}?{query}")
        assert response.status_code in (200, 400), response.text


# ---- anything -------------------------------------------------------------------------------------------------

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.sampled_from(VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, Operation, Any]:
    """A route and a body that resembles a good one."""
    method, path, operation = draw(st.sampled_from([parameter.values for parameter in TAKING_BODIES]))
    assert isinstance(method, str)
    assert isinstance(path, str)
    assert isinstance(operation, dict)
    properties = resolved({"$ref": f"#/components/schemas/{shape_of(operation)}"})["properties"]
    good = BODIES[operation["operationId"]]
    body = {
        name: draw(st.just(good[name]) | ANYTHING) if name in good else draw(ANYTHING)
        for name in properties
        if draw(st.booleans())
    }
    if draw(st.integers(0, 9)) == 0:
        body[draw(st.text(alphabet=string.printable, max_size=12))] = draw(ANYTHING)
    return method, path, operation, body


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(request=requests())
def test_whatever_is_sent_is_answered_as_documented(shop: ServedShop, request: tuple[str, str, Operation, Any]) -> None:
    method, path, operation, body = request
    response = post(shop, method, path, json.dumps(body).encode())
    assert response.status_code < 500, (body, response.text)
    if not validator(shape_of(operation)).is_valid(body):
        no_defect(response)
    if response.status_code >= 400:
        assert response.json().keys() >= STANDARD


def test_after_all_of_it_the_shop_is_as_it_was(shop: ServedShop, served: Served) -> None:
    fresh = Client(shop.till.http, shop.shop.terminal_key)
    assert fresh.get("cards").status_code == 200
    assert served.client().get("/health/ready").status_code == 200
    assert "defect" not in served.errors()
    assert PIN not in served.errors()
