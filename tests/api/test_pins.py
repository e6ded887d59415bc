"""PINs over HTTP: what goes in never comes out, wrong ones count and lock, and a lock tells nothing."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ledger.commands import OpenStore
from ledger.store.names import STAFF_PIN
from tests.served import STORE, Served, ServedShop, answer_of, refusal
from tests.shop import PIN

STAFF = {"id", "name", "role", "store_id", "active", "failed_attempts", "locked_until"}
WRONG = "9999"


def good(response: httpx.Response, status: int = 200) -> dict[str, Any]:
    assert response.status_code == status, response.text
    return answer_of(response)


def create(shop: ServedShop, pin: str = "5678", **more: Any) -> dict[str, Any]:
    return good(shop.manager.post("pins", {"name": "Kim", "pin": pin, **more}), 201)


def verify(shop: ServedShop, pin: str, staff_id: str | None = None) -> httpx.Response:
    return shop.till.post("pins/verify", {"staff_pin": pin} | ({"staff_id": staff_id} if staff_id else {}))


def test_a_pin_is_created_with_its_address(shop: ServedShop) -> None:
    response = shop.manager.post("pins", {"name": "Kim", "pin": "5678", "role": "manager"})
    pin = good(response, 201)
    assert pin.keys() == STAFF
    assert (pin["name"], pin["role"], pin["store_id"]) == ("Kim", "manager", None)
    assert (pin["active"], pin["failed_attempts"], pin["locked_until"]) == (True, 0, None)
    assert response.headers["location"] == f"{STORE}/pins/{pin['id']}"
    assert good(verify(shop, "5678")) == pin


@pytest.mark.parametrize("digits", ["4321", "54321", "654321", "7654321", "87654321"])
def test_a_pin_has_4_to_8_digits(shop: ServedShop, digits: str) -> None:
    assert good(verify(shop, digits, create(shop, digits)["id"]))["name"] == "Kim"


@pytest.mark.parametrize("digits", ["", "123", "123456789", "12a4", " 1234", "1234\n", "١٢٣٤", 1234, None, ["1234"]])
def test_anything_else_is_no_pin(shop: ServedShop, digits: Any) -> None:
    response = shop.manager.post("pins", {"name": "Kim", "pin": digits})
    refusal(response, 400, "invalid_request")
    if digits:
        assert json.dumps(digits) not in response.text
    refusal(shop.manager.patch(f"pins/{shop.shop.staff_id}", {"pin": digits}), 400, "invalid_request")
    refusal(shop.till.post("pins/verify", {"staff_pin": digits}), 400, "invalid_request")


def test_two_active_pins_of_a_merchant_are_never_equal(served: Served) -> None:
    shop, other = served.shop(), served.shop()
    pin = create(shop)
    refusal(shop.manager.post("pins", {"name": "Sam", "pin": "5678"}), 409, "pin_taken")
    refusal(shop.manager.patch(f"pins/{pin['id']}", {"pin": PIN}), 409, "pin_taken")
    create(other)
    good(shop.manager.delete(f"pins/{pin['id']}"))
    assert create(shop)["id"] != pin["id"]


def test_a_change_changes_what_is_given(shop: ServedShop) -> None:
    pin = create(shop)
    path = f"pins/{pin['id']}"
    assert good(shop.manager.patch(path, {"name": "Sam"})) == pin | {"name": "Sam"}
    assert good(shop.manager.patch(path, {"role": "manager"}))["role"] == "manager"
    store = str(shop.shop.store_id)
    assert good(shop.manager.patch(path, {"store_id": store}))["store_id"] == store
    assert good(shop.manager.patch(path, {"name": "Jo"}))["store_id"] == store
    assert good(shop.manager.patch(path, {"store_id": None}))["store_id"] is None
    assert good(shop.manager.patch(path, {"pin": "2468"}))["id"] == pin["id"]
    refusal(verify(shop, "5678"), 403, "pin_invalid")
    assert good(verify(shop, "2468"))["name"] == "Jo"


def test_a_deactivated_pin_counts_no_more_and_stays_listed(shop: ServedShop) -> None:
    pin = create(shop)
    ended = good(shop.manager.delete(f"pins/{pin['id']}"))
    assert ended == pin | {"active": False}
    assert good(shop.manager.delete(f"pins/{pin['id']}")) == ended
    refusal(verify(shop, "5678"), 403, "pin_invalid")
    refusal(verify(shop, "5678", pin["id"]), 403, "pin_invalid")
    refusal(shop.manager.patch(f"pins/{pin['id']}", {"name": "Sam"}), 409, "staff_pin_inactive")
    refusal(shop.manager.post(f"pins/{pin['id']}/unlock"), 409, "staff_pin_inactive")
    assert ended in answer_of(shop.manager.get("pins"))["items"]


def test_a_store_of_somebody_else_is_none(served: Served) -> None:
    shop, other = served.shop(), served.shop()
    for store in (str(other.shop.store_id), str(uuid4())):
        refusal(shop.manager.post("pins", {"name": "K", "pin": "5678", "store_id": store}), 404, "store_not_found")
        path = f"pins/{shop.shop.staff_id}"
        refusal(shop.manager.patch(path, {"store_id": store}), 404, "store_not_found")


def test_a_pin_of_another_store_counts_there_only(shop: ServedShop) -> None:
    second = OpenStore(
        code=f"T{uuid4().hex[:12].upper()}", name="Side", time_zone="Europe/Luxembourg", currency="EUR", locale="en"
    )
    opened = shop.served.handle(second, shop.shop.merchant)
    assert opened.result is not None
    (store,) = set(opened.result.main.state.stores) - {shop.shop.store_id}
    create(shop, store_id=str(store))
    refusal(verify(shop, "5678"), 403, "staff_pin_other_store")


# ---- wrong ones -----------------------------------------------------------------------------------------------


def test_wrong_pins_for_a_named_member_lock_that_pin_for_its_time(shop: ServedShop) -> None:
    staff = str(shop.shop.staff_id)
    left = [refusal(verify(shop, WRONG, staff), 403, "pin_invalid") for _ in range(4)]
    assert left == [{"attempts_left": number} for number in (4, 3, 2, 1)]
    before = shop.served.parts.clock.now()
    last = refusal(verify(shop, WRONG, staff), 403, "pin_invalid")
    assert last.keys() == {"attempts_left", "locked_until"}
    assert last["attempts_left"] == 0
    assert refusal(verify(shop, WRONG, staff), 423, "pin_locked") == {"locked_until": last["locked_until"]}
    until = datetime.fromisoformat(last["locked_until"])
    assert timedelta(minutes=29) < until - before < timedelta(minutes=31)
    (listed,) = answer_of(shop.manager.get("pins"))["items"]
    assert listed["failed_attempts"] == 5
    assert datetime.fromisoformat(listed["locked_until"]) == until


def test_a_locked_pin_answers_the_same_whether_it_is_right_or_wrong(shop: ServedShop) -> None:
    staff = str(shop.shop.staff_id)
    for _ in range(5):
        verify(shop, WRONG, staff)
    card = shop.enrol()
    right, wrong = verify(shop, PIN, staff), verify(shop, WRONG, staff)
    assert right.content == wrong.content
    refusal(right, 423, "pin_locked")
    assert refusal(verify(shop, PIN), 403, "pin_invalid") == {"attempts_left": 4}
    assert refusal(verify(shop, WRONG), 403, "pin_invalid") == {"attempts_left": 3}
    body = {"card_id": card["id"], "staff_id": staff, "purchase_amount_cents": 100}
    right, wrong = (shop.till.command("points", body | {"staff_pin": pin}) for pin in (PIN, WRONG))
    assert right.content == wrong.content
    refusal(right, 423, "pin_locked")


def test_a_manager_opens_a_locked_pin(shop: ServedShop) -> None:
    staff = str(shop.shop.staff_id)
    for _ in range(5):
        verify(shop, WRONG, staff)
    opened = good(shop.manager.post(f"pins/{staff}/unlock"))
    assert (opened["failed_attempts"], opened["locked_until"]) == (0, None)
    assert good(verify(shop, PIN, staff))["id"] == staff


def test_wrong_pins_without_a_name_lock_the_till_and_no_member(shop: ServedShop) -> None:
    for _ in range(5):
        refusal(verify(shop, WRONG), 403, "pin_invalid")
    assert verify(shop, WRONG).content == verify(shop, PIN).content
    refusal(verify(shop, PIN), 423, "pin_locked")
    (listed,) = answer_of(shop.manager.get("pins"))["items"]
    assert (listed["failed_attempts"], listed["locked_until"]) == (0, None)


def test_wrong_pins_count_alike_with_every_command(shop: ServedShop) -> None:
    card = shop.enrol()
    which = {"card_id": card["id"], "staff_id": str(shop.shop.staff_id), "staff_pin": WRONG}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("stamp", {}),
        ("stamp/redeem", {}),
        ("points", {"purchase_amount_cents": 100}),
        ("points/redeem", {"reward_id": "coffee"}),
    ]
    for number, (path, more) in enumerate(requests):
        facts = refusal(shop.till.command(path, which | more), 403, "pin_invalid")
        assert facts == {"attempts_left": 4 - number}
    refusal(verify(shop, WRONG, str(shop.shop.staff_id)), 403, "pin_invalid")
    refusal(verify(shop, WRONG, str(shop.shop.staff_id)), 423, "pin_locked")
    for path, more in requests:
        refusal(shop.till.command(path, which | more), 423, "pin_locked")


# ---- nothing comes out ----------------------------------------------------------------------------------------


def test_no_answer_about_a_pin_holds_its_digits_hash_or_fingerprint(shop: ServedShop) -> None:
    pin = create(shop, "71935246")
    path = f"pins/{pin['id']}"
    loaded = shop.served.run(shop.served.parts.ledger.log.load(STAFF_PIN, shop.shop.staff_id, fresh=True))
    assert loaded is not None
    secrets = ["71935246", "60428135", "82846173", loaded.state.pin_hash, loaded.state.fingerprint, "$2b$"]
    said = [
        shop.manager.get("pins"),
        shop.manager.patch(path, {"pin": "60428135"}),
        shop.manager.patch(path, {"pin": "60428135", "name": "Sam"}),
        verify(shop, "60428135"),
        verify(shop, "82846173"),
        shop.manager.post("pins", {"name": "Jo", "pin": "60428135"}),
        shop.manager.post("pins", {"name": "Jo", "pin": "60428135x"}),
        shop.manager.post("pins", {"name": 1, "pin": "60428135"}),
        shop.till.command("stamp", {"staff_pin": "60428135", "unknown": 1}),
        shop.till.command("stamp", {"staff_pin": 60428135}),
        shop.manager.post(f"{path}/unlock"),
        shop.manager.delete(path),
        shop.manager.post(f"{path}/unlock"),
    ]
    for response in said:
        assert all(secret not in response.text for secret in secrets), response.text
    assert all(secret not in shop.served.errors() for secret in secrets)


def test_two_new_pins_under_one_key_are_two_requests(shop: ServedShop) -> None:
    kim = good(shop.manager.post("pins", {"name": "Kim", "pin": "5678"}, key="create"), 201)
    again = shop.manager.post("pins", {"name": "Kim", "pin": "8765"}, key="create")
    refusal(again, 422, "idempotency_key_reused")
    good(shop.manager.patch(f"pins/{kim['id']}", {"pin": "4321"}, key="change"))
    again = shop.manager.patch(f"pins/{kim['id']}", {"pin": "4322"}, key="change")
    refusal(again, 422, "idempotency_key_reused")
    assert good(verify(shop, "4321"))["id"] == kim["id"]


def test_a_manager_in_the_only_store_may_use_a_pin_of_it_without_naming_it(shop: ServedShop) -> None:
    kim = create(shop, store_id=str(shop.shop.store_id))
    assert good(shop.manager.post("pins/verify", {"staff_pin": "5678"}))["id"] == kim["id"]
