"""Rules that the ledger has broken once: repetitions, locks, names of another kind, and who came first."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from threading import Event
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from psycopg import sql

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
from ledger.entry import Handled
from ledger.errors import Unavailable
from ledger.program import ChangeProgram, ExpiryPolicy
from ledger.secrecy import BCRYPT_WAITING_MAX
from ledger.staff_pin import StaffRole
from ledger.store.deadline import session_options
from ledger.store.names import ACCOUNT, PROGRAM
from ledger.streams import account_stream, program_stream
from ledger.terminal import RevokeTerminal
from tests.at_the_door import refused, shop_on, told
from tests.running import open_ledger, running
from tests.shop import PIN, Shop, open_shop

WRONG_PIN = "9999"
ANSWER_SECONDS_MAX = 3.0
WELL_AGAIN_SECONDS_MAX = 10.0
ACCOUNT_ASKED_FOR = OpenAccount(email="mo@shop.example", password="secret", role=Role.MANAGER)


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


# ---- the end of the log lost under a running server -----------------------------------------------------------


async def lose_the_end(database_url: str, stream: UUID, keys: list[str]) -> None:
    """Takes away a stream's last event and the claims of its command, as a standby that lagged would lack them."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        lost = await connection.execute(
            "DELETE FROM events WHERE originator_id = %(stream)s AND originator_version ="
            " (SELECT max(originator_version) FROM events WHERE originator_id = %(stream)s)",
            {"stream": stream},
        )
        assert lost.rowcount == 1
        for key in keys:
            lost = await connection.execute("DELETE FROM claims WHERE right(key, %s) = %s", (len(key), key))
            assert lost.rowcount == 1


async def agrees(shop: Shop, which: card.Card) -> int:
    """The balance, once a server that remembers nothing is seen to agree and the versions to have no hole."""
    history = [read for _, read in await shop.history(which.id)]
    assert [read.at.version for read in history] == list(range(len(history), 0, -1))
    for read, before in pairwise(history):
        assert read.previous_hash == before.hash
    balance = sum(read.event.points for read in history if isinstance(read.event, card.PointsEarned))
    shop.ledger.log.forget([which.id])
    assert (await shop.card(which)).points_balance == balance
    return balance


@running
async def test_nothing_is_built_upon_an_event_that_the_database_lost(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, card.EarnPoints(100))
        await shop.ask(enrolled, card.EarnPoints(200), key="lost")
        await lose_the_end(database_url, enrolled.id, [":lost"])
        after = await shop.ask(enrolled, card.EarnPoints(400))
        assert after.result is not None
        assert (after.result.main.version, after.result.main.state.points_balance) == (3, 50)
        assert await agrees(shop, enrolled) == 50


@running
async def test_a_command_that_the_database_lost_is_done_when_it_is_sent_again(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, card.EarnPoints(200), key="lost")
        await lose_the_end(database_url, enrolled.id, [":lost"])
        assert not (await shop.ask(enrolled, card.EarnPoints(200), key="lost")).replayed
        assert (await shop.ask(enrolled, card.EarnPoints(200), key="lost")).replayed
        assert await agrees(shop, enrolled) == 20


@running
async def test_a_refusal_does_not_rest_on_an_event_that_the_database_lost(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, card.AddStamp(), key="lost")
        await lose_the_end(database_url, enrolled.id, [":lost"])
        stamped = await shop.ask(enrolled, card.AddStamp())
        assert stamped.result is not None
        assert (stamped.result.main.version, stamped.result.main.state.stamp_count) == (2, 1)


@running
async def test_a_reward_is_not_paid_with_points_that_the_database_lost(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, card.EarnPoints(1_000), key="lost")
        await lose_the_end(database_url, enrolled.id, [":lost"])
        assert (await refused(shop.ask(enrolled, card.RedeemPoints("coffee"))))[0] == "not_enough_points"
        assert await agrees(shop, enrolled) == 0


@running
async def test_a_server_does_not_mistake_what_another_wrote_in_its_place_for_the_event_that_was_lost(
    database_url: str,
) -> None:
    async with shop_on(database_url) as here, open_ledger(database_url, here.clock) as elsewhere:
        there = here.on(elsewhere)
        enrolled = await here.enrol(customer_id="C-1")
        await here.ask(enrolled, card.EarnPoints(200), key="lost")
        await lose_the_end(database_url, enrolled.id, [":lost"])
        await there.ask(enrolled, card.EarnPoints(400))
        after = await here.ask(enrolled, card.EarnPoints(800))
        assert after.result is not None
        assert (after.result.main.version, after.result.main.state.points_balance) == (3, 120)
        assert await agrees(here, enrolled) == 120


# ---- the database stuck, or set up otherwise ------------------------------------------------------------------


@running
async def test_8_commands_for_a_card_behind_a_locked_table_are_each_answered_in_time(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, card.EarnPoints(100))

        async def seconds() -> float:
            began = monotonic()
            with pytest.raises(Unavailable):
                await shop.ask(enrolled, card.EarnPoints(100))
            return monotonic() - began

        async with await psycopg.AsyncConnection.connect(database_url) as somebody:
            await somebody.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
            assert max(await asyncio.gather(*(seconds() for _ in range(8)))) < ANSWER_SECONDS_MAX
        await until_well(lambda: shop.ask(enrolled, card.EarnPoints(100)))
        await agrees(shop, enrolled)


async def until_well(send: Callable[[], Awaitable[Handled]]) -> None:
    """Sends it until it is done; each try answers in time by itself."""
    until = monotonic() + WELL_AGAIN_SECONDS_MAX
    while True:
        try:
            await send()
        except Unavailable:
            assert monotonic() < until
        else:
            return


@running
async def test_a_database_that_isolates_more_by_default_is_as_good(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        await connection.execute(
            sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'").format(name)
        )
    async with shop_on(database_url) as here, open_ledger(database_url, here.clock) as elsewhere:
        there = here.on(elsewhere)
        enrolled = await here.enrol(customer_id="C-1")
        purchases = [shop.ask(enrolled, card.EarnPoints(100)) for shop in [here, there] * 16]
        await asyncio.gather(*purchases)
        assert await agrees(here, enrolled) == 320


@running
async def test_options_of_the_connection_string_are_kept(database_url: str) -> None:
    options = "-c search_path=elsewhere -c default_transaction_isolation=serializable"
    asked_for = psycopg.conninfo.make_conninfo(database_url, options=options)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("CREATE SCHEMA elsewhere")
        for table in ("events", "claims", "subject_keys", "snapshots"):
            await connection.execute(sql.SQL("ALTER TABLE {} SET SCHEMA elsewhere").format(sql.Identifier(table)))
        await connection.execute(
            "DO $$ BEGIN EXECUTE (SELECT format('ALTER FUNCTION %s SET SCHEMA elsewhere', oid::regprocedure)"
            " FROM pg_proc WHERE proname = 'ledger_append'); END $$"
        )
    async with shop_on(asked_for) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await asyncio.gather(*(shop.ask(enrolled, card.EarnPoints(100)) for _ in range(8)))
        assert await agrees(shop, enrolled) == 80
    session = psycopg.conninfo.make_conninfo(asked_for, options=session_options(asked_for))
    async with await psycopg.AsyncConnection.connect(session) as connection:
        shown = await (
            await connection.execute(
                "SELECT current_setting('search_path'), current_setting('default_transaction_isolation')"
            )
        ).fetchone()
    assert shown == ("elsewhere", "read committed")


# ---- snapshots and lots ---------------------------------------------------------------------------------------


@running
@pytest.mark.parametrize("shape", [b"", b"\xc1", b"\x93\x80\x01\xa0", b"\x90", b"\x80"], ids=repr)
async def test_a_snapshot_in_a_shape_that_cannot_be_read_is_ignored(database_url: str, shape: bytes) -> None:
    async with shop_on(database_url) as shop:
        stream = program_stream(shop.merchant.merchant_id)
        await shop.send(changed(points_per_euro=7), shop.merchant)
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await connection.execute(
                "INSERT INTO snapshots (stream_id, merchant_id, version, fold, state) VALUES (%s, %s, 1, %s, %s)",
                (stream, shop.merchant.merchant_id, PROGRAM.fold, shape),
            )
        shop.ledger.log.forget([stream])
        loaded = await shop.ledger.log.load(PROGRAM, stream)
        assert loaded is not None
        assert (loaded.version, loaded.state.rules.points_per_euro) == (2, 7)


@running
async def test_what_was_earned_earlier_is_spent_first_though_it_was_imported_later(database_url: str) -> None:
    async with shop_on(database_url, points_expiration_days=730, expiry_policy=ExpiryPolicy.EARNED) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, card.EarnPoints(1_000))
        last_year = shop.clock.now() - timedelta(days=365)
        await shop.ask(enrolled, card.EarnPoints(600), occurred_at=last_year)
        assert [(lot.lot, lot.earned_at) for lot in (await shop.card(enrolled)).lots] == [
            (3, last_year),
            (2, shop.clock.now()),
        ]
        await shop.ask(enrolled, card.RedeemPoints("coffee"))
        (_, read), *_ = await shop.history(enrolled.id)
        assert [(part.lot, part.points) for part in read.event.lots] == [(3, 60), (2, 40)]
        shop.ledger.log.forget([enrolled.id])
        assert [(lot.lot, lot.points) for lot in (await shop.card(enrolled)).lots] == [(2, 60)]


@running
async def test_the_cooldown_names_the_time_at_which_a_stamp_is_taken_though_the_day_was_used_up(
    database_url: str,
) -> None:
    async with shop_on(database_url, max_daily_stamps=1) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, card.AddStamp())
        code, facts = await refused(shop.ask(enrolled, card.AddStamp()))
        assert (code, facts) == ("stamp_cooldown", {"next_stamp_available_at": "2026-03-02T23:00:00Z"})
        shop.clock.time = datetime.fromisoformat(facts["next_stamp_available_at"]) - timedelta(seconds=1)
        assert (await refused(shop.ask(enrolled, card.AddStamp())))[0] == "daily_stamp_limit"
        shop.clock.forward(seconds=1)
        await shop.ask(enrolled, card.AddStamp())


# ---- PINs and the stores they are of --------------------------------------------------------------------------


async def with_4_wrong_pins(shop: Shop, enrolled: card.Card, staff_id: UUID | None) -> None:
    for _ in range(4):
        wrong = shop.ask(enrolled, card.AddStamp(), pin=WRONG_PIN, staff_id=staff_id)
        assert (await refused(wrong))[0] == "pin_invalid"


@running
@pytest.mark.parametrize("named", [True, False], ids=["named", "alone"])
async def test_a_good_pin_starts_the_count_anew_though_there_is_no_such_card(database_url: str, named: bool) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        staff_id = shop.staff_id if named else None
        for which in (WhichCard(card_id=uuid4()), WhichCard(card_number="000000000000"), WhichCard(qr_code="none")):
            await with_4_wrong_pins(shop, enrolled, staff_id)
            entry = StaffEntry(staff_pin=PIN, staff_id=staff_id)
            unknown = OnCard(which=which, staff=entry, command=card.AddStamp())
            assert (await refused(shop.send(unknown)))[0] == "card_not_found"
        again = shop.ask(enrolled, card.AddStamp(), pin=WRONG_PIN, staff_id=staff_id)
        assert await refused(again) == ("pin_invalid", {"attempts_left": 4})


@running
@pytest.mark.parametrize("named", [True, False], ids=["named", "alone"])
async def test_a_good_pin_of_another_store_starts_the_count_anew_and_is_refused(database_url: str, named: bool) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        branch = await manager_of_store(shop, some_code(), "Europe/Paris")
        created = await shop.send(msgspec.structs.replace(kim(), store_id=branch.store_id), shop.merchant)
        assert created.result is not None
        staff_id = created.result.main.stream if named else None
        for _ in range(3):
            await with_4_wrong_pins(shop, enrolled, staff_id)
            foreign = shop.ask(enrolled, card.AddStamp(), pin="5678", staff_id=staff_id)
            assert (await refused(foreign))[0] == "staff_pin_other_store"


@running
async def test_a_manager_in_the_only_store_may_use_a_pin_of_it_without_naming_it(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.send(msgspec.structs.replace(kim(), store_id=shop.store_id), shop.merchant)
        manager = Caller(role=Role.MANAGER, id=uuid4(), merchant_id=shop.merchant.merchant_id)
        entry = StaffEntry(staff_pin="5678")
        await shop.send(VerifyPin(entry), manager)
        stamp = OnCard(which=WhichCard(card_id=enrolled.id), staff=entry, command=card.AddStamp())
        await shop.send(stamp, manager)
        assert (await shop.card(enrolled)).stamp_count == 1


@running
async def test_two_new_pins_under_one_key_are_two_requests(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        await shop.send(kim("5678"), shop.merchant, key="create")
        assert (await refused(shop.send(kim("8765"), shop.merchant, key="create")))[0] == "idempotency_key_reused"
        await shop.send(ChangePin(staff_id=shop.staff_id, pin="4321"), shop.merchant, key="change")
        other = ChangePin(staff_id=shop.staff_id, pin="4322")
        assert (await refused(shop.send(other, shop.merchant, key="change")))[0] == "idempotency_key_reused"


@running
async def test_a_command_is_the_same_whoever_types_their_pin(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.send(kim("5678"), shop.merchant)
        first = await shop.ask(enrolled, card.EarnPoints(100), key="k", answer=told)
        again = await shop.ask(enrolled, card.EarnPoints(100), key="k", answer=told, pin="5678")
        assert (again.replayed, again.answer) == (True, first.answer)


@running
async def test_with_too_many_pins_waiting_to_be_checked_the_next_is_unavailable(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = Event()

    def checkpw(_: bytes, __: bytes) -> bool:
        return may_go_on.wait(WELL_AGAIN_SECONDS_MAX)

    async with shop_on(database_url) as shop:
        secrecy = shop.ledger.secrecy
        monkeypatch.setattr("ledger.secrecy.bcrypt.checkpw", checkpw)
        waiting = [asyncio.create_task(secrecy.matches(f"secret {n}", "hash")) for n in range(BCRYPT_WAITING_MAX)]
        try:
            enrolled = await shop.enrol(customer_id="C-1")
            for entered in (PIN, WRONG_PIN):
                with pytest.raises(Unavailable):
                    await shop.ask(enrolled, card.AddStamp(), pin=entered)
        finally:
            may_go_on.set()
        assert await asyncio.gather(*waiting) == [True] * BCRYPT_WAITING_MAX
        monkeypatch.undo()
        await shop.ask(enrolled, card.AddStamp())


# ---- stores ---------------------------------------------------------------------------------------------------


@running
@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "Europe", "europe/paris"])
async def test_a_store_in_no_time_zone_is_refused_and_its_code_left_free(database_url: str, zone: str) -> None:
    async with shop_on(database_url) as shop:
        code = some_code()
        refusal = await refused(shop.send(store(code, zone), shop.merchant))
        assert refusal == ("invalid_time_zone", {"time_zone": zone})
        await shop.send(store(code), shop.merchant)


@running
@pytest.mark.parametrize("currency", ["", "EU", "EURO", "eur", "EUR\n", "ÉUR", "E1R"])
async def test_a_store_with_no_currency_is_refused_and_its_code_left_free(database_url: str, currency: str) -> None:
    async with shop_on(database_url) as shop:
        code = some_code()
        bad = msgspec.structs.replace(store(code), currency=currency)
        assert (await refused(shop.send(bad, shop.merchant)))[0] == "invalid_currency"
        await shop.send(store(code), shop.merchant)
