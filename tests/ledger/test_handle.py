"""The one door of the ledger, on a real log: each command once, on current facts, whoever else writes."""

import dataclasses
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from ledger import card
from ledger.actor import PLATFORM, Caller, Role
from ledger.attempts import Attempts
from ledger.card import AddStamp, Card, EarnPoints, RedeemPoints, RedeemStamps, StampAdded
from ledger.card_plans import luhn_digit
from ledger.commands import (
    ChangePin,
    Command,
    CreatePin,
    EnrolCard,
    OnCard,
    OnMerchant,
    OnPin,
    OnProgram,
    OnTerminal,
    OpenAccount,
    OpenStore,
    OpenTerminal,
    RotateKey,
    StaffEntry,
    VerifyPin,
    WhichCard,
)
from ledger.merchant import ChangeSettings, MerchantSettings, StaffPinPolicy
from ledger.program import ChangeProgram
from ledger.secrecy import key_digest
from ledger.staff_pin import DeactivateStaffPin, StaffPin, StaffPinFailed, StaffRole, UnlockStaffPin
from ledger.store.names import STAFF_PIN, TERMINAL
from ledger.store.recorder import Append, Claim
from ledger.terminal import RevokeTerminal, TerminalPinFailed, UnlockTerminal
from ledger.view import Holder, value_of
from tests.at_the_door import all_at_once, of, refused, shop_on, told, two_servers
from tests.running import open_ledger, running
from tests.shop import OPERATOR, PIN, Shop, open_shop

WRONG_PIN = "9999"


def earn(cents: int, order_reference: str | None = None) -> EarnPoints:
    return EarnPoints(purchase_amount_cents=cents, order_reference=order_reference)


def without_pin(which: Card, command: Any) -> OnCard:
    return OnCard(which=WhichCard(card_id=which.id), command=command)


def changed(**rules: object) -> OnProgram:
    return OnProgram(ChangeProgram(rules))


def store(code: str) -> OpenStore:
    return OpenStore(code=code, name="Side street", time_zone="Asia/Tokyo", currency="EUR", locale="en")


def entered(pin: str, staff_id: UUID | None = None) -> VerifyPin:
    return VerifyPin(StaffEntry(staff_id=staff_id, staff_pin=pin))


async def second_till(shop: Shop, store_id: UUID | None = None) -> Shop:
    """The shop at another till, of the same store unless another is named."""
    store_id = store_id or shop.store_id
    opened = await shop.send(OpenTerminal(store_id=store_id, name="Till 2"), shop.merchant)
    assert opened.result is not None
    assert opened.result.secret is not None
    return dataclasses.replace(
        shop, till=with_key(shop, opened.result.secret, store_id=store_id, id=of(opened).id), store_id=store_id
    )


async def second_store(shop: Shop) -> Shop:
    """The shop at a till of another store."""
    opened = await shop.send(store(f"S{uuid4().hex[:12].upper()}"), shop.merchant)
    (store_id,) = set(of(opened).stores) - {shop.store_id}
    return await second_till(shop, store_id)


def with_key(shop: Shop, key: str, **changes: Any) -> Caller:
    return msgspec.structs.replace(shop.till, key_digest=key_digest(key.rsplit("_", 1)[1]), **changes)


async def staff_pin(shop: Shop, staff_id: UUID | None = None) -> StaffPin:
    """A staff member's PIN as the log has it now."""
    loaded = await shop.ledger.log.load(STAFF_PIN, staff_id or shop.staff_id, fresh=True)
    assert loaded is not None
    return loaded.state


async def counted_at_till(shop: Shop) -> Attempts:
    """What was counted at the till as the log has it now."""
    loaded = await shop.ledger.log.load(TERMINAL, shop.till.id, fresh=True)
    assert loaded is not None
    return loaded.state.attempts


async def events(shop: Shop, stream: UUID, kind: type) -> int:
    """How many events of a kind a stream has."""
    return sum(isinstance(read.event, kind) for _, read in await shop.history(stream))


# ---- enrolling and finding cards ------------------------------------------------------------------------------


@running
async def test_enrolling_twice_gives_the_same_card(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        first = await here.enrol(customer_id="C-1", name="Ada")
        head = await here.ledger.log.head()
        assert await here.enrol(customer_id="C-1", name="Somebody else") == first
        assert await there.enrol(customer_id="C-1") == first
        assert await here.ledger.log.head() == head


@running
async def test_enrolling_64_times_at_once_gives_one_card(database_url: str) -> None:
    async with two_servers(database_url, welcome_bonus_points=50) as (here, there):
        enrolments = [shop.send(EnrolCard(customer_id="C-1")) for shop in [here, there] * 32]
        handled, codes = await all_at_once(enrolments)
        assert not codes
        assert len({of(each).id for each in handled}) == 1
        assert sum(each.created for each in handled) == 1
        assert (await here.card(of(handled[0]))).points_balance == 50


@running
async def test_another_customer_and_one_without_a_reference_get_cards_of_their_own(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        cards = [await shop.enrol(customer_id="C-1"), await shop.enrol(customer_id="C-2")]
        cards += [await shop.enrol(), await shop.enrol()]
        assert len({each.id for each in cards}) == 4
        assert len({each.customer_id for each in cards}) == 4


@running
async def test_a_new_card_has_a_number_that_can_be_checked_and_a_token_nobody_guesses(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        assert len(enrolled.card_number) == 12
        assert luhn_digit(enrolled.card_number[:-1]) == enrolled.card_number[-1]
        assert enrolled.qr_code is not None
        assert len(bytes.fromhex(enrolled.qr_code)) == 16
        assert enrolled.store_id == shop.store_id


@running
async def test_a_welcome_bonus_is_granted_once(database_url: str) -> None:
    async with shop_on(database_url, welcome_bonus_points=50) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        assert (enrolled.points_balance, len(enrolled.lots)) == (50, 1)
        await shop.enrol(customer_id="C-1")
        assert (await shop.card(enrolled)).points_balance == 50


@running
async def test_customers_enrol_themselves_unless_the_merchant_says_otherwise(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        customer = Caller(role=Role.CUSTOMER, id=uuid4(), merchant_id=shop.merchant.merchant_id, store_id=shop.store_id)
        assert (await shop.send(EnrolCard(customer_id="C-1"), customer)).created
        await shop.send(OnMerchant(ChangeSettings({"allow_self_enrollment": False})), shop.merchant)
        assert await refused(shop.send(EnrolCard(customer_id="C-2"), customer)) == ("self_enrollment_not_allowed", {})
        assert (await shop.send(EnrolCard(customer_id="C-2"))).created


@running
async def test_a_card_is_found_by_each_of_its_names(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        names = (
            WhichCard(card_id=enrolled.id),
            WhichCard(card_number=enrolled.card_number),
            WhichCard(qr_code=enrolled.qr_code),
        )
        for shop in (here, there):
            for which in names:
                request = OnCard(which=which, staff=StaffEntry(staff_pin=PIN), command=earn(100))
                assert of(await shop.send(request)).id == enrolled.id
        assert (await here.card(enrolled)).points_balance == 60


@running
async def test_another_merchants_card_looks_like_none(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock)
        theirs = await neighbour.enrol(customer_id="C-1")
        await neighbour.ask(theirs, AddStamp())
        for which in (
            WhichCard(card_id=theirs.id),
            WhichCard(card_number=theirs.card_number),
            WhichCard(qr_code=theirs.qr_code),
            WhichCard(card_id=uuid4()),
            WhichCard(card_number="000000000000"),
            WhichCard(qr_code="00" * 16),
        ):
            request = OnCard(which=which, staff=StaffEntry(staff_pin=PIN), command=AddStamp())
            assert await refused(shop.send(request)) == ("card_not_found", {})
        assert (await neighbour.card(theirs)).stamp_count == 1


@running
async def test_two_merchants_may_use_the_same_reference(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock)
        assert (await shop.enrol(customer_id="C-1")).id != (await neighbour.enrol(customer_id="C-1")).id


# ---- the same key ---------------------------------------------------------------------------------------------


@running
async def test_the_same_key_answers_the_first_answer_byte_for_byte(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        first = await here.ask(enrolled, earn(2500), key="k", answer=told)
        assert (first.replayed, first.result is None) == (False, False)
        for shop in (here, there):
            again = await shop.ask(enrolled, earn(2500), key="k", answer=told)
            assert (again.replayed, again.answer, again.position) == (True, first.answer, first.position)
        assert (await here.card(enrolled)).points_balance == 250
        assert await events(here, enrolled.id, card.PointsEarned) == 1


@running
async def test_the_same_key_64_times_at_once_is_one_purchase(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        handled, codes = await all_at_once(
            shop.ask(enrolled, earn(2500), key="k", answer=told) for shop in [here, there] * 32
        )
        assert not codes
        assert len({each.answer for each in handled}) == 1
        assert sum(not each.replayed for each in handled) == 1
        assert (await here.card(enrolled)).points_balance == 250


@running
async def test_the_same_key_with_another_body_is_refused(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled, other = await shop.enrol(customer_id="C-1"), await shop.enrol(customer_id="C-2")
        await shop.ask(enrolled, earn(2500), key="k")
        for which, command in ((enrolled, earn(2501)), (enrolled, AddStamp()), (other, earn(2500))):
            assert await refused(shop.ask(which, command, key="k")) == ("idempotency_key_reused", {})
        assert await refused(shop.send(EnrolCard(), key="k")) == ("idempotency_key_reused", {})
        assert (await shop.card(enrolled)).points_balance == 250


@running
async def test_commands_that_say_nothing_more_than_their_name_are_told_apart(database_url: str) -> None:
    async with shop_on(database_url, stamps_target=1) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, AddStamp(), key="k")
        assert await refused(shop.ask(enrolled, RedeemStamps(), key="k")) == ("idempotency_key_reused", {})


@running
async def test_a_refused_command_takes_no_key_and_is_decided_again(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, AddStamp())
        for _ in range(2):
            code, _ = await refused(shop.ask(enrolled, AddStamp(), key="k"))
            assert code == "stamp_cooldown"
        shop.clock.forward(minutes=15)
        assert not (await shop.ask(enrolled, AddStamp(), key="k")).replayed
        assert (await shop.card(enrolled)).stamp_count == 2


@running
async def test_the_key_of_a_refused_command_is_free_for_another(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await refused(shop.ask(enrolled, RedeemStamps(), key="k"))
        await refused(shop.ask(enrolled, AddStamp(), key="k", pin=WRONG_PIN))
        assert not (await shop.ask(enrolled, earn(100), key="k")).replayed


@running
async def test_the_first_answer_is_given_even_where_the_rules_would_refuse_by_now(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        first = await shop.ask(enrolled, AddStamp(), key="k", answer=told)
        assert (await refused(shop.ask(enrolled, AddStamp())))[0] == "stamp_cooldown"
        assert (await shop.ask(enrolled, AddStamp(), key="k", answer=told)).answer == first.answer
        await shop.send(changed(active=False), shop.merchant)
        assert (await shop.ask(enrolled, AddStamp(), key="k", answer=told)).answer == first.answer
        assert (await shop.card(enrolled)).stamp_count == 1


@running
async def test_the_pin_is_no_part_of_what_was_asked(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        await shop.send(CreatePin(name="Kim", pin="5678", role=StaffRole.STAFF), shop.merchant)
        enrolled = await shop.enrol(customer_id="C-1")
        first = await shop.ask(enrolled, earn(100), key="k", answer=told)
        again = await shop.ask(enrolled, earn(100), key="k", answer=told, pin="5678")
        assert (again.replayed, again.answer) == (True, first.answer)


@running
async def test_two_tills_may_use_the_same_key(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        other = await second_till(shop)
        enrolled = await shop.enrol(customer_id="C-1")
        assert not (await shop.ask(enrolled, earn(100), key="k")).replayed
        assert not (await other.ask(enrolled, earn(100), key="k")).replayed
        assert (await shop.card(enrolled)).points_balance == 20


@running
async def test_the_first_answer_survives_a_restart(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        first = await shop.ask(enrolled, earn(100), key="k", answer=told)
    async with open_ledger(database_url, shop.clock) as restarted:
        again = await shop.on(restarted).ask(enrolled, earn(100), key="k", answer=told)
        assert (again.replayed, again.answer, again.position) == (True, first.answer, first.position)


@running
async def test_an_enrolment_may_have_a_key_too(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        first = await shop.send(EnrolCard(name="Ada"), key="k", answer=told)
        again = await shop.send(EnrolCard(name="Ada"), key="k", answer=told)
        assert (again.replayed, again.created, again.answer) == (True, True, first.answer)
        assert await refused(shop.send(EnrolCard(name="Bea"), key="k")) == ("idempotency_key_reused", {})


# ---- order references -----------------------------------------------------------------------------------------


@running
async def test_the_same_receipt_earns_only_once(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        first = await here.ask(enrolled, earn(2500, "ORD-1"), answer=told)
        for shop in (here, there):
            again = await shop.ask(enrolled, earn(2500, "ORD-1"), answer=told)
            assert (again.replayed, again.answer, again.position) == (True, first.answer, first.position)
        assert (await here.card(enrolled)).points_balance == 250


@running
async def test_the_same_receipt_64_times_at_once_earns_only_once(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        handled, codes = await all_at_once(
            shop.ask(enrolled, earn(2500, "ORD-1"), answer=told) for shop in [here, there] * 32
        )
        assert not codes
        assert len({each.answer for each in handled}) == 1
        assert (await here.card(enrolled)).points_balance == 250


@running
async def test_a_receipt_is_not_used_for_another_purchase(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled, other = await shop.enrol(customer_id="C-1"), await shop.enrol(customer_id="C-2")
        await shop.ask(enrolled, earn(2500, "ORD-1"))
        facts = {"transaction_id": f"{enrolled.id}-2"}
        assert await refused(shop.ask(enrolled, earn(2501, "ORD-1"))) == ("order_reference_used", facts)
        assert await refused(shop.ask(other, earn(2500, "ORD-1"))) == ("order_reference_used", facts)
        assert (await shop.card(other)).points_balance == 0


@running
async def test_purchases_without_a_receipt_are_each_their_own(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, earn(2500))
        await shop.ask(enrolled, earn(2500))
        assert (await shop.card(enrolled)).points_balance == 500


@running
async def test_each_store_has_receipts_of_its_own(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        branch = await second_store(shop)
        enrolled = await shop.enrol(customer_id="C-1")
        assert not (await shop.ask(enrolled, earn(2500, "ORD-1"))).replayed
        assert not (await branch.ask(enrolled, earn(2500, "ORD-1"))).replayed
        assert (await branch.ask(enrolled, earn(2500, "ORD-1"))).replayed
        assert (await shop.card(enrolled)).points_balance == 500


@running
async def test_all_tills_of_a_store_share_its_receipts(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        other = await second_till(shop)
        enrolled = await shop.enrol(customer_id="C-1")
        first = await shop.ask(enrolled, earn(2500, "ORD-1"), answer=told)
        assert (await other.ask(enrolled, earn(2500, "ORD-1"), answer=told)).answer == first.answer


@running
async def test_a_refused_purchase_leaves_its_receipt_unused(database_url: str) -> None:
    async with shop_on(database_url, minimum_purchase_cents=500) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        assert (await refused(shop.ask(enrolled, earn(499, "ORD-1"))))[0] == "purchase_below_minimum"
        assert not (await shop.ask(enrolled, earn(500, "ORD-1"))).replayed


# ---- many at once ---------------------------------------------------------------------------------------------


@running
async def test_64_purchases_at_once_add_up_exactly(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        purchases = [shop.ask(enrolled, earn(100 * n)) for n, shop in enumerate([here, there] * 32)]
        handled, codes = await all_at_once(purchases)
        assert (len(handled), codes) == (64, Counter())
        state = await here.card(enrolled)
        assert state.points_balance == sum(lot.points for lot in state.lots) == 10 * sum(range(64))


@running
async def test_64_stamps_at_once_stamp_as_often_as_the_limit_says(database_url: str) -> None:
    async with shop_on(database_url, cooldown_minutes=0, max_daily_stamps=7) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        handled, codes = await all_at_once(shop.ask(enrolled, AddStamp()) for _ in range(64))
        assert (len(handled), codes) == (7, Counter(daily_stamp_limit=57))
        assert (await shop.card(enrolled)).stamp_count == 7


@running
async def test_64_stamps_at_once_on_two_servers_stamp_as_often_as_the_limit_says(database_url: str) -> None:
    async with two_servers(database_url, cooldown_minutes=0, max_daily_stamps=7) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        handled, codes = await all_at_once(shop.ask(enrolled, AddStamp()) for shop in [here, there] * 32)
        assert (len(handled), codes) == (7, Counter(daily_stamp_limit=57))
        assert await events(here, enrolled.id, StampAdded) == 7


@running
async def test_of_64_stamps_at_once_one_is_within_the_cooldown(database_url: str) -> None:
    async with two_servers(database_url, max_daily_stamps=100) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        handled, codes = await all_at_once(shop.ask(enrolled, AddStamp()) for shop in [here, there] * 32)
        assert (len(handled), codes) == (1, Counter(stamp_cooldown=63))


@running
async def test_points_are_not_spent_twice_at_once(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        await here.ask(enrolled, earn(3500))
        handled, codes = await all_at_once(shop.ask(enrolled, RedeemPoints("coffee")) for shop in [here, there] * 16)
        assert (len(handled), codes) == (3, Counter(not_enough_points=29))
        assert (await here.card(enrolled)).points_balance == 50


# ---- wrong PINs -----------------------------------------------------------------------------------------------


@running
async def test_32_wrong_pins_at_once_for_somebody_lock_at_exactly_five(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        handled, codes = await all_at_once(shop.send(entered(WRONG_PIN, shop.staff_id)) for shop in [here, there] * 16)
        assert (handled, codes) == ([], Counter(pin_invalid=5, pin_locked=27))
        assert (await staff_pin(here)).attempts.failed == 5
        assert await events(here, here.staff_id, StaffPinFailed) == 5
        assert await counted_at_till(here) == Attempts()


@running
async def test_32_wrong_pins_at_once_for_nobody_lock_the_till_at_exactly_five(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        handled, codes = await all_at_once(shop.send(entered(WRONG_PIN)) for shop in [here, there] * 16)
        assert (handled, codes) == ([], Counter(pin_invalid=5, pin_locked=27))
        assert (await counted_at_till(here)).failed == 5
        assert await events(here, here.till.id, TerminalPinFailed) == 5
        assert (await staff_pin(here)).attempts == Attempts()


@running
async def test_wrong_pins_at_one_server_lock_as_well(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        for staff_id in (shop.staff_id, None):
            asked = [shop.ask(enrolled, AddStamp(), pin=WRONG_PIN, staff_id=staff_id) for _ in range(32)]
            assert await all_at_once(asked) == ([], Counter(pin_invalid=5, pin_locked=27))
        assert (await shop.card(enrolled)).stamp_count == 0


@running
async def test_a_wrong_pin_tells_how_many_are_left_and_then_until_when_it_locked(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        for staff_id in (shop.staff_id, None):
            for left in (4, 3, 2, 1):
                assert await refused(shop.send(entered(WRONG_PIN, staff_id))) == (
                    "pin_invalid",
                    {"attempts_left": left},
                )
            locked = {"locked_until": "2026-03-02T11:30:00Z"}
            assert await refused(shop.send(entered(WRONG_PIN, staff_id))) == (
                "pin_invalid",
                {"attempts_left": 0} | locked,
            )
            assert await refused(shop.send(entered(WRONG_PIN, staff_id))) == ("pin_locked", locked)


async def lock(shop: Shop, staff_id: UUID | None) -> None:
    """Types the wrong PIN until that locks."""
    for _ in range(5):
        await refused(shop.send(entered(WRONG_PIN, staff_id)))


@running
async def test_a_locked_pin_answers_alike_whether_the_pin_is_right(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        for staff_id in (here.staff_id, None):
            await lock(here, staff_id)
            answers = [
                await refused(shop.send(entered(pin, staff_id))) for shop in (here, there) for pin in (PIN, WRONG_PIN)
            ]
            assert answers == [("pin_locked", {"locked_until": "2026-03-02T11:30:00Z"})] * 4


@running
async def test_a_locked_pin_opens_by_itself(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        for staff_id in (shop.staff_id, None):
            await lock(shop, staff_id)
            shop.clock.forward(minutes=30, seconds=-1)
            assert (await refused(shop.send(entered(PIN, staff_id))))[0] == "pin_locked"
            shop.clock.forward(seconds=1)
            assert await refused(shop.send(entered(WRONG_PIN, staff_id))) == ("pin_invalid", {"attempts_left": 4})
            assert of(await shop.send(entered(PIN, staff_id))).id == shop.staff_id


@running
async def test_a_lock_survives_a_restart(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        await lock(shop, shop.staff_id)
        await lock(shop, None)
    async with open_ledger(database_url, shop.clock) as restarted:
        for staff_id in (shop.staff_id, None):
            assert (await refused(shop.on(restarted).send(entered(PIN, staff_id))))[0] == "pin_locked"


@running
async def test_a_manager_opens_what_is_locked(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        await lock(here, here.staff_id)
        await lock(here, None)
        assert (await refused(there.send(entered(PIN, there.staff_id))))[0] == "pin_locked"
        assert (await refused(there.send(entered(PIN))))[0] == "pin_locked"
        await here.send(OnPin(here.staff_id, UnlockStaffPin()), here.merchant)
        await here.send(OnTerminal(here.till.id, UnlockTerminal()), here.merchant)
        assert of(await there.send(entered(PIN, there.staff_id))).id == here.staff_id
        assert of(await there.send(entered(PIN))).id == here.staff_id


@running
async def test_wrong_pins_at_one_till_do_not_lock_another(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        other = await second_till(shop)
        await lock(shop, None)
        assert of(await other.send(entered(PIN))).id == shop.staff_id
        assert await refused(other.send(entered(WRONG_PIN))) == ("pin_invalid", {"attempts_left": 4})


@running
async def test_wrong_pins_for_somebody_lock_them_at_every_till_and_nobody_else(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        other = await second_till(shop)
        kim = of(await shop.send(CreatePin(name="Kim", pin="5678", role=StaffRole.STAFF), shop.merchant))
        await lock(shop, shop.staff_id)
        assert (await refused(other.send(entered(PIN, shop.staff_id))))[0] == "pin_locked"
        assert of(await shop.send(entered("5678", kim.id))).id == kim.id


@running
async def test_a_good_pin_starts_the_count_anew(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        for staff_id in (shop.staff_id, None):
            for _ in range(4):
                await refused(shop.send(entered(WRONG_PIN, staff_id)))
            await shop.ask(enrolled, earn(100), staff_id=staff_id)
            assert await refused(shop.send(entered(WRONG_PIN, staff_id))) == ("pin_invalid", {"attempts_left": 4})


@running
async def test_who_is_nobody_here_counts_against_the_till(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock)
        for left, staff_id in ((4, uuid4()), (3, neighbour.staff_id)):
            assert await refused(shop.send(entered(PIN, staff_id))) == ("pin_invalid", {"attempts_left": left})
        assert (await staff_pin(neighbour)).attempts == Attempts()


@running
async def test_the_merchants_own_limits_hold(database_url: str) -> None:
    strict = MerchantSettings(pin_max_failed_attempts=2, pin_lockout_minutes=1)
    async with shop_on(database_url, settings=strict) as shop:
        assert await refused(shop.send(entered(WRONG_PIN))) == ("pin_invalid", {"attempts_left": 1})
        locked = {"attempts_left": 0, "locked_until": "2026-03-02T11:01:00Z"}
        assert await refused(shop.send(entered(WRONG_PIN))) == ("pin_invalid", locked)


@running
async def test_a_wrong_pin_changes_no_card(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        assert (await refused(shop.ask(enrolled, earn(100, "ORD-1"), pin=WRONG_PIN, key="k")))[0] == "pin_invalid"
        assert await shop.card(enrolled) == enrolled


# ---- whose PIN ------------------------------------------------------------------------------------------------


def somebody(pin: str, **more: Any) -> CreatePin:
    return CreatePin(name="Kim", pin=pin, role=StaffRole.STAFF, **more)


@running
async def test_two_active_pins_of_a_merchant_are_never_equal(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        assert await refused(here.send(somebody(PIN), here.merchant)) == ("pin_taken", {})
        handled, codes = await all_at_once(shop.send(somebody("5678"), shop.merchant) for shop in [here, there] * 8)
        assert (len(handled), codes) == (1, Counter(pin_taken=15))
        kim = of(handled[0])
        assert await refused(there.send(ChangePin(staff_id=kim.id, pin=PIN), here.merchant)) == ("pin_taken", {})
        assert of(await here.send(entered("5678"))).id == kim.id


@running
async def test_two_merchants_may_use_the_same_pin(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock)
        assert of(await shop.send(entered(PIN))).id == shop.staff_id
        assert of(await neighbour.send(entered(PIN))).id == neighbour.staff_id


@running
async def test_the_digits_of_an_ended_pin_are_free(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        assert of(await there.send(entered(PIN))).id == here.staff_id
        await here.send(OnPin(here.staff_id, DeactivateStaffPin()), here.merchant)
        assert (await refused(there.send(entered(PIN))))[0] == "pin_invalid"
        kim = of(await here.send(somebody(PIN), here.merchant))
        await here.send(OnPin(here.staff_id, DeactivateStaffPin()), here.merchant)
        for shop in (here, there):
            assert of(await shop.send(entered(PIN))).id == kim.id
        assert await refused(here.send(somebody(PIN), here.merchant)) == ("pin_taken", {})


@running
async def test_changing_a_pin_frees_the_old_digits(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        assert of(await there.send(entered(PIN))).id == here.staff_id
        await here.send(ChangePin(staff_id=here.staff_id, pin="5678"), here.merchant)
        assert of(await there.send(entered("5678"))).id == here.staff_id
        assert (await refused(there.send(entered(PIN, here.staff_id))))[0] == "pin_invalid"
        assert (await refused(there.send(entered(PIN))))[0] == "pin_invalid"
        kim = of(await there.send(somebody(PIN), here.merchant))
        for shop in (here, there):
            assert of(await shop.send(entered(PIN))).id == kim.id


@running
async def test_changing_a_pin_to_what_it_is_stays_quiet(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        head = await shop.ledger.log.head()
        await shop.send(ChangePin(staff_id=shop.staff_id, pin=PIN, name="Alex"), shop.merchant)
        assert await shop.ledger.log.head() == head
        assert of(await shop.send(entered(PIN))).id == shop.staff_id


@running
async def test_another_merchants_pin_looks_like_none(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock)
        for staff_id in (neighbour.staff_id, uuid4()):
            for command in (ChangePin(staff_id=staff_id, name="Kim"), OnPin(staff_id, UnlockStaffPin())):
                assert await refused(shop.send(command, shop.merchant)) == ("staff_pin_not_found", {})


@pytest.mark.parametrize(
    ("policy", "program_asks", "needed"),
    [
        (StaffPinPolicy.REQUIRED, True, True),
        (StaffPinPolicy.REQUIRED, False, True),
        (StaffPinPolicy.OPTIONAL, True, True),
        (StaffPinPolicy.OPTIONAL, False, False),
        (StaffPinPolicy.DISABLED, True, False),
        (StaffPinPolicy.DISABLED, False, False),
    ],
)
@running
async def test_a_till_names_a_staff_member_where_merchant_or_program_say_so(
    database_url: str, policy: StaffPinPolicy, program_asks: bool, needed: bool
) -> None:
    settings = MerchantSettings(staff_pin_policy=policy)
    async with shop_on(database_url, settings=settings, require_staff_pin=program_asks) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        if needed:
            assert await refused(shop.send(without_pin(enrolled, AddStamp()))) == ("staff_pin_required", {})
        else:
            assert of(await shop.send(without_pin(enrolled, AddStamp()))).stamp_count == 1


@running
async def test_a_pin_that_is_given_counts_even_where_none_is_needed(database_url: str) -> None:
    optional = MerchantSettings(staff_pin_policy=StaffPinPolicy.OPTIONAL)
    async with shop_on(database_url, settings=optional, require_staff_pin=False) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        assert (await refused(shop.ask(enrolled, earn(100), pin=WRONG_PIN)))[0] == "pin_invalid"
        nameless = OnCard(
            which=WhichCard(card_id=enrolled.id), staff=StaffEntry(staff_id=shop.staff_id), command=earn(100)
        )
        assert await refused(shop.send(nameless)) == ("staff_pin_required", {})


@running
async def test_where_pins_are_disabled_none_is_looked_at(database_url: str) -> None:
    disabled = MerchantSettings(staff_pin_policy=StaffPinPolicy.DISABLED)
    async with shop_on(database_url, settings=disabled) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        assert of(await shop.ask(enrolled, earn(100), pin=WRONG_PIN)).points_balance == 10
        assert await counted_at_till(shop) == Attempts()


@running
async def test_a_manager_needs_no_pin(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        assert of(await shop.send(without_pin(enrolled, AddStamp()), shop.merchant)).stamp_count == 1


@running
async def test_events_name_the_staff_member_the_till_and_the_store(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, AddStamp())
        _, read = (await shop.history(enrolled.id))[0]
        actor = read.at.actor
        assert (actor.role, actor.id) == (Role.TERMINAL, shop.till.id)
        assert (actor.store_id, actor.staff_id) == (shop.store_id, shop.staff_id)


@running
async def test_a_pin_of_one_store_does_not_count_in_another(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        branch = await second_store(shop)
        kim = of(await shop.send(somebody("5678", store_id=branch.store_id), shop.merchant))
        for staff_id in (None, kim.id):
            assert of(await branch.send(entered("5678", staff_id))).id == kim.id
            assert await refused(shop.send(entered("5678", staff_id))) == ("staff_pin_other_store", {})
        assert of(await branch.send(entered(PIN))).id == shop.staff_id
        moved = ChangePin(staff_id=kim.id, changes_store=True)
        await shop.send(moved, shop.merchant)
        assert of(await shop.send(entered("5678"))).id == kim.id


@running
async def test_a_pin_is_not_bound_to_a_store_that_is_none(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock)
        for store_id in (uuid4(), neighbour.store_id):
            bound: list[Command] = [
                somebody("5678", store_id=store_id),
                ChangePin(staff_id=shop.staff_id, changes_store=True, store_id=store_id),
                OpenTerminal(store_id=store_id, name="Till"),
            ]
            for command in bound:
                assert await refused(shop.send(command, shop.merchant)) == ("store_not_found", {})


@running
async def test_rewards_may_be_kept_to_the_store_of_the_card(database_url: str) -> None:
    settings = MerchantSettings(allow_cross_store_redemption=False)
    async with shop_on(database_url, settings=settings, welcome_bonus_points=100) as shop:
        branch = await second_store(shop)
        enrolled = await shop.enrol(customer_id="C-1")
        assert await refused(branch.ask(enrolled, RedeemPoints("coffee"))) == (
            "other_store",
            {"store_id": str(shop.store_id)},
        )
        assert of(await shop.ask(enrolled, RedeemPoints("coffee"))).points_balance == 0


# ---- terminal keys --------------------------------------------------------------------------------------------


async def rotate(shop: Shop) -> Shop:
    """The till with its next key."""
    rotated = await shop.send(RotateKey(shop.till.id), shop.merchant)
    assert rotated.result is not None
    assert rotated.result.secret is not None
    return dataclasses.replace(shop, till=with_key(shop, rotated.result.secret))


@running
async def test_a_key_rotated_away_is_refused_at_once_everywhere(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await there.enrol(customer_id="C-1")
        second = await rotate(here)
        for shop in (here, there, second, second.on(there.ledger)):
            await shop.ask(enrolled, earn(100))
        third = await rotate(second)
        commands: list[Command] = [
            EnrolCard(customer_id="C-1"),
            EnrolCard(customer_id="C-2"),
            OnCard(which=WhichCard(card_id=enrolled.id), staff=StaffEntry(staff_pin=PIN), command=earn(100)),
            OnCard(which=WhichCard(card_id=enrolled.id), staff=StaffEntry(staff_pin=WRONG_PIN), command=earn(100)),
            entered(PIN),
        ]
        for command in commands:
            assert await refused(there.send(command)) == ("invalid_credentials", {})
        for shop in (second, second.on(there.ledger), third, third.on(there.ledger)):
            await shop.ask(enrolled, earn(100))
        assert (await here.card(enrolled)).points_balance == 80


@running
async def test_a_revoked_till_is_refused_at_once_everywhere(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await there.enrol(customer_id="C-1")
        await there.ask(enrolled, AddStamp())
        await here.send(OnTerminal(here.till.id, RevokeTerminal()), here.merchant)
        # The second would be refused by the cooldown too, which is nothing for this till to know any more.
        for command in (earn(100), AddStamp(), RedeemPoints("tea")):
            assert await refused(there.ask(enrolled, command)) == ("invalid_credentials", {})
        assert await refused(there.send(EnrolCard(customer_id="C-1"))) == ("invalid_credentials", {})
        assert (await here.card(enrolled)).points_balance == 0


@running
async def test_a_key_of_another_till_opens_nothing(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        other = await second_till(shop)
        mixed = msgspec.structs.replace(shop.till, key_digest=other.till.key_digest)
        assert await refused(shop.send(EnrolCard(), mixed)) == ("invalid_credentials", {})


# ---- names that are unique on the platform --------------------------------------------------------------------


@running
async def test_of_two_merchants_that_ask_at_once_one_gets_the_store_code(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        neighbour = await open_shop(there.ledger, there.clock)
        handled, codes = await all_at_once(shop.send(store("PORT"), shop.merchant) for shop in (here, neighbour))
        assert (len(handled), codes) == (1, Counter(store_code_taken=1))


@running
async def test_a_store_code_is_used_once_by_its_merchant_too(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        handled, codes = await all_at_once(shop.send(store("PORT"), shop.merchant) for shop in [here, there] * 4)
        assert (len(handled), codes) == (1, Counter(store_code_taken=7))


@running
async def test_a_store_code_reserved_by_an_attempt_that_crashed_is_its_merchants(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock)
        reserved = Claim(PLATFORM, "store_code", "PORT", value_of(Holder(stream=shop.merchant.merchant_id)))
        await shop.ledger.log.append(Append(merchant=PLATFORM, claims=(reserved,)))
        assert (await refused(neighbour.send(store("PORT"), neighbour.merchant)))[0] == "store_code_taken"
        assert "PORT" in {each.code for each in of(await shop.send(store("PORT"), shop.merchant)).stores.values()}


@running
async def test_a_store_code_that_cannot_be_reserves_nothing(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        assert (await refused(shop.send(store("port"), shop.merchant)))[0] == "invalid_store_code"
        assert await shop.ledger.log.claim(PLATFORM, "store_code", "port") is None


def opening(email: str) -> OpenAccount:
    return OpenAccount(email=email, password="correct horse", role=Role.MANAGER)


@running
async def test_an_email_address_has_one_account_on_the_platform(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        neighbour = await open_shop(there.ledger, there.clock)
        assert (await here.send(opening("mo@shop.test"), here.merchant)).created
        for email in ("mo@shop.test", "Mo@Shop.test"):
            for caller in (here.merchant, neighbour.merchant, OPERATOR):
                assert await refused(there.send(opening(email), caller)) == ("email_taken", {})
        assert (await there.send(opening("jo@shop.test"), neighbour.merchant)).created


# ---- what another server changed ------------------------------------------------------------------------------


@running
async def test_a_changed_program_is_used_by_every_servers_next_command(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await there.enrol(customer_id="C-1")
        await there.ask(enrolled, earn(100))
        await here.send(changed(points_per_euro=20), here.merchant)
        after = await there.ask(enrolled, earn(100))
        assert of(after).points_balance == 30
        assert after.result is not None
        assert after.result.facts.program.version == 2


@running
async def test_changed_settings_are_used_by_every_servers_next_command(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await there.enrol(customer_id="C-1")
        await there.ask(enrolled, earn(100))
        await here.send(OnMerchant(ChangeSettings({"require_order_reference": True})), here.merchant)
        assert (await refused(there.ask(enrolled, earn(100))))[0] == "order_reference_required"
        await here.send(OnMerchant(ChangeSettings({"require_order_reference": False})), here.merchant)
        assert of(await there.ask(enrolled, earn(100))).points_balance == 20


@running
async def test_points_earned_at_another_server_can_be_spent(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        assert (await refused(here.ask(enrolled, RedeemPoints("coffee"))))[0] == "not_enough_points"
        await there.ask(enrolled, earn(1000))
        assert of(await here.ask(enrolled, RedeemPoints("coffee"))).points_balance == 0
        assert (await refused(there.ask(enrolled, RedeemPoints("coffee"))))[0] == "not_enough_points"


@running
async def test_a_refusal_tells_what_is_so_now(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        assert (await refused(here.ask(enrolled, RedeemPoints("coffee"))))[1]["points_missing"] == 100
        await there.ask(enrolled, earn(400))
        assert (await refused(here.ask(enrolled, RedeemPoints("coffee"))))[1]["points_missing"] == 60


@running
async def test_a_cooldown_ended_at_another_server_is_over(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        await here.ask(enrolled, AddStamp())
        assert (await refused(here.ask(enrolled, AddStamp())))[0] == "stamp_cooldown"
        await there.send(changed(cooldown_minutes=0), there.merchant)
        assert of(await here.ask(enrolled, AddStamp())).stamp_count == 2


@running
async def test_a_cooldown_begun_at_another_server_holds(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        await there.ask(enrolled, AddStamp())
        assert (await refused(here.ask(enrolled, AddStamp())))[0] == "stamp_cooldown"


@running
async def test_a_program_reopened_at_another_server_takes_customers(database_url: str) -> None:
    async with two_servers(database_url, active=False) as (here, there):
        assert await refused(there.send(EnrolCard(customer_id="C-1"))) == ("program_inactive", {})
        await here.send(changed(active=True), here.merchant)
        assert (await there.send(EnrolCard(customer_id="C-1"))).created
