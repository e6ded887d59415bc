"""What is refused about a card is recorded: who asked for what, where, when, and why it was refused."""

import ast
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from ledger.actor import Caller, Role
from ledger.card import AddStamp, Adjust, Card, Close, EarnPoints, RedeemPoints, RedeemStamps, Reverse, Suspend
from ledger.commands import (
    Command,
    CreatePin,
    EnrolCard,
    MergeCards,
    OnCard,
    OnMerchant,
    OnProgram,
    StaffEntry,
    VerifyPin,
    WhichCard,
)
from ledger.errors import Unavailable
from ledger.merchant import ChangeSettings, MerchantSettings, StaffPinPolicy
from ledger.program import ChangeProgram
from ledger.refusals import CommandRefused, RecordRefusal, decide, evolve
from ledger.staff_pin import StaffPinAccepted, StaffPinFailed, StaffRole
from ledger.store.codec import NO_PREVIOUS_HASH, Read
from ledger.streams import refusals_stream
from ledger.terminal import TerminalPinFailed
from tests.at_the_door import all_at_once, of, refused, shop_on, told, two_servers
from tests.ledger.specification import occurrence
from tests.running import running
from tests.shop import NOON, PIN, Shop, open_shop

WRONG_PIN = "9999"
ROOT = Path(__file__).resolve().parent.parent.parent

CARD, CUSTOMER = UUID(int=1), UUID(int=2)
RECORD = RecordRefusal(
    card=CARD, customer=CUSTOMER, command="add_stamp", code="stamp_cooldown", facts={"n": 1}, program_version=3
)


async def recorded(shop: Shop, which: Card) -> list[Read]:
    """The refusals of a card, oldest first, once their chain is seen to have no hole."""
    reads = [read for _, read in reversed(await shop.history(refusals_stream(which.id)))]
    assert [read.at.version for read in reads] == list(range(1, len(reads) + 1))
    assert [read.previous_hash for read in reads] == [NO_PREVIOUS_HASH, *(read.hash for read in reads)][: len(reads)]
    return reads


async def newest(shop: Shop, which: Card) -> Read:
    """The last refusal of a card."""
    return (await recorded(shop, which))[-1]


async def codes(shop: Shop, which: Card) -> list[str]:
    """Why what was asked of a card was refused, oldest first."""
    return [read.event.code for read in await recorded(shop, which)]


def by(shop: Shop, role: Role) -> Caller:
    """Somebody with an account, in no store in particular."""
    return Caller(role=role, id=UUID(int=9), merchant_id=shop.merchant.merchant_id)


def asking(which: Card, command: Any) -> OnCard:
    return OnCard(which=WhichCard(card_id=which.id), command=command)


# ---- the rules ------------------------------------------------------------------------------------------------


def test_every_refusal_is_kept_with_what_was_told() -> None:
    (event,) = decide(RECORD)
    assert msgspec.structs.asdict(event) == msgspec.structs.asdict(RECORD)


def test_the_record_counts_and_knows_whose_card_it_is() -> None:
    (event,) = decide(RECORD)
    first = evolve(None, event, occurrence(1, NOON))
    second = evolve(first, event, occurrence(2, NOON))
    assert (first.count, second.count) == (1, 2)
    assert (second.card, second.customer) == (CARD, CUSTOMER)


KNOWN_FACTS = {
    "attempts_left",
    "card_status",
    "field",
    "locked_until",
    "max_daily_stamps",
    "maximum",
    "merged_into",
    "minimum",
    "minimum_purchase_cents",
    "next_stamp_available_at",
    "points_balance",
    "points_cost",
    "points_missing",
    "program_type",
    "purchase_amount_cents_left",
    "reward_id",
    "stamp_count",
    "stamps_missing",
    "stamps_target",
    "stamps_today",
    "store_id",
}
"""Facts that were looked at: none is personal or secret, but for `reward_id`, which is left out of the record."""


def test_no_fact_of_a_refusal_was_left_unread_for_what_is_personal_in_it() -> None:
    files = [*(ROOT / "ledger" / "card").glob("*.py")]
    files += [
        ROOT / "ledger" / name for name in ("attempts.py", "card_plans.py", "staff.py", "staff_pin.py", "lots.py")
    ]
    facts = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Rejected":
                facts |= {keyword.arg for keyword in node.keywords}
    assert facts == KNOWN_FACTS


# ---- what is recorded -----------------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {"cooldown_minutes": 15, "max_daily_stamps": 1, "minimum_purchase_cents": 100}

BY_RULES = [
    (AddStamp(), "add_stamp", "stamp_cooldown"),
    (RedeemStamps(), "redeem_stamps", "not_enough_stamps"),
    (EarnPoints(99, None), "earn_points", "purchase_below_minimum"),
    (RedeemPoints("coffee"), "redeem_points", "not_enough_points"),
    (RedeemPoints("tea"), "redeem_points", "reward_not_found"),
    (Reverse(card=UUID(int=0), version=2), "reverse", "transaction_not_found"),
]


@pytest.mark.parametrize(("command", "name", "code"), BY_RULES, ids=[f"{name} {code}" for _, name, code in BY_RULES])
@running
async def test_what_the_rules_refuse_is_recorded_with_who_where_when_why_and_under_which_rules(
    database_url: str, command: Any, name: str, code: str
) -> None:
    async with shop_on(database_url, **OPTIONS) as shop:
        enrolled = await shop.enrol()
        await shop.ask(enrolled, AddStamp())
        await shop.send(OnProgram(ChangeProgram({"points_per_euro": 7})), shop.merchant)
        before, head = await shop.history(enrolled.id), await shop.ledger.log.head()
        shop.clock.forward(minutes=5)
        answered, facts = await refused(shop.ask(enrolled, command))
        assert answered == code
        read = await newest(shop, enrolled)
        assert await shop.ledger.log.head() == head + 1
        assert read.event == CommandRefused(
            card=enrolled.id,
            customer=enrolled.customer,
            command=name,
            code=code,
            facts={fact: value for fact, value in facts.items() if fact != "reward_id"},
            program_version=2,
        )
        assert (read.at.occurred_at, read.at.recorded_at) == (shop.clock.now(), shop.clock.now())
        actor = read.at.actor
        assert (actor.role, actor.id, actor.store_id, actor.staff_id) == (
            Role.TERMINAL,
            shop.till.id,
            shop.store_id,
            shop.staff_id,
        )
        assert await shop.history(enrolled.id) == before


@running
async def test_the_days_limit_a_closed_card_and_a_second_reversal_are_recorded(database_url: str) -> None:
    async with shop_on(database_url, cooldown_minutes=0, max_daily_stamps=1) as shop:
        enrolled = await shop.enrol()
        await shop.ask(enrolled, AddStamp())
        await refused(shop.ask(enrolled, AddStamp()))
        reverse = Reverse(card=enrolled.id, version=2)
        await shop.ask(enrolled, reverse)
        await refused(shop.ask(enrolled, reverse))
        await shop.send(asking(enrolled, Suspend()), by(shop, Role.MANAGER))
        await refused(shop.ask(enrolled, AddStamp()))
        await shop.send(asking(enrolled, Close()), by(shop, Role.MANAGER))
        await refused(shop.ask(enrolled, EarnPoints(100, None)))
        told_facts = [(read.event.code, read.event.facts.get("card_status")) for read in await recorded(shop, enrolled)]
        assert told_facts == [
            ("daily_stamp_limit", None),
            ("already_reversed", None),
            ("card_not_active", "suspended"),
            ("card_not_active", "closed"),
        ]


@running
async def test_a_managers_refused_correction_is_recorded_with_the_account(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol()
        adjusting = asking(enrolled, Adjust(points=-5, reason="Zoë said so"))
        code, facts = await refused(shop.send(adjusting, by(shop, Role.MANAGER)))
        read = await newest(shop, enrolled)
        assert (read.event.command, read.event.code, read.event.facts) == ("adjust", code, facts)
        assert (read.at.actor.role, read.at.actor.id, read.at.actor.staff_id) == (Role.MANAGER, UUID(int=9), None)
        assert read.at.actor.store_id == shop.store_id


@running
async def test_a_wrong_pin_is_counted_and_recorded_in_one_append(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol()
        for staff_id, stream, kind in (
            (shop.staff_id, shop.staff_id, StaffPinFailed),
            (None, shop.till.id, TerminalPinFailed),
        ):
            code, facts = await refused(shop.ask(enrolled, AddStamp(), pin=WRONG_PIN, staff_id=staff_id))
            (counted_at, counted), *_ = await shop.history(stream)
            ((at, read), *_) = await shop.history(refusals_stream(enrolled.id))
            assert isinstance(counted.event, kind)
            assert (at, await shop.ledger.log.head()) == (counted_at + 1, at)
            assert (read.event.command, read.event.code, read.event.facts) == ("add_stamp", code, facts)
            assert (code, facts) == ("pin_invalid", {"attempts_left": 4})
            assert (read.at.actor.id, read.at.actor.staff_id, read.event.named) == (shop.till.id, None, staff_id)
            assert read.at.recorded_at == counted.at.recorded_at
        assert await codes(shop, enrolled) == ["pin_invalid"] * 2


@running
async def test_a_missing_a_locked_and_a_foreign_pin_are_recorded(database_url: str) -> None:
    settings = MerchantSettings(staff_pin_policy=StaffPinPolicy.REQUIRED, pin_max_failed_attempts=1)
    async with shop_on(database_url, settings=settings) as shop:
        enrolled = await shop.enrol()
        await refused(shop.send(asking(enrolled, AddStamp())))
        for _ in range(2):
            await refused(shop.ask(enrolled, AddStamp(), pin=WRONG_PIN, staff_id=shop.staff_id))
        assert await codes(shop, enrolled) == ["staff_pin_required", "pin_invalid", "pin_locked"]
        last = await newest(shop, enrolled)
        assert (set(last.event.facts), last.event.named) == ({"locked_until"}, shop.staff_id)
        await refused(shop.ask(enrolled, AddStamp(), pin=WRONG_PIN, staff_id=enrolled.id))
        assert (await newest(shop, enrolled)).event.named is None


@running
async def test_who_is_no_manager_is_recorded_as_who_they_are(database_url: str) -> None:
    async with shop_on(database_url, settings=MerchantSettings(reversals_need_manager=True)) as shop:
        enrolled = await shop.enrol()
        await shop.ask(enrolled, EarnPoints(100, None))
        reverse = Reverse(card=enrolled.id, version=2)
        assert (await refused(shop.ask(enrolled, reverse)))[0] == "manager_pin_required"
        assert (await newest(shop, enrolled)).at.actor.staff_id == shop.staff_id
        assert (await refused(shop.send(asking(enrolled, reverse))))[0] == "manager_pin_required"
        assert (await newest(shop, enrolled)).at.actor.staff_id is None


@running
async def test_a_good_pin_after_a_wrong_one_and_the_rules_refusal_are_one_append(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol()
        await refused(shop.ask(enrolled, AddStamp(), pin=WRONG_PIN, staff_id=shop.staff_id))
        assert (await refused(shop.ask(enrolled, RedeemStamps(), staff_id=shop.staff_id)))[0] == "not_enough_stamps"
        (accepted_at, accepted), *_ = await shop.history(shop.staff_id)
        ((at, read), *_) = await shop.history(refusals_stream(enrolled.id))
        assert isinstance(accepted.event, StaffPinAccepted)
        assert (at, read.at.actor.staff_id) == (accepted_at + 1, shop.staff_id)


@running
async def test_it_is_recorded_on_the_card_that_was_reached(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        source, target = await shop.enrol(), await shop.enrol()
        manager = by(shop, Role.MANAGER)
        merging = MergeCards(WhichCard(card_id=source.id), target.id)
        await shop.send(merging, manager)
        await refused(shop.ask(source, RedeemStamps()))
        await refused(shop.ask(source, AddStamp(), pin=WRONG_PIN))
        assert await codes(shop, target) == ["not_enough_stamps", "pin_invalid"]
        await refused(shop.send(merging, manager))
        await refused(shop.send(asking(source, Suspend()), manager))
        told_facts = [(read.event.command, read.event.code, read.event.facts) for read in await recorded(shop, source)]
        merged_into = {"merged_into": str(target.id)}
        assert told_facts == [("merge_cards", "card_merged", merged_into), ("suspend", "card_merged", merged_into)]
        assert len(await recorded(shop, target)) == 2


@running
async def test_a_refused_merge_is_recorded_on_the_card_that_was_to_be_given_away(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        source, target = await shop.enrol(), await shop.enrol()
        manager = by(shop, Role.MANAGER)
        await refused(shop.send(MergeCards(WhichCard(card_id=source.id), source.id), manager))
        await shop.send(asking(target, Suspend()), manager)
        await refused(shop.send(MergeCards(WhichCard(card_number=source.card_number), target.id), manager))
        assert await codes(shop, source) == ["same_card", "card_not_active"]
        assert await recorded(shop, target) == []


@pytest.mark.parametrize("kept", [True, False])
@running
async def test_the_address_is_kept_sealed_where_the_merchant_keeps_addresses(database_url: str, kept: bool) -> None:
    async with shop_on(database_url, settings=MerchantSettings(log_ip_addresses=kept)) as shop:
        enrolled = await shop.enrol()
        till = msgspec.structs.replace(shop.till, ip_address="192.0.2.1", user_agent="Till/1.0")
        request = OnCard(
            which=WhichCard(card_id=enrolled.id), staff=StaffEntry(staff_pin=PIN), command=RedeemPoints("coffee")
        )
        await refused(shop.send(request, till))
        origin = (await newest(shop, enrolled)).origin
        assert (origin.ip_address if origin else None) == ("192.0.2.1" if kept else None)


# ---- the same key ---------------------------------------------------------------------------------------------


@running
async def test_a_key_whose_command_was_refused_is_decided_again_and_recorded_again(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        await here.ask(enrolled, AddStamp())
        for shop in (here, there, here):
            assert (await refused(shop.ask(enrolled, AddStamp(), key="k")))[0] == "stamp_cooldown"
        assert await codes(here, enrolled) == ["stamp_cooldown"] * 3
        here.clock.forward(minutes=15)
        assert not (await there.ask(enrolled, AddStamp(), key="k")).replayed
        assert len(await recorded(there, enrolled)) == 3


@running
async def test_a_repetition_is_answered_and_not_recorded_though_the_rules_would_refuse_it(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        first = await here.ask(enrolled, AddStamp(), key="k", answer=told)
        for shop in (here, there):
            assert (await shop.ask(enrolled, AddStamp(), key="k", answer=told, pin=WRONG_PIN)).answer == first.answer
        assert await recorded(here, enrolled) == []


# ---- what is not recorded -------------------------------------------------------------------------------------


@running
async def test_a_card_that_is_none_of_the_merchants_leaves_nothing(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock)
        theirs, mine = await neighbour.enrol(), await shop.enrol()
        head = await shop.ledger.log.head()
        staff = StaffEntry(staff_pin=PIN)
        for which in (WhichCard(card_id=theirs.id), WhichCard(card_id=uuid4()), WhichCard(card_number="000000000000")):
            assert await refused(shop.send(OnCard(which=which, staff=staff, command=AddStamp()))) == (
                "card_not_found",
                {},
            )
            missing = OnCard(which=which, command=AddStamp())
            assert (await refused(shop.send(missing)))[0] == "staff_pin_required"
        merging = MergeCards(WhichCard(card_id=mine.id), theirs.id)
        assert (await refused(shop.send(merging, by(shop, Role.MANAGER))))[0] == "card_not_found"
        assert await shop.ledger.log.head() == head
        entry = StaffEntry(staff_pin=WRONG_PIN)
        wrong = OnCard(which=WhichCard(card_id=theirs.id), staff=entry, command=AddStamp())
        assert await refused(shop.send(wrong)) == ("pin_invalid", {"attempts_left": 4})
        assert await shop.ledger.log.head() == head + 1
        assert await recorded(neighbour, theirs) == []


@running
async def test_what_is_about_no_card_is_not_recorded_as_if_it_were(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.send(OnProgram(ChangeProgram({"active": False})), shop.merchant)
        head = await shop.ledger.log.head()
        commands: list[tuple[Command, Caller]] = [
            (EnrolCard(customer_id="C-2"), shop.till),
            (VerifyPin(StaffEntry()), shop.till),
            (CreatePin(name="Kim", pin="5678", role=StaffRole.STAFF, store_id=uuid4()), shop.merchant),
            (asking(enrolled, AddStamp()), msgspec.structs.replace(shop.till, key_digest="0" * 64)),
        ]
        for command, caller in commands:
            await refused(shop.send(command, caller))
        assert await shop.ledger.log.head() == head


@running
async def test_a_key_or_a_receipt_that_was_used_for_something_else_is_not_recorded(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol()
        await shop.ask(enrolled, EarnPoints(2_500, "ORD-1"), key="k")
        head = await shop.ledger.log.head()
        assert (await refused(shop.ask(enrolled, RedeemStamps(), key="k")))[0] == "idempotency_key_reused"
        assert (await refused(shop.ask(enrolled, EarnPoints(1, "ORD-1"))))[0] == "order_reference_used"
        assert await shop.ledger.log.head() == head


@running
async def test_a_preview_that_is_refused_writes_nothing(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol()
        head = await shop.ledger.log.head()
        for command in (RedeemPoints("coffee"), RedeemStamps()):
            code, _ = await refused(shop.ledger.previews.foretell(asking(enrolled, command), shop.till, told))
            assert code.startswith("not_enough_")
        merging = MergeCards(WhichCard(card_id=enrolled.id), enrolled.id)
        foretelling = shop.ledger.previews.foretell(merging, by(shop, Role.MANAGER), told)
        assert await refused(foretelling) == ("same_card", {})
        assert await shop.ledger.log.head() == head


# ---- many at once ---------------------------------------------------------------------------------------------


@running
async def test_of_64_stamps_at_once_every_one_is_given_or_recorded_as_refused(database_url: str) -> None:
    async with two_servers(database_url, cooldown_minutes=0, max_daily_stamps=10) as (here, there):
        enrolled = await here.enrol()
        handled, refusals = await all_at_once(shop.ask(enrolled, AddStamp()) for shop in [here, there] * 32)
        assert sorted(of(each).stamp_count for each in handled) == list(range(1, 11))
        assert refusals == Counter(daily_stamp_limit=54)
        assert Counter(await codes(here, enrolled)) == refusals
        assert len(await here.history(enrolled.id)) == 11


@running
async def test_64_refusals_at_once_by_every_name_of_the_card_are_each_recorded_once(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        names = (
            WhichCard(card_id=enrolled.id),
            WhichCard(card_number=enrolled.card_number),
            WhichCard(qr_code=enrolled.qr_code),
        )
        staff = StaffEntry(staff_pin=PIN)
        requests = [OnCard(which=names[n % 3], staff=staff, command=RedeemPoints("coffee")) for n in range(64)]
        sent = [shop.send(request) for shop, request in zip([here, there] * 32, requests, strict=True)]
        handled, refusals = await all_at_once(sent)
        assert (handled, refusals) == ([], Counter(not_enough_points=64))
        assert await codes(there, enrolled) == ["not_enough_points"] * 64


@running
async def test_64_wrong_pins_at_once_lock_at_the_maximum_and_are_each_recorded_once(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        handled, refusals = await all_at_once(
            shop.ask(enrolled, AddStamp(), pin=WRONG_PIN, staff_id=here.staff_id) for shop in [here, there] * 32
        )
        assert (handled, refusals) == ([], Counter(pin_invalid=5, pin_locked=59))
        assert Counter(await codes(here, enrolled)) == refusals


@running
async def test_a_refusal_on_facts_that_moved_elsewhere_is_decided_again_and_not_recorded(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        await refused(there.ask(enrolled, RedeemPoints("coffee")))
        await here.ask(enrolled, EarnPoints(2_500, None))
        assert of(await there.ask(enrolled, RedeemPoints("coffee"))).points_balance == 150
        await here.send(OnMerchant(ChangeSettings({"allow_reversals": False})), here.merchant)
        assert (await refused(there.ask(enrolled, Reverse(card=enrolled.id, version=2))))[0] == "reversals_not_allowed"
        assert await codes(here, enrolled) == ["not_enough_points", "reversals_not_allowed"]


# ---- when the log does not answer -----------------------------------------------------------------------------


@pytest.mark.slow
@running
async def test_a_refusal_that_cannot_be_recorded_is_not_given_and_is_once_it_can_be(database_url: str) -> None:
    async with shop_on(database_url) as shop, await psycopg.AsyncConnection.connect(database_url) as beside:
        enrolled = await shop.enrol()
        await beside.execute("LOCK TABLE events IN EXCLUSIVE MODE")
        with pytest.raises(Unavailable):
            await shop.ask(enrolled, RedeemPoints("coffee"), key="k")
        await beside.rollback()
        code, _ = await refused(shop.ask(enrolled, RedeemPoints("coffee"), key="k"))
        assert (code, set(await codes(shop, enrolled))) == ("not_enough_points", {"not_enough_points"})


@running
async def test_nothing_is_recorded_upon_a_refusal_that_the_database_lost(database_url: str) -> None:
    async with shop_on(database_url) as shop, await psycopg.AsyncConnection.connect(database_url) as beside:
        enrolled = await shop.enrol()
        await refused(shop.ask(enrolled, RedeemStamps()))
        await refused(shop.ask(enrolled, RedeemPoints("coffee")))
        stream = refusals_stream(enrolled.id)
        lost = await beside.execute("DELETE FROM events WHERE originator_id = %s AND originator_version = 2", [stream])
        await beside.commit()
        assert lost.rowcount == 1
        await refused(shop.ask(enrolled, RedeemStamps()))
        assert await codes(shop, enrolled) == ["not_enough_stamps"] * 2
