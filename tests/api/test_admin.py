"""What who runs the platform reads: programs, merchants, stores, tills, and figures of all of them together."""

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from ledger.actor import PLATFORM, Caller, Role
from ledger.card import EarnPoints
from ledger.commands import OnCard, OnTerminal, OpenMerchant, OpenStore, OpenTerminal, StaffEntry, WhichCard
from ledger.merchant import MerchantSettings
from ledger.streams import program_stream
from ledger.terminal import RevokeTerminal
from tests.served import Client, Served, ServedShop, answer_of, refusal
from tests.shop import PIN

ADMIN = "/api/v1/admin/loyalty"


@pytest.fixture(scope="module")
def admin(served: Served) -> Client:
    """Who runs the platform."""
    return served.account(Role.ADMIN, PLATFORM)


def everything(admin: Client, path: str, limit: int = 200) -> list[dict[str, Any]]:
    """All items of a list, page by page."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = answer_of(admin.get(path, params={"limit": limit} | ({"cursor": cursor} if cursor else {})))
        assert len(page["items"]) <= limit
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


def test_programs_of_all_merchants_are_listed_once_oldest_first(served: Served, admin: Client) -> None:
    here, there = served.shop(), served.shop()
    whole = everything(admin, f"{ADMIN}/programs")
    assert [each["merchant_id"] for each in whole][-2:] == [str(here.merchant_id), str(there.merchant_id)]
    assert everything(admin, f"{ADMIN}/programs", 1) == whole
    assert len({each["id"] for each in whole}) == len(whole)


def test_a_listed_program_tells_whose_it_is_and_what_it_came_to(served: Served, admin: Client) -> None:
    shop = served.shop()
    card = shop.enrol()
    shop.enrol()
    shop.earn(card, 2_500)
    assert shop.stamp(card).status_code == 200
    listed = everything(admin, f"{ADMIN}/programs")[-1]
    (code,) = listed["store_codes"]
    assert code.startswith("S")
    assert listed == {
        "id": str(program_stream(shop.merchant_id)),
        "type": "hybrid",
        "active": True,
        "card_name": "Loyalty Card",
        "merchant_id": str(shop.merchant_id),
        "merchant_name": "Corner shop",
        "store_codes": [code],
        "figures": {
            "cards": 2,
            "active_cards": 1,
            "enrolments": 2,
            "purchases": 1,
            "purchase_amount_cents": 2_500,
            "redemptions": 0,
            "stamps_added": 1,
            "stamps_redeemed": 0,
            "stamps_outstanding": 1,
            "points_earned": 250,
            "points_redeemed": 0,
            "points_expired": 0,
            "points_outstanding": 250,
        },
    }
    whole = answer_of(admin.get(f"{ADMIN}/programs/{listed['id']}"))
    mine = answer_of(shop.manager.get("program"))
    assert whole == mine | {name: listed[name] for name in ("merchant_id", "merchant_name", "store_codes")}


def test_a_programs_statistics_are_those_that_its_managers_see(served: Served, admin: Client) -> None:
    shop = served.shop()
    shop.earn(shop.enrol(), 2_500)
    path = f"{ADMIN}/programs/{program_stream(shop.merchant_id)}/stats"
    mine = answer_of(shop.manager.get("stats"))
    assert answer_of(admin.get(path)) == mine
    assert admin.get(f"{path}?format=csv").text == shop.manager.get("stats?format=csv").text
    assert answer_of(admin.get(f"{path}?from=2999-01-01"))["purchases"] == 0


def test_the_platforms_statistics_are_those_of_all_programs_together(served: Served, admin: Client) -> None:
    shops = [served.shop(), served.shop()]
    for shop in shops:
        shop.earn(shop.enrol(), 1_000)
    whole = answer_of(admin.get(f"{ADMIN}/stats"))
    programs = everything(admin, f"{ADMIN}/programs")
    each = [answer_of(admin.get(f"{ADMIN}/programs/{program['id']}/stats")) for program in programs]
    counted = whole.keys() - {
        *("from", "to", "redemption_rate", "by_day", "merchants", "programs", "stores"),
    }
    assert {"active_cards", "cards", "points_earned", "points_outstanding", "returning_cards"} <= counted
    for name in counted:
        assert whole[name] == sum(one[name] for one in each), name
    for day in whole["by_day"]:
        theirs = [one for program in each for one in program["by_day"] if one["day"] == day["day"]]
        assert day["active_cards"] == sum(one["active_cards"] for one in theirs)
        assert day["points_earned"] == sum(one["points_earned"] for one in theirs)
    assert whole["programs"] == len(programs)
    merchants = everything(admin, f"{ADMIN}/merchants")
    assert whole["merchants"] == len(merchants)
    assert whole["stores"] == sum(len(merchant["store_codes"]) for merchant in merchants)


def test_a_merchant_without_a_program_or_a_store_is_one_too(served: Served, admin: Client) -> None:
    merchant_id = uuid4()
    caller = Caller(role=Role.ADMIN, id=uuid4(), merchant_id=merchant_id)
    served.handle(OpenMerchant(name="New shop", locale="fr", settings=MerchantSettings()), caller)
    expected: dict[str, Any] = {
        "id": str(merchant_id),
        "name": "New shop",
        "locale": "fr",
        "store_codes": [],
        "program_id": None,
    }
    assert answer_of(admin.get(f"{ADMIN}/merchants/{merchant_id}")) == expected
    assert everything(admin, f"{ADMIN}/merchants")[-1] == expected
    assert answer_of(admin.get(f"{ADMIN}/merchants/{merchant_id}/stores")) == {"items": [], "next_cursor": None}
    refusal(admin.get(f"{ADMIN}/programs/{program_stream(merchant_id)}"), 404, "program_not_found")
    assert answer_of(admin.get(f"{ADMIN}/stats"))["merchants"] >= 1


def test_a_merchants_settings_and_stores_are_read_as_they_are_now(served: Served, admin: Client) -> None:
    shop = served.shop(settings=MerchantSettings(pin_lockout_minutes=7, allow_self_enrollment=False))
    settings = answer_of(admin.get(f"{ADMIN}/merchants/{shop.merchant_id}/settings"))
    assert (settings["pin_lockout_minutes"], settings["allow_self_enrollment"]) == (7, False)
    assert settings["staff_pin_policy"] == "required"
    assert settings.keys() == set(MerchantSettings.__struct_fields__)
    code = f"T{uuid4().hex[:12].upper()}"
    opening = OpenStore(code=code, name="Ginza", time_zone="Asia/Tokyo", currency="JPY", locale="ja")
    served.handle(opening, shop.shop.merchant)
    path = f"{ADMIN}/merchants/{shop.merchant_id}/stores"
    first, second = everything(admin, path)
    assert everything(admin, path, 1) == everything(admin, path, 2) == [first, second]
    assert first["id"] == str(shop.shop.store_id)
    assert (second["code"], second["name"], second["time_zone"]) == (code, "Ginza", "Asia/Tokyo")
    assert (second["currency"], second["locale"], second["merchant_id"]) == ("JPY", "ja", str(shop.merchant_id))
    merchant = answer_of(admin.get(f"{ADMIN}/merchants/{shop.merchant_id}"))
    assert merchant["store_codes"] == [first["code"], code]
    assert merchant["program_id"] == str(program_stream(shop.merchant_id))


def test_tills_are_listed_by_store_without_anything_of_their_keys(served: Served, admin: Client) -> None:
    shop = served.shop()
    merchant, store_id = shop.shop.merchant, shop.shop.store_id
    opening = OpenStore(
        code=f"T{uuid4().hex[:12].upper()}", name="Other", time_zone="Europe/Paris", currency="EUR", locale="fr"
    )
    opened = served.handle(opening, merchant)
    assert opened.result is not None
    other = next(each for each in opened.result.main.state.stores if each != store_id)
    secrets: list[str] = []
    tills_made: list[UUID] = []
    for name, store in (("Till 2", store_id), ("Elsewhere", other), ("Till 3", store_id)):
        made = served.handle(OpenTerminal(store_id=store, name=name), merchant)
        assert made.result is not None
        assert made.result.secret is not None
        secrets.append(made.result.secret)
        tills_made.append(made.result.main.stream)
    served.handle(OnTerminal(tills_made[-1], RevokeTerminal()), merchant)
    for limit in (1, 2, 3, 200):
        tills = everything(admin, f"{ADMIN}/stores/{store_id}/terminals", limit)
        assert [(till["name"], till["live_keys"], till["revoked"]) for till in tills] == [
            ("Till 1", 1, False),
            ("Till 2", 1, False),
            ("Till 3", 0, True),
        ]
    assert [till["name"] for till in everything(admin, f"{ADMIN}/stores/{other}/terminals")] == ["Elsewhere"]
    text = admin.get(f"{ADMIN}/stores/{store_id}/terminals").text
    assert "digest" not in text
    assert all(secret.rsplit("_", 1)[1] not in text for secret in secrets)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("programs/{none}", "program_not_found"),
        ("programs/{none}/stats", "program_not_found"),
        ("programs/{merchant}", "program_not_found"),
        ("merchants/{none}", "merchant_not_found"),
        ("merchants/{store}", "merchant_not_found"),
        ("merchants/{none}/settings", "merchant_not_found"),
        ("merchants/{none}/stores", "merchant_not_found"),
        ("stores/{none}/terminals", "store_not_found"),
        ("stores/{merchant}/terminals", "store_not_found"),
    ],
)
def test_what_is_not_there_is_not_found(shop: ServedShop, admin: Client, path: str, code: str) -> None:
    names = {"none": uuid4(), "merchant": shop.merchant_id, "store": shop.shop.store_id}
    refusal(admin.get(f"{ADMIN}/{path.format(**names)}"), 404, code)


def test_a_card_that_was_used_long_ago_is_not_active(served: Served, admin: Client) -> None:
    shop = served.shop()
    ledger, now = served.parts.ledger, served.parts.clock.now()
    for days, active in ((40, 0), (25, 1)):
        card = shop.enrol()
        which, staff = WhichCard(qr_code=card["qr_code"]), StaffEntry(staff_pin=PIN)
        late = OnCard(which=which, staff=staff, command=EarnPoints(1_000, None))
        handled = served.run(ledger.handle(late, shop.shop.till, occurred_at=now - timedelta(days=days)))
        served.seen.at(handled.position)
        figures = everything(admin, f"{ADMIN}/programs")[-1]["figures"]
        assert (figures["active_cards"], figures["purchases"]) == (active, 1 + active)
