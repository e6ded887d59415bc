"""Whatever is asked for in whatever order: an answer or a refusal, and histories that tell how balances came to be."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.program import ExpiryPolicy
from tests.served import Served, ServedShop, answer_of
from tests.shop import PIN

CARDS = 3
COMMANDS_MAX = 12

Asked = tuple[str, dict[str, Any]]
"""Where to, with the place of a card (0 is the first) or of a transaction, and what."""

card_places = st.integers(0, CARDS - 1)
amounts = st.sampled_from([0, 1, 99, 333, 999, 1_000, 2_500])
reversals = st.fixed_dictionaries(
    {"allow_negative_balance": st.booleans()},
    optional={"purchase_amount_cents": amounts, "reason": st.sampled_from(["", "Broken"])},
)
changes = st.fixed_dictionaries(
    {"reason": st.just("Miscounted")},
    optional={"points": st.sampled_from([-250, -1, 0, 1, 250]), "stamps": st.sampled_from([-2, -1, 0, 1, 2])},
)


def on_a_card(path: str, bodies: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[tuple[str, int, Any]]:
    return st.tuples(st.just(path), card_places, bodies)


asked = st.one_of(
    on_a_card("points", st.fixed_dictionaries({"purchase_amount_cents": amounts})),
    on_a_card("points/redeem", st.just({"reward_id": "coffee"})),
    on_a_card("stamp", st.just({})),
    on_a_card("stamp/redeem", st.just({})),
    on_a_card("cards/{card}/adjust", changes),
    on_a_card("cards/{card}/merge", st.fixed_dictionaries({"into_card_id": card_places})),
    on_a_card("cards/{card}/suspend", st.just({})),
    on_a_card("cards/{card}/reactivate", st.just({})),
    st.tuples(st.just("transactions/{transaction}/reverse"), st.integers(0, COMMANDS_MAX), reversals),
    st.tuples(st.just("transactions/{transaction}/reverse"), st.integers(0, COMMANDS_MAX), reversals),
)


@pytest.fixture(scope="module", params=ExpiryPolicy)
def shop(served: Served, request: pytest.FixtureRequest) -> ServedShop:
    """A shop in which little is forbidden."""
    return served.shop(
        cooldown_minutes=0,
        max_daily_stamps=1_000,
        stamps_target=2,
        points_per_euro=7,
        welcome_bonus_points=50,
        points_expiration_days=30,
        expiry_policy=request.param,
    )


def holds(shop: ServedShop, cards: list[dict[str, Any]]) -> None:
    """Balances are the sums of what their histories tell, and each transaction tells the balance after it."""
    for card in cards:
        seen = answer_of(shop.till.get(f"cards/{card['id']}"))
        history = answer_of(shop.till.get(f"cards/{card['id']}/transactions?limit=200"))["items"]
        assert seen["points_balance"] == sum(item["points"] for item in history)
        assert seen["stamp_count"] == sum(item["stamps"] for item in history)
        newest = next(item for item in history if item["id"].startswith(card["id"]))
        assert (newest["points_balance"], newest["stamp_count"]) == (seen["points_balance"], seen["stamp_count"])
        ahead = answer_of(shop.till.post(f"cards/{card['id']}/expiry/preview", {"at": "2100-01-01T00:00:00Z"}))
        assert ahead["points_balance"] == min(0, ahead["points_balance"])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(commands=st.lists(asked, min_size=4, max_size=COMMANDS_MAX))
def test_corrections_in_any_order_add_up(shop: ServedShop, commands: list[tuple[str, int, dict[str, Any]]]) -> None:
    cards = [shop.enrol() for _ in range(CARDS)]
    transactions = [f"{cards[0]['id']}-2"]
    for path, place, body in commands:
        card = cards[place % CARDS]["id"]
        sent = dict(body)
        if "into_card_id" in sent:
            sent["into_card_id"] = cards[sent["into_card_id"]]["id"]
        if path.startswith("transactions"):
            sent["staff_pin"] = PIN
            transaction = transactions[place % len(transactions)]
            told = shop.till.post(f"transactions/{transaction}/reverse/preview", sent)
            response = shop.till.command(f"transactions/{transaction}/reverse", sent)
            assert told.status_code == response.status_code, (told.text, response.text)
        elif path.startswith("cards"):
            response = shop.manager.command(path.format(card=card), sent)
        else:
            response = shop.till.command(path, sent | {"card_id": card, "staff_pin": PIN})
        assert response.status_code < 500, response.text
        if response.status_code == 200 and "transaction_id" in response.json():
            transactions.append(response.json()["transaction_id"])
    holds(shop, cards)
