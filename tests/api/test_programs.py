"""The program over HTTP: made once, changed in part, every change a version, its limits told."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from ledger.actor import Caller, Role
from ledger.commands import OpenMerchant
from ledger.merchant import MerchantSettings
from tests.served import STORE, Client, Served, ServedShop, answer_of, refusal

PROGRAM = {
    "id",
    "version",
    "type",
    "stamps_target",
    "stamps_reward_description",
    "points_per_euro",
    "rewards",
    "minimum_purchase_cents",
    "welcome_bonus_points",
    "cooldown_minutes",
    "max_daily_stamps",
    "require_staff_pin",
    "points_expiration_days",
    "expiry_policy",
    "branding",
    "terms",
    "active",
    "changed_at",
}


@pytest.fixture
def newcomer(served: Served) -> Client:
    """The manager of a merchant without a program."""
    merchant_id = uuid4()
    admin = Caller(role=Role.ADMIN, id=uuid4(), merchant_id=merchant_id)
    served.handle(OpenMerchant(name="New", locale="en", settings=MerchantSettings()), admin)
    return served.account(Role.MANAGER, merchant_id)


def test_a_program_begins_with_the_installations_defaults(newcomer: Client) -> None:
    refusal(newcomer.get("program"), 404, "program_not_found")
    response = newcomer.post("program", {"type": "hybrid"})
    assert response.status_code == 201
    assert response.headers["location"] == f"{STORE}/program"
    program = answer_of(response)
    assert program.keys() == PROGRAM
    assert {
        "type": "hybrid",
        "version": 1,
        "stamps_target": 10,
        "points_per_euro": 10,
        "cooldown_minutes": 15,
        "max_daily_stamps": 5,
        "rewards": [],
        "minimum_purchase_cents": 0,
        "welcome_bonus_points": 0,
        "require_staff_pin": True,
        "points_expiration_days": None,
        "expiry_policy": "inactivity",
        "active": True,
    }.items() <= program.items()
    assert program["branding"].keys() == {"card_name", "card_color", "logo_url", "hero_image_url"}
    assert newcomer.get("program").json() == program


def test_a_program_is_made_of_what_is_given(newcomer: Client) -> None:
    given: dict[str, Any] = {
        "type": "points",
        "points_per_euro": 3,
        "rewards": [
            {"id": "tea", "name": "Tea", "points_cost": 50},
            {"name": "Cake", "points_cost": 90, "active": False},
        ],
        "branding": {"card_color": "#a1B2c3", "logo_url": "https://shop.example/logo.png"},
        "points_expiration_days": 365,
        "expiry_policy": "earned",
        "terms": "Be nice.\nAlways.",
    }
    program = answer_of(newcomer.post("program", given))
    for name in ("type", "points_per_euro", "points_expiration_days", "expiry_policy", "terms"):
        assert program[name] == given[name]
    tea, cake = program["rewards"]
    assert tea == {"id": "tea", "name": "Tea", "points_cost": 50, "active": True}
    assert cake == {"id": cake["id"], "name": "Cake", "points_cost": 90, "active": False}
    assert cake["id"]
    assert program["branding"]["card_color"] == "#a1B2c3"
    assert program["branding"]["card_name"]


def test_a_merchant_has_one_program(shop: ServedShop) -> None:
    program = answer_of(shop.manager.get("program"))
    facts = refusal(shop.manager.post("program", {"type": "points"}), 409, "program_exists")
    assert facts == {"program_id": program["id"]}


def test_a_change_changes_what_is_given_and_makes_a_version(shop: ServedShop) -> None:
    before = answer_of(shop.manager.get("program"))
    changed = answer_of(shop.manager.patch("program", {"cooldown_minutes": 0, "branding": {"card_name": "Café"}}))
    assert changed["version"] == before["version"] + 1
    assert changed["branding"] == before["branding"] | {"card_name": "Café"}
    same = set(before) - {"version", "changed_at", "cooldown_minutes", "branding"}
    assert {name: changed[name] for name in same} == {name: before[name] for name in same}
    assert shop.till.get("program").json() == changed


def test_a_change_of_nothing_makes_no_version(shop: ServedShop) -> None:
    before = answer_of(shop.manager.get("program"))
    assert answer_of(shop.manager.patch("program", {})) == before
    assert answer_of(shop.manager.patch("program", {"stamps_target": 10})) == before


def test_null_takes_away_what_may_be_absent(shop: ServedShop) -> None:
    assert answer_of(shop.manager.patch("program", {"points_expiration_days": 30}))["points_expiration_days"] == 30
    assert answer_of(shop.manager.patch("program", {"points_expiration_days": None}))["points_expiration_days"] is None
    shop.manager.patch("program", {"branding": {"logo_url": "https://shop.example/l.png"}})
    assert answer_of(shop.manager.patch("program", {"branding": {"logo_url": None}}))["branding"]["logo_url"] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stamps_target", 0),
        ("stamps_target", 101),
        ("points_per_euro", -1),
        ("minimum_purchase_cents", -1),
        ("welcome_bonus_points", 10**7),
        ("cooldown_minutes", 10_081),
        ("max_daily_stamps", 0),
        ("points_expiration_days", 0),
        ("points_expiration_days", 36_501),
        ("rewards", [{"id": "a", "name": "A", "points_cost": 1}, {"id": "a", "name": "B", "points_cost": 2}]),
    ],
)
def test_a_value_outside_its_limits_is_refused_by_name(shop: ServedShop, field: str, value: Any) -> None:
    before = shop.manager.get("program").json()
    facts = refusal(shop.manager.patch("program", {field: value}), 400, "invalid_program")
    assert facts["field"] == field
    assert shop.manager.get("program").json() == before


@pytest.mark.parametrize(
    "change",
    [
        {"type": "cash"},
        {"type": None},
        {"stamps_target": None},
        {"stamps_target": "10"},
        {"stamps_target": 10.5},
        {"stamps_target": True},
        {"active": "yes"},
        {"rewards": None},
        {"rewards": [{"name": "A"}]},
        {"rewards": [{"name": "A", "points_cost": 1, "price": 2}]},
        {"branding": None},
        {"branding": {"card_color": "red"}},
        {"branding": {"logo_url": "http://shop.example/l.png"}},
        {"branding": {"logo_url": "javascript:alert(1)"}},
        {"terms": "\x00"},
        {"expiry_policy": "never"},
        {"version": 3},
        {"id": str(UUID(int=1))},
    ],
    ids=str,
)
def test_a_change_that_is_not_as_documented_is_refused(shop: ServedShop, change: dict[str, Any]) -> None:
    refusal(shop.manager.patch("program", change), 400, "invalid_request")


def test_a_new_version_counts_from_the_next_command_on(shop: ServedShop) -> None:
    card = shop.enrol()
    assert shop.earn(card, 100)["points_earned"] == 10
    shop.manager.patch("program", {"points_per_euro": 20})
    assert shop.earn(card, 100)["points_earned"] == 20


def test_creating_with_rewards_that_have_no_ids_again_under_its_key_answers_the_first_time(newcomer: Client) -> None:
    body = {"type": "points", "rewards": [{"name": "Tea", "points_cost": 50}, {"name": "Cake", "points_cost": 60}]}
    first, again = (newcomer.post("program", body, key="k") for _ in range(2))
    assert (first.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert len({reward["id"] for reward in answer_of(first)["rewards"]}) == 2
    other = {**body, "rewards": [{"name": "Tea", "points_cost": 51}]}
    refusal(newcomer.post("program", other, key="k"), 422, "idempotency_key_reused")


def test_changing_to_rewards_that_have_no_ids_again_under_its_key_answers_the_first_time(shop: ServedShop) -> None:
    body = {"rewards": [{"name": "Tea", "points_cost": 50}, {"id": "cake", "name": "Cake", "points_cost": 60}]}
    first, again = (shop.manager.patch("program", body, key="k") for _ in range(2))
    assert (first.status_code, again.content) == (200, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert answer_of(first)["rewards"][1]["id"] == "cake"
