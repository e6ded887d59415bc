"""The Idempotency-Key: needed where a balance moves, taken everywhere, and the first answer again, byte for byte."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from ledger.actor import Caller, Role
from ledger.commands import OnProgram, OpenMerchant
from ledger.merchant import MerchantSettings
from ledger.program import ChangeProgram
from tests.served import Client, Served, ServedShop, answer_of, refusal
from tests.shop import PIN

MOVING = ("stamp", "stamp/redeem", "points", "points/redeem")


def moving_body(path: str, card: dict[str, Any]) -> dict[str, Any]:
    more: dict[str, dict[str, Any]] = {
        "points": {"purchase_amount_cents": 100},
        "points/redeem": {"reward_id": "coffee"},
    }
    return {"card_id": card["id"], "staff_pin": PIN, **more.get(path, {})}


def rich_card(shop: ServedShop) -> dict[str, Any]:
    """A card that every command works for, once."""
    card = shop.enrol()
    shop.earn(card, 10_000)
    assert shop.stamp(card).status_code == 200
    return card


@pytest.fixture
def generous(served: Served) -> ServedShop:
    """A shop where nothing has to be waited for."""
    return served.shop(stamps_target=1, cooldown_minutes=0, max_daily_stamps=100)


def same(first: httpx.Response, again: httpx.Response) -> None:
    """Holds a replay to the first answer."""
    assert again.content == first.content
    assert again.status_code == first.status_code
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["loyalty-position"] == first.headers["loyalty-position"]
    assert again.headers.get("location") == first.headers.get("location")
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")


@pytest.mark.parametrize("path", MOVING)
def test_a_command_that_moves_a_balance_needs_a_key(generous: ServedShop, path: str) -> None:
    card = rich_card(generous)
    before = generous.till.get(f"cards/{card['id']}").json()
    refusal(generous.till.post(path, moving_body(path, card)), 400, "idempotency_key_required")
    assert generous.till.get(f"cards/{card['id']}").json() == before


@pytest.mark.parametrize("path", MOVING)
def test_a_repetition_gets_the_first_answer_byte_for_byte(generous: ServedShop, path: str) -> None:
    card = rich_card(generous)
    key = str(uuid4())
    first = generous.till.post(path, moving_body(path, card), key=key)
    assert first.status_code == 200
    after = generous.till.get(f"cards/{card['id']}").json()
    generous.earn(card, 5_000)
    for sent in (key, f'"{key}"'):
        same(first, generous.till.post(path, moving_body(path, card), key=sent))
    assert generous.till.get(f"cards/{card['id']}").json()["points_balance"] == after["points_balance"] + 500


def test_a_key_is_the_same_quoted_and_bare(shop: ServedShop) -> None:
    card = shop.enrol()
    first = shop.till.post("points", moving_body("points", card), key='"quoted first"')
    same(first, shop.till.post("points", moving_body("points", card), key="quoted first"))


@pytest.mark.parametrize("path", MOVING)
def test_a_key_used_for_another_body_is_refused(generous: ServedShop, path: str) -> None:
    card, other = rich_card(generous), rich_card(generous)
    assert generous.till.post(path, moving_body(path, card), key="k").status_code == 200
    refusal(generous.till.post(path, moving_body(path, other), key="k"), 422, "idempotency_key_reused")


def test_a_key_used_at_another_address_is_refused(generous: ServedShop) -> None:
    card = rich_card(generous)
    assert generous.till.post("stamp", moving_body("stamp", card), key="k").status_code == 200
    for path in ("stamp/redeem", "points"):
        refusal(generous.till.post(path, moving_body(path, card), key="k"), 422, "idempotency_key_reused")
    refusal(generous.till.post("cards/enroll", {}, key="k"), 422, "idempotency_key_reused")


def test_the_order_of_members_makes_no_other_body(shop: ServedShop) -> None:
    body = moving_body("points", shop.enrol())
    first = shop.till.post("points", body, key="k")
    same(first, shop.till.post("points", dict(reversed(body.items())), key="k"))


def test_a_refusal_takes_no_key(shop: ServedShop) -> None:
    card = shop.enrol()
    body = moving_body("points/redeem", card)
    refusal(shop.till.post("points/redeem", body, key="k"), 409, "not_enough_points")
    shop.earn(card, 1_000)
    assert shop.till.post("points/redeem", body, key="k").status_code == 200


def test_a_wrong_pin_takes_no_key(shop: ServedShop) -> None:
    body = moving_body("points", shop.enrol())
    refusal(shop.till.post("points", body | {"staff_pin": "9999"}, key="k"), 403, "pin_invalid")
    assert shop.till.post("points", body, key="k").status_code == 200


def test_keys_are_scoped_to_the_caller(shop: ServedShop) -> None:
    card = shop.enrol()
    by_till = shop.till.post("points", moving_body("points", card), key="k")
    by_manager = shop.manager.post("points", moving_body("points", card), key="k")
    assert by_manager.status_code == 200
    assert "idempotency-replayed" not in by_manager.headers
    assert by_manager.json()["transaction_id"] != by_till.json()["transaction_id"]


def test_enrolling_takes_a_key_and_repeats_its_201(shop: ServedShop) -> None:
    first = shop.till.post("cards/enroll", {"customer_id": "C-1"}, key="k")
    assert first.status_code == 201
    same(first, shop.till.post("cards/enroll", {"customer_id": "C-1"}, key="k"))
    refusal(shop.till.post("cards/enroll", {"customer_id": "C-2"}, key="k"), 422, "idempotency_key_reused")


def test_creating_a_pin_takes_a_key_and_repeats_its_201(shop: ServedShop) -> None:
    body = {"name": "Kim", "pin": "5678"}
    first = shop.manager.post("pins", body, key="k")
    assert first.status_code == 201
    same(first, shop.manager.post("pins", body, key="k"))
    assert len(answer_of(shop.manager.get("pins"))["items"]) == 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "program", {"cooldown_minutes": 7}),
        ("PATCH", "pins/{pin}", {"name": "Kim"}),
        ("POST", "pins/{pin}/unlock", None),
        ("DELETE", "pins/{pin}", None),
    ],
)
def test_every_other_command_takes_a_key_too(
    shop: ServedShop, method: str, path: str, body: dict[str, Any] | None
) -> None:
    path = path.format(pin=shop.shop.staff_id)
    options = {"json": body} if body is not None else {}
    first = shop.manager.send(method, path, key="k", **options)
    assert first.status_code == 200
    same(first, shop.manager.send(method, path, key="k", **options))


def test_creating_the_program_takes_a_key(served: Served) -> None:
    manager = manager_without_program(served)
    first = manager.post("program", {"type": "points"}, key="k")
    assert first.status_code == 201
    same(first, manager.post("program", {"type": "points"}, key="k"))


def manager_without_program(served: Served) -> Client:
    """A manager of a merchant that has nothing yet."""
    merchant_id = uuid4()
    admin = Caller(role=Role.ADMIN, id=uuid4(), merchant_id=merchant_id)
    served.handle(OpenMerchant(name="New", locale="en", settings=MerchantSettings()), admin)
    return served.account(Role.MANAGER, merchant_id)


@pytest.mark.parametrize(
    "key", ["", '""', '"', '" "', "a" * 256, '"' + "a" * 256 + '"', "é", "tab\there", 'in"side', 'in"side"', '"half']
)
def test_a_key_is_1_to_255_printable_characters(shop: ServedShop, key: str) -> None:
    body = moving_body("points", shop.enrol())
    sent = {"Idempotency-Key": key.encode("latin-1")}
    response = shop.till.post("points", body, headers=sent)
    refusal(response, 400, "invalid_idempotency_key")


@pytest.mark.parametrize("key", ["k", "a" * 255, '"' + "a" * 255 + '"', "8e03978e-40d5-43e8-bc93-6894a57f9324", "a b"])
def test_keys_of_any_kind_are_taken(shop: ServedShop, key: str) -> None:
    assert shop.till.post("points", moving_body("points", shop.enrol()), key=key).status_code == 200


def test_a_replay_outlives_what_would_refuse_it_now(shop: ServedShop) -> None:
    body = moving_body("points", shop.enrol())
    first = shop.till.post("points", body, key="k")
    shop.served.handle(OnProgram(ChangeProgram({"active": False})), shop.shop.merchant)
    same(first, shop.till.post("points", body, key="k"))
