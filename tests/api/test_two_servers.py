"""Two API processes over one database behave as one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from ledger.commands import OnTerminal, OpenStore, OpenTerminal, RotateKey
from ledger.streams import refusals_stream
from ledger.terminal import RevokeTerminal
from tests.served import Served, ServedShop, answer_of, refusal
from tests.shop import PIN

Two = tuple[ServedShop, ServedShop]


@pytest.fixture
def both(served_twice: tuple[Served, Served]) -> Two:
    """The same shop through two servers."""
    here, there = served_twice
    shop = here.shop(cooldown_minutes=0, max_daily_stamps=10)
    manager = there.client(shop.manager.credential)
    return shop, ServedShop(there, shop.shop, there.client(shop.shop.terminal_key), manager)


def at_once(both: Two, count: int, send: Any) -> list[httpx.Response]:
    """Sends requests to both servers in turn, all at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(send, [both[number % 2] for number in range(count)]))


def points(card: dict[str, Any]) -> dict[str, Any]:
    return {"card_id": card["id"], "staff_pin": PIN, "purchase_amount_cents": 100}


def test_what_one_wrote_the_other_reads(both: Two) -> None:
    here, there = both
    card = here.enrol()
    for _ in range(3):
        position = here.till.command("points", points(card)).headers["loyalty-position"]
        read = there.till.get(f"cards/{card['id']}", headers={"Loyalty-Position": position})
        assert read.json() == here.till.get(f"cards/{card['id']}").json()
        assert there.till.command("points", points(card)).status_code == 200
    assert answer_of(here.till.get(f"cards/{card['id']}"))["points_balance"] == 60


def test_a_replay_is_the_same_on_either(both: Two) -> None:
    here, there = both
    card = here.enrol()
    first = here.till.post("points", points(card), key="k")
    again = there.till.post("points", points(card), key="k")
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"


def test_the_same_command_64_times_at_once_counts_once(both: Two) -> None:
    card = both[0].enrol()
    key = str(uuid4())
    responses = at_once(both, 64, lambda shop: shop.till.post("points", points(card), key=key))
    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in responses}) == 1
    assert sum("idempotency-replayed" not in response.headers for response in responses) == 1
    assert answer_of(both[1].till.get(f"cards/{card['id']}"))["points_balance"] == 10


def test_of_64_stamps_at_once_the_days_limit_is_given(both: Two) -> None:
    card = both[0].enrol()
    responses = at_once(both, 64, lambda shop: shop.stamp(card))
    given = [answer_of(response) for response in responses if response.status_code == 200]
    assert sorted(answer["stamp_count"] for answer in given) == list(range(1, 11))
    assert sum(response.status_code == 409 for response in responses) == 54
    assert refusals_of(both[0], card) == ["daily_stamp_limit"] * 54
    refusal(both[1].stamp(card), 409, "daily_stamp_limit")
    assert refusals_of(both[0], card) == ["daily_stamp_limit"] * 55


def refusals_of(shop: ServedShop, card: dict[str, Any]) -> list[str]:
    """Why what was asked of a card was refused, newest first."""
    return [read.event.code for _, read in shop.served.run(shop.shop.history(refusals_stream(UUID(card["id"]))))]


def test_64_wrong_pins_at_once_lock_at_exactly_the_maximum(both: Two) -> None:
    staff = str(both[0].shop.staff_id)
    body = {"staff_pin": "9999", "staff_id": staff}
    responses = at_once(both, 64, lambda shop: shop.till.post("pins/verify", body))
    left = sorted(response.json()["attempts_left"] for response in responses if response.status_code == 403)
    assert left == [0, 1, 2, 3, 4]
    assert sum(response.status_code == 423 for response in responses) == 59
    (listed,) = answer_of(both[1].manager.get("pins"))["items"]
    assert listed["failed_attempts"] == 5


def test_enrolling_one_customer_64_times_at_once_gives_one_card(both: Two) -> None:
    responses = at_once(both, 64, lambda shop: shop.till.post("cards/enroll", {"customer_id": "C-1"}))
    assert len({answer_of(response)["id"] for response in responses}) == 1
    assert sorted(response.status_code for response in responses) == [200] * 63 + [201]


# ---- what one server still has in its cache -----------------------------------------------------------------------

ROUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "program", {}),
    ("GET", "cards", {}),
    ("GET", "cards/{card}", {}),
    ("GET", "cards/{card}/transactions", {}),
    ("POST", "cards/lookup", {"qr_code": "{qr_code}"}),
    ("POST", "cards/lookup", {"card_id": "{card}"}),
    ("POST", "cards/enroll", {"customer_id": "C-2"}),
    ("POST", "pins/verify", {"staff_pin": PIN}),
    ("POST", "stamp", {"card_id": "{card}", "staff_pin": PIN}),
    ("POST", "stamp/redeem", {"card_id": "{card}", "staff_pin": PIN}),
    ("POST", "points", {"card_id": "{card}", "staff_pin": PIN, "purchase_amount_cents": 100}),
    ("POST", "points/redeem", {"card_id": "{card}", "staff_pin": PIN, "reward_id": "coffee"}),
]


def revoke(shop: ServedShop) -> None:
    shop.served.handle(OnTerminal(shop.shop.till.id, RevokeTerminal()), shop.shop.merchant)


def rotate_away(shop: ServedShop) -> None:
    """The key before the last one is good until the next rotation, so that a till can change over."""
    for _ in range(2):
        shop.served.handle(RotateKey(shop.shop.till.id), shop.shop.merchant)


@pytest.mark.parametrize("end", [revoke, rotate_away], ids=["revoked", "rotated away"])
@pytest.mark.parametrize(
    ("method", "path", "body"), ROUTES, ids=[" ".join([method, path, *body][:3]) for method, path, body in ROUTES]
)
def test_a_key_that_ended_elsewhere_is_good_for_nothing_on_a_server_that_remembers_it(
    both: Two, method: str, path: str, body: dict[str, Any], end: Callable[[ServedShop], None]
) -> None:
    here, there = both
    card = here.enrol()
    assert there.till.post("cards/lookup", {"card_id": card["id"]}).status_code == 200
    assert there.till.command("points", points(card)).status_code == 200
    end(here)
    names = {"{card}": card["id"], "{qr_code}": card["qr_code"]}
    sent = {name: names.get(value, value) for name, value in body.items()}
    options: dict[str, Any] = {"json": sent, "key": str(uuid4())} if method == "POST" else {}
    answer = there.till.send(method, path.replace("{card}", card["id"]), **options)
    refusal(answer, 401, "invalid_credentials")
    assert card["card_number"] not in answer.text


def test_the_key_before_the_last_is_good_on_either_until_the_next_rotation(both: Two) -> None:
    here, there = both
    card = here.enrol()
    assert there.till.command("points", points(card)).status_code == 200
    here.served.handle(RotateKey(here.shop.till.id), here.shop.merchant)
    for shop in both:
        assert shop.till.post("cards/lookup", {"card_id": card["id"]}).status_code == 200
        assert shop.till.command("points", points(card)).status_code == 200


def test_a_history_shows_the_store_and_the_name_that_another_server_was_told_of(both: Two) -> None:
    here, there = both
    card = here.enrol()
    here.earn(card, 100)
    history = f"cards/{card['id']}/transactions"
    newest, *_ = answer_of(there.manager.get(history))["items"]
    assert newest["staff_name"] == "Alex"
    code = f"S{uuid4().hex[:12].upper()}"
    store = OpenStore(code=code, name="Side street", time_zone="Europe/Paris", currency="EUR", locale="en")
    opened = here.served.handle(store, here.shop.merchant).result
    assert opened is not None
    (store_id,) = set(opened.main.state.stores) - {here.shop.store_id}
    till = here.served.handle(OpenTerminal(store_id, "Till 2"), here.shop.merchant).result
    assert till is not None
    assert here.manager.patch(f"pins/{here.shop.staff_id}", {"name": "Alexandra"}).status_code == 200
    branch = here.served.client(till.secret)
    assert branch.command("points", points(card)).status_code == 200
    newest, before, *_ = answer_of(there.manager.get(history))["items"]
    assert (newest["store_code"], newest["staff_name"]) == (code, "Alexandra")
    assert (before["store_code"] != code, before["staff_name"]) == (True, "Alexandra")


def test_a_change_of_the_program_is_replayed_the_same_on_either(both: Two) -> None:
    body = {"rewards": [{"name": "Tea", "points_cost": 50}, {"name": "Tea", "points_cost": 60}]}
    first, *again = (shop.manager.patch("program", body, key="k") for shop in both * 2)
    assert first.status_code == 200
    assert len({reward["id"] for reward in answer_of(first)["rewards"]}) == 2
    assert {response.content for response in again} == {first.content}
    assert all(response.headers["idempotency-replayed"] == "true" for response in again)
