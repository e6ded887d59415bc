"""Reversals, corrections, merges and expiry through the one door, on a real log, whoever else writes."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from psycopg import sql

from ledger.actor import Caller, Role
from ledger.card import (
    AddStamp,
    Adjust,
    Card,
    CardAbsorbed,
    CardMerged,
    CardStatus,
    Close,
    EarnPoints,
    ExpirePoints,
    PointsExpired,
    PointsRedeemed,
    Reactivate,
    RedeemPoints,
    Reverse,
    Suspend,
    TransactionReversed,
)
from ledger.commands import CreatePin, EnrolCard, ImportCard, MergeCards, OnCard, OnMerchant, StaffEntry, WhichCard
from ledger.entry import Handled, Result
from ledger.errors import Unavailable
from ledger.merchant import ChangeSettings, MerchantSettings, StaffPinPolicy
from ledger.program import ExpiryPolicy
from ledger.staff_pin import StaffRole
from ledger.streams import refusals_stream
from tests.at_the_door import all_at_once, of, refused, shop_on, told, two_servers
from tests.running import running
from tests.shop import PIN, Shop, open_shop

WRONG_PIN = "9999"
MANAGERS_PIN = "5678"
A_PURCHASE = EarnPoints(40_000, "ORD-1")


def reversing(which: Card, version: int = 2, **more: Any) -> Reverse:
    """The reversal of a card's event of that version; the first purchase is the second event."""
    return Reverse(card=which.id, version=version, **more)


def manager(shop: Shop) -> Caller:
    return Caller(role=Role.MANAGER, id=UUID(int=77), merchant_id=shop.merchant.merchant_id)


def nightly(shop: Shop) -> Caller:
    """Whoever runs the schedules."""
    return Caller(role=Role.OPERATOR, id=UUID(int=1), merchant_id=shop.merchant.merchant_id)


async def as_manager(shop: Shop, which: Card, command: Any, **options: Any) -> Handled:
    return await shop.send(OnCard(which=WhichCard(card_id=which.id), command=command), manager(shop), **options)


async def merged(shop: Shop, source: Card, target: Card, **options: Any) -> Handled:
    """A merge, sent again under its key for as long as others keep it from being decided."""
    key = options.pop("key", None) or str(uuid4())
    command = MergeCards(WhichCard(card_id=source.id), target.id)
    return await until_available(lambda: shop.send(command, manager(shop), key=key, **options))


async def until_available(send: Callable[[], Awaitable[Handled]]) -> Handled:
    """What a till does that is told to come again."""
    while True:
        try:
            return await send()
        except Unavailable:
            await asyncio.sleep(0.01)


async def past(shop: Shop, which: Card) -> list[Any]:
    """A card's events, oldest first."""
    return [read.event for _, read in reversed(await shop.history(which.id))]


async def head(shop: Shop) -> int:
    return await shop.ledger.log.head()


def whole(card: Card) -> Card:
    """A card whose lots hold its balance."""
    assert sum(lot.points for lot in card.lots) == max(card.points_balance, 0)
    return card


# ---- reversing ------------------------------------------------------------------------------------------------


@running
async def test_of_64_reversals_at_once_one_succeeds(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        await here.ask(enrolled, A_PURCHASE)
        handled, codes = await all_at_once(shop.ask(enrolled, reversing(enrolled)) for shop in [here, there] * 32)
        assert (len(handled), codes) == (1, Counter(already_reversed=63))
        assert whole(await here.card(enrolled)).points_balance == 0
        assert sum(isinstance(event, TransactionReversed) for event in await past(here, enrolled)) == 1


@running
async def test_64_refunds_at_once_take_back_exactly_what_was_earned(database_url: str) -> None:
    async with two_servers(database_url, points_per_euro=33) as (here, there):
        enrolled = await here.enrol()
        await here.ask(enrolled, EarnPoints(1_999))
        await here.ask(enrolled, EarnPoints(100))
        refunds = [here.ask(enrolled, reversing(enrolled, purchase_amount_cents=50)) for _ in range(32)]
        refunds += [there.ask(enrolled, reversing(enrolled, purchase_amount_cents=50)) for _ in range(32)]
        handled, codes = await all_at_once(refunds)
        assert (len(handled), codes) == (39, Counter(more_than_is_left=25))
        await here.ask(enrolled, reversing(enrolled))
        assert (await refused(there.ask(enrolled, reversing(enrolled))))[0] == "already_reversed"
        taken = [event.points for event in await past(here, enrolled) if isinstance(event, TransactionReversed)]
        assert -sum(taken) == 1_999 * 33 // 100
        assert whole(await here.card(enrolled)).points_balance == 33


@running
async def test_a_whole_reversal_at_once_with_refunds_and_redemptions_leaves_nothing_over(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        await here.ask(enrolled, A_PURCHASE)
        asked = [here.ask(enrolled, reversing(enrolled, purchase_amount_cents=1_000)) for _ in range(10)]
        asked += [there.ask(enrolled, reversing(enrolled, allow_negative_balance=True))]
        asked += [shop.ask(enrolled, RedeemPoints("coffee")) for shop in [here, there] * 10]
        await all_at_once(asked)
        events = await past(here, enrolled)
        spent = sum(isinstance(event, PointsRedeemed) for event in events)
        back = sum(event.points for event in events if isinstance(event, TransactionReversed))
        state = whole(await here.card(enrolled))
        assert state.points_balance == 4_000 - 100 * spent + back
        assert -back <= 4_000


@running
async def test_a_reversal_under_its_key_answers_the_first_time(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        await here.ask(enrolled, A_PURCHASE)
        first = await here.ask(enrolled, reversing(enrolled), key="k", answer=told)
        for shop in (here, there):
            again = await shop.ask(enrolled, reversing(enrolled), key="k", answer=told)
            assert (again.replayed, again.answer, again.position) == (True, first.answer, first.position)
        for other in (reversing(enrolled, purchase_amount_cents=40_000), reversing(enrolled, reason="Broken")):
            assert await refused(there.ask(enrolled, other, key="k")) == ("idempotency_key_reused", {})


@running
async def test_what_another_server_reversed_is_known_to_one_that_remembers_the_card(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        await here.ask(enrolled, A_PURCHASE)
        await there.ask(enrolled, EarnPoints(100))
        await here.ask(enrolled, reversing(enrolled))
        assert (await refused(there.ask(enrolled, reversing(enrolled))))[0] == "already_reversed"
        await there.ask(enrolled, reversing(enrolled, 3))
        assert whole(await here.card(enrolled)).points_balance == 0


@running
async def test_only_transactions_of_the_merchants_cards_are_reversed(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock)
        theirs = await neighbour.enrol()
        await neighbour.ask(theirs, A_PURCHASE)
        mine = await shop.enrol()
        nothing = [(mine.id, version) for version in (0, 2, 10**14)]
        nothing += [(theirs.id, 2), (uuid4(), 1), (shop.staff_id, 1), (shop.till.id, 1), (mine.customer, 1)]
        for stream, version in [*nothing, (shop.merchant.merchant_id, 1)]:
            for which in (WhichCard(card_id=stream), WhichCard(card_id=mine.id)):
                command = OnCard(
                    which=which, staff=StaffEntry(staff_pin=PIN), command=Reverse(card=stream, version=version)
                )
                assert await refused(shop.send(command)) == ("transaction_not_found", {})
        assert (await neighbour.card(theirs)).points_balance == 4_000


@running
async def test_an_order_reference_stays_used_after_a_reversal(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        first = await here.ask(enrolled, A_PURCHASE, answer=told)
        await here.ask(enrolled, reversing(enrolled))
        again = await there.ask(enrolled, A_PURCHASE, answer=told)
        assert (again.replayed, again.answer) == (True, first.answer)
        facts = {"transaction_id": f"{enrolled.id}-2"}
        assert await refused(there.ask(enrolled, EarnPoints(1, "ORD-1"))) == ("order_reference_used", facts)
        assert (await here.card(enrolled)).points_balance == 0


@running
async def test_a_merchant_may_forbid_reversals_and_a_server_that_remembers_otherwise_obeys(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        await there.ask(enrolled, A_PURCHASE)
        await here.send(OnMerchant(ChangeSettings({"allow_reversals": False})), here.merchant)
        assert await refused(there.ask(enrolled, reversing(enrolled))) == ("reversals_not_allowed", {})


# ---- who may reverse ------------------------------------------------------------------------------------------

ONLY_MANAGERS = MerchantSettings(reversals_need_manager=True)


async def with_managers_pin(shop: Shop) -> Card:
    """A card with two purchases, in a shop where a manager has a PIN."""
    await shop.send(CreatePin(name="Kim", pin=MANAGERS_PIN, role=StaffRole.MANAGER), shop.merchant)
    enrolled = await shop.enrol()
    for _ in range(2):
        await shop.ask(enrolled, EarnPoints(1_000))
    return enrolled


@pytest.mark.parametrize("policy", StaffPinPolicy)
@running
async def test_where_reversals_need_a_manager_the_pin_is_asked_for_whatever_the_policy(
    database_url: str, policy: StaffPinPolicy
) -> None:
    settings = msgspec.structs.replace(ONLY_MANAGERS, staff_pin_policy=policy)
    async with shop_on(database_url, settings=settings) as shop:
        enrolled = await with_managers_pin(shop)
        without = OnCard(which=WhichCard(card_id=enrolled.id), command=reversing(enrolled))
        assert await refused(shop.send(without)) == ("manager_pin_required", {})
        assert await refused(shop.ask(enrolled, reversing(enrolled), pin=PIN)) == ("manager_pin_required", {})
        assert await refused(shop.ask(enrolled, reversing(enrolled), pin=PIN, staff_id=shop.staff_id)) == (
            "manager_pin_required",
            {},
        )
        handled = await shop.ask(enrolled, reversing(enrolled), pin=MANAGERS_PIN)
        assert of(handled).points_balance == 100
        await as_manager(shop, enrolled, reversing(enrolled, 3))
        assert (await shop.card(enrolled)).points_balance == 0


@pytest.mark.parametrize("policy", StaffPinPolicy)
@running
async def test_wrong_pins_of_a_reversal_count_whatever_the_policy(database_url: str, policy: StaffPinPolicy) -> None:
    settings = msgspec.structs.replace(ONLY_MANAGERS, staff_pin_policy=policy)
    async with two_servers(database_url, settings=settings) as (here, there):
        enrolled = await with_managers_pin(here)
        handled, codes = await all_at_once(
            shop.ask(enrolled, reversing(enrolled), pin=WRONG_PIN) for shop in [here, there] * 16
        )
        assert (handled, codes) == ([], Counter(pin_invalid=5, pin_locked=27))
        assert (await refused(here.ask(enrolled, reversing(enrolled), pin=MANAGERS_PIN)))[0] == "pin_locked"


@running
async def test_a_staff_pin_in_a_managers_place_is_no_wrong_pin(database_url: str) -> None:
    async with shop_on(database_url, settings=ONLY_MANAGERS) as shop:
        enrolled = await with_managers_pin(shop)
        for _ in range(6):
            assert (await refused(shop.ask(enrolled, reversing(enrolled))))[0] == "manager_pin_required"
        assert not (await shop.ask(enrolled, reversing(enrolled), pin=MANAGERS_PIN)).replayed


@running
async def test_a_reversal_that_is_refused_still_forgets_the_managers_wrong_pins(database_url: str) -> None:
    async with shop_on(database_url, settings=ONLY_MANAGERS) as shop:
        enrolled = await with_managers_pin(shop)
        for _ in range(4):
            await refused(shop.ask(enrolled, reversing(enrolled), pin=WRONG_PIN))
        assert (await refused(shop.ask(enrolled, reversing(enrolled, 9), pin=MANAGERS_PIN)))[0] == (
            "transaction_not_found"
        )
        again = await refused(shop.ask(enrolled, reversing(enrolled), pin=WRONG_PIN))
        assert again == ("pin_invalid", {"attempts_left": 4})


# ---- closing --------------------------------------------------------------------------------------------------


@running
async def test_each_customer_of_a_closed_card_may_have_another(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        cards = [await here.enrol(customer_id=f"C-{number}") for number in range(3)]
        await merged(here, cards[0], cards[1])
        await merged(here, cards[1], cards[2])
        for shop in (here, there):
            assert {(await shop.enrol(customer_id=each.customer_id)).id for each in cards} == {cards[2].id}
        await as_manager(there, cards[2], Close())
        anew = [await here.enrol(customer_id=each.customer_id) for each in cards]
        assert len({each.id for each in [*cards, *anew]}) == 6
        assert {each.status for each in anew} == {CardStatus.ACTIVE}
        for shop in (here, there):
            again = [await shop.enrol(customer_id=each.customer_id) for each in cards]
            assert [each.id for each in again] == [each.id for each in anew]


@running
async def test_closing_a_card_again_takes_nothing_from_the_card_that_came_after_it(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        closed = await shop.enrol(customer_id="C-1")
        await as_manager(shop, closed, Close())
        anew = await shop.enrol(customer_id="C-1")
        await as_manager(shop, closed, Close())
        assert (await shop.enrol(customer_id="C-1")).id == anew.id
        assert (await shop.card(anew)).status is CardStatus.ACTIVE


@pytest.mark.parametrize(
    "command", [EnrolCard(customer_id="C-1"), ImportCard(source="old.csv", customer_id="C-1", points=50)], ids=str
)
@running
async def test_a_card_that_is_closed_while_its_customer_is_given_one_is_not_theirs(
    database_url: str, monkeypatch: pytest.MonkeyPatch, command: EnrolCard | ImportCard
) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol(customer_id="C-1")
        look_up = there.ledger.log.claim

        async def closed_right_after(merchant: UUID, kind: str, key: str, **options: bool) -> bytes | None:
            value = await look_up(merchant, kind, key, **options)
            if kind == "customer":
                await as_manager(here, enrolled, Close())
            return value

        monkeypatch.setattr(there.ledger.log, "claim", closed_right_after)
        anew = of(await there.send(command))
        assert (anew.id != enrolled.id, anew.status) == (True, CardStatus.ACTIVE)
        assert (await here.enrol(customer_id="C-1")).id == anew.id


@running
async def test_stopping_starting_and_ending_a_card_again_changes_nothing(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        enrolled = await here.enrol()
        for command in (Reactivate(), Suspend("Lost"), Reactivate("Found"), Close("Moved away")):
            await as_manager(here, enrolled, command)
            before = await head(here)
            await as_manager(there, enrolled, command)
            assert await head(here) == before


# ---- merging --------------------------------------------------------------------------------------------------


@running
async def test_a_merge_is_told_in_both_cards_and_moves_everything(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        source, target = await shop.enrol(), await shop.enrol()
        await shop.ask(source, EarnPoints(1_000))
        await shop.ask(source, AddStamp())
        await shop.ask(target, EarnPoints(500))
        handled = await merged(shop, source, target)
        given, taken = (await past(shop, source))[-1], (await past(shop, target))[-1]
        assert isinstance(given, CardMerged)
        assert isinstance(taken, CardAbsorbed)
        assert (given.into, taken.cards) == (target.id, (source.id,))
        assert (given.points, given.stamps, taken.points, taken.stamps) == (-100, -1, 100, 1)
        closed, state = await shop.card(source), whole(await shop.card(target))
        assert (closed.status, closed.merged_into, closed.points_balance) == (CardStatus.CLOSED, target.id, 0)
        assert (state.points_balance, state.stamp_count, of(handled)) == (150, 1, state)


@running
async def test_merges_earnings_redemptions_and_refunds_at_once_lose_and_double_nothing(database_url: str) -> None:
    options = {"cooldown_minutes": 0, "max_daily_stamps": 1_000}
    async with two_servers(database_url, **options) as (here, there):
        one, other = await here.enrol(), await here.enrol()
        for each in (one, other):
            await here.ask(each, EarnPoints(10_000))
        shops, keys = itertools.cycle([here, there]), iter(map(str, range(1_000)))

        def asked(which: Card, command: Any) -> Awaitable[Handled]:
            shop, key = next(shops), next(keys)
            return until_available(lambda: shop.ask(which, command, key=key))

        work = [
            asked(which, command)
            for which in (one, other)
            for command in [EarnPoints(100), AddStamp(), RedeemPoints("coffee")] * 5
            + [reversing(which, purchase_amount_cents=1_000)] * 3
        ]
        work.insert(5, merged(here, one, other))
        work.insert(20, merged(there, other, one))
        handled, codes = await all_at_once(work)
        assert (len(handled), codes) == (len(work) - 1, Counter(same_card=1))
        states = [whole(await here.card(each)) for each in (one, other)]
        (gone,) = (each for each in states if each.merged_into is not None)
        (left,) = (each for each in states if each.merged_into is None)
        assert (gone.status, gone.points_balance, gone.stamp_count) == (CardStatus.CLOSED, 0, 0)
        assert gone.merged_into == left.id
        assert left.points_balance == 2 * (1_000 + 5 * 10 - 5 * 100 - 3 * 100)
        assert left.stamp_count == 10


@running
async def test_a_merge_waits_its_turn_and_no_longer_while_purchases_keep_coming(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        source, target = await shop.enrol(), await shop.enrol()
        over = asyncio.Event()

        async def buy(which: Card) -> None:
            while not over.is_set():
                await shop.ask(which, EarnPoints(100))

        buying = [asyncio.create_task(buy(which)) for which in (source, target) * 4]
        await shop.ask(source, EarnPoints(100))
        await shop.send(MergeCards(WhichCard(card_id=source.id), target.id), manager(shop))
        over.set()
        await asyncio.gather(*buying)
        assert (await shop.card(source)).merged_into == target.id


@running
async def test_a_ring_of_merges_at_once_leaves_one_card_with_everything(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        cards = [await here.enrol() for _ in range(6)]
        for each in cards:
            await here.ask(each, EarnPoints(1_000))
        ring = zip(cards, [*cards[1:], cards[0]], itertools.cycle([here, there]), strict=False)
        handled, codes = await all_at_once(merged(shop, source, target) for source, target, shop in ring)
        assert (len(handled), codes) == (5, Counter(same_card=1))
        states = [whole(await here.card(each)) for each in cards]
        assert sorted(each.points_balance for each in states) == [0] * 5 + [600]
        (left,) = (each for each in states if each.merged_into is None)
        assert set(left.absorbed) == {each.id for each in cards} - {left.id}


@running
async def test_the_names_of_a_merged_card_find_the_new_one_on_a_server_that_remembers_the_old(
    database_url: str,
) -> None:
    async with two_servers(database_url) as (here, there):
        source, target = await here.enrol(), await here.enrol()
        names = (
            WhichCard(card_id=source.id),
            WhichCard(card_number=source.card_number),
            WhichCard(qr_code=source.qr_code),
        )
        staff = StaffEntry(staff_pin=PIN)
        for which in names:
            await there.send(OnCard(which=which, staff=staff, command=EarnPoints(100)))
        await merged(here, source, target)
        for which in names:
            for shop in (there, here):
                handled = await shop.send(OnCard(which=which, staff=staff, command=EarnPoints(100)))
                assert of(handled).id == target.id
        assert whole(await here.card(target)).points_balance == 90


@running
async def test_an_order_of_the_old_card_answers_its_first_result_for_either(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        first_card, second_card, target = await here.enrol(), await here.enrol(), await here.enrol()
        first = await here.ask(first_card, A_PURCHASE, answer=told, key="k")
        await merged(here, first_card, second_card)
        await merged(here, second_card, target)
        for shop in (here, there):
            for which in (first_card, second_card, target):
                again = await shop.ask(which, A_PURCHASE, answer=told)
                assert (again.replayed, again.answer) == (True, first.answer)
            assert (await shop.ask(first_card, A_PURCHASE, answer=told, key="k")).answer == first.answer
            other = EarnPoints(39_999, "ORD-1")
            facts = {"transaction_id": f"{first_card.id}-2"}
            assert await refused(shop.ask(target, other)) == ("order_reference_used", facts)
        assert whole(await here.card(target)).points_balance == 4_000


@running
async def test_a_merge_under_its_key_answers_the_first_time_and_under_another_is_of_one_card(
    database_url: str,
) -> None:
    async with two_servers(database_url) as (here, there):
        source, target = await here.enrol(), await here.enrol()
        first = await merged(here, source, target, key="k", answer=told)
        for shop in (here, there):
            again = await merged(shop, source, target, key="k", answer=told)
            assert (again.replayed, again.answer, again.position) == (True, first.answer, first.position)
            assert await refused(merged(shop, source, target)) == ("card_merged", {"merged_into": str(target.id)})
            assert await refused(merged(shop, target, source)) == ("same_card", {})
        assert await refused(merged(here, target, target)) == ("same_card", {})


@running
async def test_only_cards_of_the_merchant_are_merged(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        neighbour = await open_shop(shop.ledger, shop.clock)
        theirs, mine = await neighbour.enrol(), await shop.enrol()
        before = await head(shop)
        for other in (theirs.id, uuid4(), shop.staff_id, shop.merchant.merchant_id):
            for source, target in ((mine.id, other), (other, mine.id)):
                command = MergeCards(WhichCard(card_id=source), target)
                assert await refused(shop.send(command, manager(shop))) == ("card_not_found", {})
        assert await head(shop) == before


@running
async def test_what_happened_before_two_merges_is_reversed_after_them_once(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        first, second, third = [await here.enrol() for _ in range(3)]
        await here.ask(first, EarnPoints(2_000))
        await here.ask(first, RedeemPoints("coffee"))
        await here.ask(first, reversing(first, purchase_amount_cents=500))
        await merged(here, first, second)
        await here.ask(first, reversing(first, purchase_amount_cents=500))
        await merged(here, second, third)
        assert (await there.card(third)).points_balance == 0
        await there.ask(first, reversing(first, 3))
        assert whole(await here.card(third)).points_balance == 100
        facts = {"purchase_amount_cents_left": 1_000}
        too_much = reversing(first, purchase_amount_cents=1_001)
        assert await refused(there.ask(first, too_much)) == ("more_than_is_left", facts)
        handled, codes = await all_at_once(shop.ask(first, reversing(first)) for shop in [here, there] * 16)
        assert (len(handled), codes) == (1, Counter(already_reversed=31))
        assert of(handled[0]).id == third.id
        assert whole(await here.card(third)).points_balance == 0
        assert (await refused(there.ask(first, reversing(first, 3))))[0] == "already_reversed"


@running
async def test_reversals_at_once_with_a_merge_take_back_once(database_url: str) -> None:
    async with two_servers(database_url) as (here, there):
        for _ in range(8):
            source, target = await here.enrol(), await here.enrol()
            await here.ask(source, EarnPoints(1_000))
            await there.ask(source, EarnPoints(1_000))
            work = [shop.ask(source, reversing(source)) for shop in [here, there] * 4]
            work.insert(4, merged(there, source, target))
            handled, codes = await all_at_once(work)
            assert (len(handled), codes) == (2, Counter(already_reversed=7))
            assert whole(await here.card(target)).points_balance == 100


@running
async def test_reasons_are_readable_nowhere_in_the_database(database_url: str) -> None:
    said = "Because Zelda Quux moved to Ultima Thule"
    async with shop_on(database_url) as shop:
        enrolled = await shop.enrol(customer_id="C-1")
        await shop.ask(enrolled, EarnPoints(1_000))
        await shop.ask(enrolled, reversing(enrolled, reason=said), answer=told)
        for command in (Adjust(points=5, reason=said), Suspend(said), Reactivate(said), Close(said)):
            await as_manager(shop, enrolled, command, key=str(uuid4()), answer=told)
        reasons = [event.private.reason for event in (await past(shop, enrolled))[2:]]
        assert reasons == [said] * 5
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for table in ("events", "claims", "snapshots", "subject_keys"):
            query = sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))
            rows = await (await connection.execute(query)).fetchall()
            assert rows or table == "snapshots"
            stored = b"".join(bytes(each) for row in rows for each in row if isinstance(each, bytes | memoryview))
            texts = "".join(each for row in rows for each in row if isinstance(each, str))
            assert b"Quux" not in stored
            assert "Quux" not in texts


# ---- expiring -------------------------------------------------------------------------------------------------


@running
async def test_points_expire_once_whoever_runs_it_and_when_it_was_due(database_url: str) -> None:
    async with two_servers(database_url, points_expiration_days=30) as (here, there):
        enrolled = await here.enrol()
        await here.ask(enrolled, EarnPoints(1_000))
        due = here.clock.now() + timedelta(days=30)
        here.clock.forward(days=29)
        await asyncio.gather(*(expire(shop, enrolled) for shop in (here, there)))
        assert (await here.card(enrolled)).points_balance == 100
        here.clock.forward(days=10)
        await asyncio.gather(*(expire(shop, enrolled) for shop in [here, there] * 8))
        ((_, newest), (_, before), *_) = await here.history(enrolled.id)
        assert isinstance(newest.event, PointsExpired)
        assert (newest.event.points, newest.at.occurred_at, newest.at.recorded_at) == (100, due, here.clock.now())
        assert not isinstance(before.event, PointsExpired)
        assert whole(await here.card(enrolled)).points_balance == 0


async def expire(shop: Shop, which: Card) -> Handled:
    return await shop.send(OnCard(which=WhichCard(card_id=which.id), command=ExpirePoints()), nightly(shop))


@running
async def test_a_late_command_takes_first_what_was_due_and_says_when(database_url: str) -> None:
    async with shop_on(database_url, points_expiration_days=30, expiry_policy=ExpiryPolicy.EARNED) as shop:
        enrolled = await shop.enrol()
        began = shop.clock.now()
        for _ in range(2):
            await shop.ask(enrolled, EarnPoints(1_000))
            shop.clock.forward(days=1)
        shop.clock.forward(days=60)
        late = began + timedelta(days=30, hours=12)
        await shop.ask(enrolled, EarnPoints(500), occurred_at=late)
        ((_, earned), (_, expired), *_) = await shop.history(enrolled.id)
        assert (earned.at.occurred_at, earned.event.points_balance) == (late, 150)
        assert (expired.at.occurred_at, expired.event.points) == (began + timedelta(days=30), 100)
        assert earned.at.recorded_at == expired.at.recorded_at == shop.clock.now()
        assert (await refused(shop.ask(enrolled, RedeemPoints("coffee"))))[0] == "not_enough_points"
        await expire(shop, enrolled)
        ends = [read.at.occurred_at for _, read in await shop.history(enrolled.id)][:2]
        assert ends == [late + timedelta(days=30), began + timedelta(days=31)]
        assert whole(await shop.card(enrolled)).points_balance == 0


@running
async def test_a_merge_takes_first_what_was_due_on_either_card(database_url: str) -> None:
    async with shop_on(database_url, points_expiration_days=30) as shop:
        source, target = await shop.enrol(), await shop.enrol()
        for each in (source, target):
            await shop.ask(each, EarnPoints(1_000))
        shop.clock.forward(days=31)
        await merged(shop, source, target)
        for each in (source, target):
            assert isinstance((await past(shop, each))[-2], PointsExpired)
        assert whole(await shop.card(target)).points_balance == 0


@running
async def test_a_refusal_takes_nothing_that_is_due(database_url: str) -> None:
    async with shop_on(database_url, points_expiration_days=30) as shop:
        enrolled = await shop.enrol()
        await shop.ask(enrolled, EarnPoints(1_000))
        shop.clock.forward(days=31)
        before, stood = await past(shop, enrolled), await head(shop)
        code, facts = await refused(shop.ask(enrolled, RedeemPoints("coffee")))
        assert (code, facts["points_balance"]) == ("not_enough_points", 0)
        assert await past(shop, enrolled) == before
        assert await head(shop) == stood + 1
        ((_, read),) = await shop.history(refusals_stream(enrolled.id))
        assert (read.event.code, read.event.facts) == (code, facts)


# ---- previews -------------------------------------------------------------------------------------------------


def balances(result: Result) -> bytes:
    """An answer with what a command made and came to."""
    events = [(type(event).__name__, event.points_balance) for _, event in result.events]
    return msgspec.json.encode((events, result.main.state))


@pytest.mark.parametrize(
    "command", [EarnPoints(500), RedeemPoints("coffee"), "reverse", ExpirePoints(), AddStamp()], ids=str
)
@running
async def test_a_preview_is_what_the_command_then_comes_to_and_writes_nothing(database_url: str, command: Any) -> None:
    async with two_servers(database_url, points_expiration_days=30) as (here, there):
        enrolled = await here.enrol()
        await here.ask(enrolled, EarnPoints(1_000))
        await there.ask(enrolled, EarnPoints(1_000))
        await here.ask(enrolled, EarnPoints(1_000))
        rule = reversing(enrolled) if command == "reverse" else command
        for each in (rule, ExpirePoints()):
            before = await contents(database_url)
            request = OnCard(which=WhichCard(card_id=enrolled.id), staff=StaffEntry(staff_pin=WRONG_PIN), command=each)
            foretold = await there.ledger.previews.foretell(request, there.till, balances)
            assert await contents(database_url) == before
            came_to = await here.ask(enrolled, each, answer=balances)
            assert foretold.answer == came_to.answer
            assert foretold.position <= came_to.position
            here.clock.forward(days=31)


async def contents(database_url: str) -> tuple[Any, ...]:
    """How much is in the database."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        rows = await connection.execute(
            "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM claims), (SELECT count(*) FROM subject_keys)"
        )
        counted = await rows.fetchone()
    assert counted is not None
    return counted
