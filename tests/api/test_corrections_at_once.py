"""Corrections through two API processes at once: nothing is lost, doubled, or done twice."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.served import Served, ServedShop, answer_of
from tests.shop import PIN

Two = tuple[ServedShop, ServedShop]
Sent = tuple[str, str, dict[str, Any]]
"""As whom, where to, and what."""


@pytest.fixture
def both(served_twice: tuple[Served, Served]) -> Two:
    """The same shop through two servers."""
    here, there = served_twice
    shop = here.shop(cooldown_minutes=0, max_daily_stamps=1_000)
    manager = there.client(shop.manager.credential)
    return shop, ServedShop(there, shop.shop, there.client(shop.shop.terminal_key), manager)


def at_once(both: Two, requests: list[Sent]) -> list[httpx.Response]:
    """Sends requests to both servers in turn, all at the same time, each under a key of its own."""

    def send(numbered: tuple[int, Sent]) -> httpx.Response:
        number, (role, path, body) = numbered
        shop = both[number % 2]
        client = shop.manager if role == "manager" else shop.till
        key = str(uuid4())
        while (response := client.post(path, body, key=key)).status_code == 503:
            pass
        return response

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(send, enumerate(requests)))


def outcomes(responses: list[httpx.Response]) -> Counter[str]:
    """How often what was answered: `done`, or the code of a refusal."""
    return Counter("done" if each.status_code == 200 else each.json()["code"] for each in responses)


def seen(both: Two, card: dict[str, Any]) -> dict[str, Any]:
    """A card as both servers show it."""
    one, other = (answer_of(shop.till.get(f"cards/{card['id']}")) for shop in both)
    assert one == other
    return one


def test_of_64_reversals_at_once_one_succeeds(both: Two) -> None:
    card = both[0].enrol()
    purchase = both[0].earn(card, 1_000)["transaction_id"]
    both[1].earn(card, 1_000)
    responses = at_once(both, [("till", f"transactions/{purchase}/reverse", {"staff_pin": PIN})] * 64)
    assert outcomes(responses) == Counter(done=1, already_reversed=63)
    assert seen(both, card)["points_balance"] == 100


def test_64_refunds_at_once_take_back_exactly_what_was_earned(both: Two) -> None:
    card = both[0].enrol()
    purchase = both[0].earn(card, 1_999)["transaction_id"]
    both[1].earn(card, 10)
    refund = {"staff_pin": PIN, "purchase_amount_cents": 50}
    responses = at_once(both, [("till", f"transactions/{purchase}/reverse", refund)] * 64)
    assert outcomes(responses) == Counter(done=39, more_than_is_left=25)
    rest = both[1].till.command(f"transactions/{purchase}/reverse", {"staff_pin": PIN})
    taken = [answer_of(each)["points_reversed"] for each in [*responses, rest] if each.status_code == 200]
    assert sum(taken) == 199
    assert seen(both, card)["points_balance"] == 1


def test_merges_in_both_directions_at_once_with_purchases_and_redemptions_lose_nothing(both: Two) -> None:
    one, other = (both[0].enrol() for _ in range(2))
    for each in (one, other):
        both[0].earn(each, 10_000)
    requests: list[Sent] = []
    for card in (one, other):
        which = {"card_number": card["card_number"], "staff_pin": PIN}
        requests += [("till", "points", which | {"purchase_amount_cents": 100})] * 8
        requests += [("till", "stamp", which), ("till", "points/redeem", which | {"reward_id": "coffee"})] * 4
        requests += [("manager", f"cards/{card['id']}/adjust", {"points": 3, "stamps": 1, "reason": "x"})] * 2
    requests.insert(3, ("manager", f"cards/{one['id']}/merge", {"into_card_id": other["id"]}))
    requests.insert(20, ("manager", f"cards/{other['id']}/merge", {"into_card_id": one["id"]}))
    responses = at_once(both, requests)
    codes = outcomes(responses)
    # What a manager corrects is the card that they look at, if it is still there.
    late = codes["card_merged"]
    assert codes == Counter(done=len(requests) - 1 - late, same_card=1) + Counter(card_merged=late)
    assert late <= 2
    states = [seen(both, card) for card in (one, other)]
    (gone,) = (each for each in states if each["merged_into"] is not None)
    (left,) = (each for each in states if each["merged_into"] is None)
    assert (gone["status"], gone["points_balance"], gone["stamp_count"]) == ("closed", 0, 0)
    assert gone["merged_into"] == left["id"]
    assert left["points_balance"] == 2 * (1_000 + 8 * 10 - 4 * 100 + 2 * 3) - 3 * late
    assert left["stamp_count"] == 2 * (4 + 2) - late
    history = answer_of(both[1].till.get(f"cards/{left['id']}/transactions?limit=200"))["items"]
    assert sum(each["points"] for each in history) == left["points_balance"]
    assert sum(each["stamps"] for each in history) == left["stamp_count"]


def test_a_card_closed_on_one_server_is_closed_on_the_other_that_remembers_it(both: Two) -> None:
    here, there = both
    card = here.enrol("C-1")
    there.earn(card, 100)
    assert here.manager.post(f"cards/{card['id']}/close", {}).status_code == 200
    response = there.stamp(card)
    assert (response.status_code, response.json()["code"]) == (409, "card_not_active")
    assert there.enrol("C-1")["id"] != card["id"]


def test_what_one_server_merged_the_other_finds_by_the_old_names(both: Two) -> None:
    here, there = both
    old, new = here.enrol(), here.enrol()
    for name in ("qr_code", "card_number"):
        body = {name: old[name], "staff_pin": PIN, "purchase_amount_cents": 100}
        assert there.till.command("points", body).status_code == 200
    assert here.manager.command(f"cards/{old['id']}/merge", {"into_card_id": new["id"]}).status_code == 200
    for name in ("qr_code", "card_number"):
        preview = there.till.post("points/preview", {name: old[name], "purchase_amount_cents": 100})
        assert answer_of(preview)["card"]["id"] == new["id"]
        assert answer_of(there.till.post("cards/lookup", {name: old[name]})) == seen(both, new)
        body = {name: old[name], "staff_pin": PIN, "purchase_amount_cents": 100}
        assert answer_of(there.till.command("points", body))["card"]["id"] == new["id"]
    assert seen(both, new)["points_balance"] == 40
