"""Rules that the ledger has broken once: repetitions, locks, names of another kind, and who came first."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from ledger import card
from ledger.actor import Caller, Role
from ledger.commands import (
    ChangePin,
    CreatePin,
    OnCard,
    OnProgram,
    OnTerminal,
    OpenAccount,
    OpenStore,
    StaffEntry,
    VerifyPin,
    WhichCard,
)
from ledger.entry import Result
from ledger.errors import Rejected
from ledger.handle import Handled
from ledger.plans import account_stream
from ledger.program import ChangeProgram
from ledger.staff_pin import StaffRole
from ledger.store.names import ACCOUNT
from ledger.terminal import RevokeTerminal
from tests.running import open_ledger, running
from tests.shop import PIN, SettableClock, Shop, open_shop

WRONG_PIN = "9999"
ACCOUNT_ASKED_FOR = OpenAccount(email="mo@shop.example", password="secret", role=Role.MANAGER)


@asynccontextmanager
async def shop_on(database_url: str, **options: Any) -> AsyncIterator[Shop]:
    """A shop on one server."""
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        yield await open_shop(ledger, clock, **options)


def told(result: Result) -> bytes:
    """An answer that no later rendering would give again."""
    return msgspec.json.encode((result.main.stream, result.main.version, uuid4()))


async def refused(handling: Awaitable[Handled]) -> tuple[str, dict[str, Any]]:
    """The code and facts of a refusal."""
    with pytest.raises(Rejected) as refusal:
        await handling
    return refusal.value.code, dict(refusal.value.facts)


def changed(**rules: object) -> OnProgram:
    return OnProgram(ChangeProgram(rules))


def store(code: str, zone: str = "Europe/Paris") -> OpenStore:
    return OpenStore(code=code, name="Side street", time_zone=zone, currency="EUR", locale="en")


def some_code() -> str:
    return f"S{uuid4().hex[:12].upper()}"


def kim(pin: str = "5678") -> CreatePin:
    return CreatePin(name="Kim", pin=pin, role=StaffRole.STAFF)


async def verified(shop: Shop, pin: str, staff_id: UUID | None = None) -> tuple[str, dict[str, Any]]:
    return await refused(shop.send(VerifyPin(StaffEntry(staff_id=staff_id, staff_pin=pin))))


# ---- the same request again -----------------------------------------------------------------------------------


@running
async def test_creating_a_pin_again_under_its_key_answers_the_first_time(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        first = await shop.send(kim(), shop.merchant, key="k", answer=told)
        again = await shop.send(kim(), shop.merchant, key="k", answer=told)
        assert (again.replayed, again.answer) == (True, first.answer)


@running
async def test_creating_a_pin_8_times_at_once_under_one_key_creates_one(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        creations = [shop.send(kim(), shop.merchant, key="k", answer=told) for _ in range(8)]
        handled = await asyncio.gather(*creations)
        assert len({each.answer for each in handled}) == 1
        assert sum(not each.replayed for each in handled) == 1


@running
async def test_changing_digits_again_under_its_key_answers_the_first_time_whoever_has_them_now(
    database_url: str,
) -> None:
    async with shop_on(database_url) as shop:
        change = ChangePin(staff_id=shop.staff_id, pin="5678")
        first = await shop.send(change, shop.merchant, key="k", answer=told)
        assert (await shop.send(change, shop.merchant, key="k", answer=told)).replayed
        await shop.send(ChangePin(staff_id=shop.staff_id, pin=PIN), shop.merchant)
        assert (await shop.send(change, shop.merchant, key="k", answer=told)).replayed
        await shop.send(kim("5678"), shop.merchant)
        again = await shop.send(change, shop.merchant, key="k", answer=told)
        assert (again.replayed, again.answer) == (True, first.answer)


@running
async def test_a_revoked_till_is_not_told_even_what_it_was_told_before(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, card.AddStamp(), key="k", answer=told)
        await shop.send(OnTerminal(shop.till.id, RevokeTerminal()), shop.merchant)
        assert await refused(shop.ask(enrolled, card.AddStamp(), key="k", answer=told)) == ("invalid_credentials", {})


@running
async def test_an_order_answers_its_first_result_though_the_rules_would_refuse_it_now(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        purchase = card.EarnPoints(100, "ORD-1")
        first = await shop.ask(enrolled, purchase, answer=told)
        await shop.send(changed(minimum_purchase_cents=500), shop.merchant)
        assert (await shop.ask(enrolled, purchase, answer=told)).answer == first.answer


@running
async def test_a_key_that_was_answered_by_an_order_is_good_for_nothing_else(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        for key in ("first", "second"):
            await shop.ask(enrolled, card.EarnPoints(100, "ORD-1"), answer=told, key=key)
        other = shop.ask(enrolled, card.EarnPoints(200, "ORD-2"), answer=told, key="second")
        assert await refused(other) == ("idempotency_key_reused", {})


@running
async def test_a_customer_has_the_same_card_though_the_program_has_ended(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.send(changed(active=False), shop.merchant)
        assert (await shop.enrol(customer_id="C-1")).id == enrolled.id


@running
async def test_a_repetition_answers_the_position_of_the_first_time(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        assert (await refused(shop.ask(enrolled, card.AddStamp(), pin=WRONG_PIN)))[0] == "pin_invalid"
        first = await shop.ask(enrolled, card.AddStamp(), key="k")
        again = await shop.ask(enrolled, card.AddStamp(), key="k")
        assert (again.replayed, again.position) == (True, first.position)


@running
async def test_opening_a_store_again_under_its_key_opens_none_and_another_code_is_another_request(
    database_url: str,
) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock, code=some_code())
        theirs = (await shop.history(neighbour.merchant.merchant_id))[0][1].event.store.code
        code = some_code()
        first = await shop.send(store(code), shop.merchant, key="k", answer=told)
        again = await shop.send(store(code), shop.merchant, key="k", answer=told)
        assert (again.replayed, again.answer) == (True, first.answer)
        assert (await refused(shop.send(store(theirs), shop.merchant, key="k")))[0] == "idempotency_key_reused"
        for taken in (code, theirs):
            assert await refused(shop.send(store(taken), shop.merchant)) == ("store_code_taken", {"store_code": taken})


# ---- names of another kind ------------------------------------------------------------------------------------


@running
async def test_the_id_of_anything_but_a_card_names_no_card(database_url: str) -> None:
    async with shop_on(database_url) as shop, open_ledger(database_url) as elsewhere:
        neighbour = await open_shop(elsewhere, elsewhere.clock)
        for other in (shop.staff_id, shop.till.id, shop.merchant.merchant_id, neighbour.staff_id, neighbour.till.id):
            which = OnCard(which=WhichCard(card_id=other), staff=StaffEntry(staff_pin=PIN), command=card.AddStamp())
            assert await refused(shop.send(which)) == ("card_not_found", {})


@running
async def test_the_id_of_anything_but_a_pin_names_no_staff_member(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        for other in (enrolled.id, shop.till.id, shop.merchant.merchant_id):
            assert (await refused(shop.ask(enrolled, card.AddStamp(), staff_id=other)))[0] == "pin_invalid"


# ---- PINs -----------------------------------------------------------------------------------------------------


@running
async def test_a_locked_pin_typed_without_a_name_answers_as_a_wrong_one(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        for _ in range(5):
            await verified(shop, WRONG_PIN, shop.staff_id)
        right, wrong = await verified(shop, PIN), await verified(shop, "0000")
        assert (right[0], right[1].keys()) == (wrong[0], wrong[1].keys())


@running
async def test_a_lock_goes_by_the_clock_whenever_the_commands_say_they_happened(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        yesterday = shop.clock.now() - timedelta(days=1)
        codes = [
            (
                await refused(
                    shop.ask(enrolled, card.AddStamp(), pin=WRONG_PIN, occurred_at=yesterday + timedelta(hours=hour))
                )
            )[0]
            for hour in range(12)
        ]
        assert codes == ["pin_invalid"] * 5 + ["pin_locked"] * 7


@running
async def test_a_good_pin_starts_the_count_anew_though_the_command_is_refused(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, card.AddStamp())
        for _ in range(4):
            assert (await refused(shop.ask(enrolled, card.AddStamp(), pin=WRONG_PIN)))[0] == "pin_invalid"
        assert (await refused(shop.ask(enrolled, card.AddStamp())))[0] == "stamp_cooldown"
        again = await refused(shop.ask(enrolled, card.AddStamp(), pin=WRONG_PIN))
        assert again == ("pin_invalid", {"attempts_left": 4})


# ---- days -----------------------------------------------------------------------------------------------------


@running
async def test_the_days_limit_holds_where_two_stores_are_two_dates_apart(database_url: str) -> None:
    async with shop_on(database_url, max_daily_stamps=1, cooldown_minutes=0) as shop:
        shop.clock.time = datetime(2026, 3, 2, 10, 10, tzinfo=UTC)
        enrolled = await shop.enrol(customer_id="C-1")
        managers = [
            await manager_of_store(shop, some_code(), zone) for zone in ("Pacific/Pago_Pago", "Pacific/Kiritimati")
        ]
        stamp = OnCard(which=WhichCard(card_id=enrolled.id), command=card.AddStamp())
        for manager in managers:
            await shop.send(stamp, manager)
        for manager in managers:
            assert (await refused(shop.send(stamp, manager)))[0] == "daily_stamp_limit"


async def manager_of_store(shop: Shop, code: str, zone: str) -> Caller:
    """A manager in a new store of that time zone."""
    opened = await shop.send(store(code, zone), shop.merchant)
    assert opened.result is not None
    (store_id,) = (each.id for each in opened.result.main.state.stores.values() if each.code == code)
    return Caller(role=Role.MANAGER, id=uuid4(), merchant_id=shop.merchant.merchant_id, store_id=store_id)


# ---- accounts -------------------------------------------------------------------------------------------------


@running
async def test_an_account_opened_twice_at_once_is_one_that_can_be_read_again(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        outcomes = await asyncio.gather(
            *(shop.send(ACCOUNT_ASKED_FOR, shop.merchant) for _ in range(2)), return_exceptions=True
        )
        assert sorted(getattr(each, "code", "") for each in outcomes) == ["", "email_taken"]
        stream = account_stream(shop.ledger.secrecy, ACCOUNT_ASKED_FOR.email)
        shop.ledger.log.forget([stream])
        loaded = await shop.ledger.log.load(ACCOUNT, stream)
        assert loaded is not None
        assert loaded.version == 1


@running
async def test_an_account_opened_on_two_servers_at_once_is_one(database_url: str) -> None:
    async with shop_on(database_url) as here, open_ledger(database_url) as elsewhere:
        there = here.on(elsewhere)
        outcomes = await asyncio.gather(
            *(shop.send(ACCOUNT_ASKED_FOR, shop.merchant) for shop in (here, there)), return_exceptions=True
        )
        assert sorted(getattr(each, "code", "") for each in outcomes) == ["", "email_taken"]
