"""Two API processes over one database behave as one."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

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
    refusal(both[1].stamp(card), 409, "daily_stamp_limit")


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
