"""Statistics are the sums of the transactions that are listed: by day of each store, by store, by staff member."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import msgspec
import pytest

from ledger.actor import Caller, Role
from ledger.card import AddStamp, Adjust, Close, EarnPoints, ExpirePoints, RedeemPoints, RedeemStamps, Reverse
from ledger.commands import CreatePin, MergeCards, OnCard, OpenStore, StaffEntry, WhichCard
from ledger.staff_pin import StaffRole
from ledger.store.names import MERCHANT
from projections import platform, rebuild, statistics, transactions, visits
from projections.reading import Reader
from projections.visits import Wanted
from schemas.cards import CardTransaction
from schemas.statistics import Statistics
from tests.projections.random_trade import trade_in
from tests.projections.telling import Tables, fed, shop_on, tables_of
from tests.running import running
from tests.shop import PIN, Shop

LUXEMBOURG, TOKYO = ZoneInfo("Europe/Luxembourg"), ZoneInfo("Asia/Tokyo")
VISITS = {"stamp_added", "stamps_redeemed", "points_redeemed"}
CLOSURES = """
    SELECT convert_from(state, 'UTF8')::jsonb FROM events
    WHERE merchant_id = %s AND (topic LIKE 'card_closed.%%' OR topic LIKE 'card_merged.%%')
"""
SUMS = (
    *("enrolments", "purchases", "purchase_amount_cents", "refunded_amount_cents", "redemptions"),
    *("stamps_added", "stamps_redeemed", "stamps_reversed", "stamps_adjusted", "stamps_imported"),
    *("points_earned", "points_redeemed", "points_expired", "points_reversed", "points_adjusted", "points_imported"),
)


class Told(NamedTuple):
    """A shop's tables, and what is asked of them."""

    shop: Shop
    reader: Reader
    tables: Tables

    async def statistics(self, wanted: Wanted = Wanted()) -> Statistics:  # noqa: B008 a tuple is never changed
        """The figures, now."""
        log, merchant = self.shop.ledger.log, self.shop.merchant.merchant_id
        return await statistics.of_merchant(self.reader, log, merchant, wanted, self.shop.clock.now())

    async def transactions(self, page_items: int = 100) -> list[CardTransaction]:
        """Everything that the API lists."""
        found: list[CardTransaction] = []
        place, log, merchant = None, self.shop.ledger.log, self.shop.merchant.merchant_id
        while True:
            items, place = await transactions.of_merchant(
                self.reader, log, merchant, transactions.Wanted(), place, page_items
            )
            found += items
            if place is None:
                return found


@asynccontextmanager
async def told(shop: Shop, database_url: str) -> AsyncIterator[Told]:
    """The shop's tables once they are told of all that happened."""
    with tables_of(database_url) as tables:
        await fed(database_url, tables)
        reader = Reader(database_url)
        await reader.open()
        try:
            yield Told(shop, reader, tables)
        finally:
            await reader.close()


async def open_store(shop: Shop, zone: str) -> UUID:
    """Another store of the merchant."""
    opening = OpenStore(code=f"T{uuid4().hex[:12].upper()}", name="Other", time_zone=zone, currency="EUR", locale="en")
    opened = await shop.ledger.handle(opening, shop.merchant)
    assert opened.result is not None
    stores: list[UUID] = list(opened.result.main.state.stores)
    return next(each for each in stores if each != shop.store_id)


async def do(shop: Shop, card: Any, command: Any, store: UUID | None = None, pin: str | None = PIN) -> Any:
    """A command at a till, or as a manager in that store; answers the transaction's place on the card."""
    caller: Caller = shop.till
    if store is not None or isinstance(command, Adjust | Close):
        caller = msgspec.structs.replace(shop.merchant, role=Role.MANAGER, store_id=store or shop.store_id)
    asked = OnCard(which=WhichCard(card_id=card.id), staff=StaffEntry(staff_pin=pin), command=command)
    handled = await shop.ledger.handle(asked, caller, key=str(uuid4()))
    assert handled.result is not None
    return card.id, handled.result.main.version


def summed(listed: Iterable[CardTransaction]) -> dict[str, int]:
    """The sums of some transactions, by plain addition."""
    sums: Counter[str] = Counter(dict.fromkeys(SUMS, 0))
    visitors = set()
    for each in listed:
        if each.kind in VISITS or (each.kind == "points_earned" and each.purchase_amount_cents is not None):
            visitors.add(each.card_id)
        match each.kind:
            case "enrolled":
                sums["enrolments"] += 1
            case "points_earned":
                sums["points_earned"] += each.points
                if each.purchase_amount_cents is not None:
                    sums["purchases"] += 1
                    sums["purchase_amount_cents"] += each.purchase_amount_cents
            case "stamp_added":
                sums["stamps_added"] += each.stamps
            case "points_redeemed" | "stamps_redeemed":
                sums["redemptions"] += 1
                sums["points_redeemed"] -= each.points
                sums["stamps_redeemed"] -= each.stamps
            case "points_expired":
                sums["points_expired"] -= each.points
            case "reversed":
                sums["points_reversed"] -= each.points
                sums["stamps_reversed"] -= each.stamps
                sums["refunded_amount_cents"] += each.purchase_amount_cents or 0
            case "adjusted" | "imported":
                sums[f"points_{each.kind}"] += each.points
                sums[f"stamps_{each.kind}"] += each.stamps
    return {**sums, "active_cards": len(visitors)}


def picked(shape: msgspec.Struct) -> dict[str, int]:
    """The sums of an answer."""
    return {name: getattr(shape, name) for name in (*SUMS, "active_cards")}


def by(listed: Iterable[CardTransaction], key: Any) -> dict[Any, dict[str, int]]:
    """Sums by something that transactions have."""
    parts: defaultdict[Any, list[CardTransaction]] = defaultdict(list)
    for each in listed:
        parts[key(each)].append(each)
    return {known: summed(part) for known, part in parts.items()}


def something(parts: dict[Any, dict[str, int]]) -> dict[Any, dict[str, int]]:
    """Only those in which something is counted, as merging leaves nothing to count."""
    return {known: sums for known, sums in parts.items() if any(sums.values())}


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@running
async def test_statistics_are_the_sums_of_the_transactions_that_are_listed(database_url: str, seed: int) -> None:
    async with shop_on(database_url) as shop:
        trade = await trade_in(shop, Random(seed))  # noqa: S311 the same history each time
        await trade.steps(250)
        async with told(shop, database_url) as answers:
            await refuse_sums_that_differ(answers, Random(seed))  # noqa: S311 the same days each time


async def refuse_sums_that_differ(answers: Told, chance: Random) -> None:
    """Holds all figures, and those of some days, a store and a staff member, against the transactions."""
    listed = await answers.transactions()
    zones = {code: ZoneInfo(zone) for code, zone in (await stores_of(answers.shop)).items()}

    def day(each: CardTransaction) -> date:
        return each.occurred_at.astimezone(zones.get(each.store_code or "", LUXEMBOURG)).date()

    closures = [event for (event,) in answers.tables.ask(CLOSURES, answers.shop.merchant.merchant_id)]
    assert not any(event["data"]["points_balance"] for event in closures if event["name"] == "card_merged")
    whole = await answers.statistics()
    assert picked(whole) == summed(listed)
    assert whole.closures == len(closures)
    assert whole.cards == sum(each.kind == "enrolled" for each in listed) - len(closures)
    assert whole.points_outstanding == balances(answers, "points_balance", "<>")
    assert whole.stamps_outstanding == balances(answers, "stamp_count", "<>")
    assert whole.points_forfeited == balances(answers, "points_balance", "=")
    assert whole.stamps_forfeited == balances(answers, "stamp_count", "=")
    refuse_balances_without_reason(whole)
    for each in whole.by_day:
        refuse_balances_without_reason(await answers.statistics(Wanted(last_day=each.day)))
    assert whole.points_outstanding == sum(each.points for each in listed) - whole.points_forfeited
    assert whole.stamps_outstanding == sum(each.stamps for each in listed) - whole.stamps_forfeited
    assert something({each.day: picked(each) for each in whole.by_day}) == something(by(listed, day))
    assert something({each.store_code: picked(each) for each in whole.by_store}) == something(
        by(listed, lambda each: each.store_code)
    )
    assert something({each.staff_id: picked(each) for each in whole.by_staff}) == something(
        by(listed, lambda each: each.staff_id)
    )
    days = sorted(each.day for each in whole.by_day)
    for _ in range(5):
        first, last = sorted(chance.choices(days, k=2))
        part = await answers.statistics(Wanted(first, last))
        assert (part.from_, part.to) == (first, last)
        assert picked(part) == summed(each for each in listed if first <= day(each) <= last)
        assert part.by_day == [each for each in whole.by_day if first <= each.day <= last]
        until = [each for each in listed if day(each) <= last]
        forfeited = [each for each in whole.by_day if each.day <= last]
        assert part.points_outstanding == sum(each.points for each in until) - sum(
            each.points_forfeited for each in forfeited
        )
        assert part.stamps_outstanding == sum(each.stamps for each in until) - sum(
            each.stamps_forfeited for each in forfeited
        )
    code = next(iter(zones))
    of_store = await answers.statistics(Wanted(store_id=answers.shop.store_id))
    assert picked(of_store) == summed(each for each in listed if each.store_code == code)
    of_staff = await answers.statistics(Wanted(staff_id=answers.shop.staff_id))
    assert picked(of_staff) == summed(each for each in listed if each.staff_id == answers.shop.staff_id)
    everybody = await platform.of_all(answers.reader, None, None, answers.shop.clock.now())
    assert picked(everybody) == picked(whole)
    assert (everybody.by_day, everybody.cards) == (whole.by_day, whole.cards)
    assert everybody.returning_cards == whole.returning_cards


async def stores_of(shop: Shop) -> dict[str, str]:
    """The time zones of the merchant's stores, by their codes."""
    loaded = await shop.ledger.log.load(MERCHANT, shop.merchant.merchant_id, fresh=True)
    assert loaded is not None
    return {store.code: store.time_zone for store in loaded.state.stores.values()}


def balances(answers: Told, column: str, closed: str) -> int:
    """The sum of a column of the cards that are closed, or are not, as their own table has it."""
    query = f"SELECT coalesce(sum({column}), 0) FROM projections.cards WHERE status {closed} 'closed'"  # noqa: S608 names of the test's
    ((total,),) = answers.tables.ask(query)
    return int(total)


def refuse_balances_without_reason(told: Statistics) -> None:
    """Holds what is outstanding after some days, the first ones, against what came and went in them."""
    assert told.points_outstanding == (
        told.points_earned
        + told.points_imported
        + told.points_adjusted
        - told.points_redeemed
        - told.points_expired
        - told.points_reversed
        - told.points_forfeited
    )
    assert told.stamps_outstanding == (
        told.stamps_added
        + told.stamps_imported
        + told.stamps_adjusted
        - told.stamps_redeemed
        - told.stamps_reversed
        - told.stamps_forfeited
    )


@running
async def test_transactions_of_cards_whose_table_is_behind_are_listed_as_well(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        for card in [await shop.enrol() for _ in range(3)]:
            await do(shop, card, AddStamp())
        async with told(shop, database_url) as answers:
            whole = await answers.transactions()
            answers.tables.change("DELETE FROM projections.cards")
            assert await answers.transactions(page_items=1) == whole
            assert len({each.card_number for each in whole}) == 3


@running
async def test_a_day_is_the_stores_own_also_when_clocks_change(database_url: str) -> None:
    async with shop_on(database_url, cooldown_minutes=0) as shop:
        tokyo = await open_store(shop, "Asia/Tokyo")
        shop.clock.time = datetime(2026, 3, 28, 22, 30, tzinfo=UTC)
        card = await shop.enrol()
        # Clocks go forward in the night to 29 March 2026, so that it ends at 22:00 UTC and no longer at 23:00.
        for at in ("2026-03-28T22:59:59", "2026-03-28T23:00:00", "2026-03-29T21:59:59", "2026-03-29T22:00:00"):
            shop.clock.time = datetime.fromisoformat(f"{at}+00:00")
            await do(shop, card, EarnPoints(100, None))
        shop.clock.time = datetime(2026, 3, 29, 15, 0, tzinfo=UTC)
        await do(shop, card, EarnPoints(700, None), store=tokyo)
        async with told(shop, database_url) as answers:
            whole = await answers.statistics()
            assert [(each.day.isoformat(), each.purchase_amount_cents) for each in whole.by_day] == [
                ("2026-03-28", 100),
                ("2026-03-29", 200),
                ("2026-03-30", 800),
            ]
            one = await answers.statistics(Wanted(date(2026, 3, 29), date(2026, 3, 29)))
            assert (one.purchases, one.points_outstanding, one.cards) == (2, 30, 1)
            # It is the 30th already, in Tokyo.
            assert whole.to == date(2026, 3, 30)
            assert whole.from_ == date(2026, 3, 28)


@running
async def test_each_store_and_staff_member_has_figures_of_their_own(database_url: str) -> None:
    async with shop_on(database_url, cooldown_minutes=0) as shop:
        other = await open_store(shop, "Europe/Luxembourg")
        kim = await shop.send(CreatePin(name="Kim", pin="5678", role=StaffRole.STAFF), shop.merchant)
        first, second = await shop.enrol(), await shop.enrol()
        await do(shop, first, EarnPoints(1_000, None))
        await do(shop, first, EarnPoints(2_000, None), store=other, pin="5678")
        await do(shop, second, AddStamp(), store=other, pin="5678")
        await do(shop, second, Adjust(points=5, reason="Forgotten"), pin=None)
        async with told(shop, database_url) as answers:
            whole = await answers.statistics()
            assert {each.active_cards for each in whole.by_store} == {1, 2}
            assert whole.active_cards == 2
            assert [
                (each.staff_name, each.purchases, each.stamps_added, each.active_cards) for each in whole.by_staff
            ] == [
                ("Alex", 1, 0, 1),
                ("Kim", 1, 1, 2),
                (None, 0, 0, 0),
            ]
            there = await answers.statistics(Wanted(store_id=other))
            assert (there.points_earned, there.stamps_added, there.enrolments) == (200, 1, 0)
            assert kim.result is not None
            hers = await answers.statistics(Wanted(staff_id=kim.result.main.stream))
            assert picked(hers) == picked(there)
            nobodys = await answers.statistics(Wanted(staff_id=uuid4()))
            assert picked(nobodys) == picked(await answers.statistics(Wanted(store_id=uuid4())))
            assert (nobodys.cards, nobodys.by_day, nobodys.by_store, nobodys.by_staff) == (0, [], [], [])


@running
async def test_more_stores_and_staff_than_there_are_bits_are_counted_as_well(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop_on(database_url) as shop:
        trade = await trade_in(shop, Random(5))  # noqa: S311 the same history each time
        await trade.steps(100)
        async with told(shop, database_url) as answers:
            with_bits = await answers.statistics()
            assert len(with_bits.by_store) > 1
            monkeypatch.setattr(visits, "BITS_MAX", 1)
            assert await answers.statistics() == with_bits


@running
async def test_what_is_reversed_counts_against_what_it_reverses(database_url: str) -> None:
    async with shop_on(database_url, stamps_target=1, cooldown_minutes=0) as shop:
        card = await shop.enrol()
        _, purchase = await do(shop, card, EarnPoints(3_000, None))
        _, spent = await do(shop, card, RedeemPoints("coffee"))
        await do(shop, card, AddStamp())
        _, free = await do(shop, card, RedeemStamps())
        for version, cents in ((purchase, 1_000), (spent, None), (free, None)):
            await do(shop, card, Reverse(card=card.id, version=version, purchase_amount_cents=cents))
        async with told(shop, database_url) as answers:
            whole = await answers.statistics()
            assert (whole.purchase_amount_cents, whole.refunded_amount_cents) == (3_000, 1_000)
            assert (whole.points_earned, whole.points_redeemed, whole.points_reversed) == (300, 100, 0)
            assert (whole.stamps_added, whole.stamps_redeemed, whole.stamps_reversed) == (1, 1, -1)
            assert (whole.points_outstanding, whole.stamps_outstanding) == (200, 1)
            assert whole.redemption_rate == 0.3333


@running
async def test_merging_moves_nothing_and_closes_one_card(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        gone, left, closed = await shop.enrol(), await shop.enrol(), await shop.enrol()
        for each in (gone, left):
            await do(shop, each, EarnPoints(1_000, None))
        shop.clock.forward(days=1)
        await shop.send(MergeCards(WhichCard(card_id=gone.id), left.id), shop.merchant, key="merge")
        await do(shop, closed, Close(reason=None), pin=None)
        async with told(shop, database_url) as answers:
            whole = await answers.statistics()
            assert (whole.enrolments, whole.closures, whole.cards) == (3, 2, 1)
            assert (whole.points_earned, whole.points_adjusted, whole.points_outstanding) == (200, 0, 200)
            assert [(each.closures, each.points_outstanding) for each in whole.by_day] == [(0, 200), (2, 200)]
            before = await answers.statistics(Wanted(last_day=whole.by_day[0].day))
            assert before.cards == 3


@pytest.mark.parametrize("batch_events", [1, 20_000], ids=["one by one", "at once"])
@running
async def test_what_is_on_a_closed_card_is_forfeited_and_does_not_expire_once_more(
    database_url: str, monkeypatch: pytest.MonkeyPatch, batch_events: int
) -> None:
    monkeypatch.setattr(rebuild, "BATCH_EVENTS", batch_events)
    async with shop_on(database_url, points_expiration_days=10, cooldown_minutes=0) as shop:
        kept, closed = await shop.enrol(), await shop.enrol()
        for each in (kept, closed):
            await do(shop, each, EarnPoints(1_000, None))
        await do(shop, closed, AddStamp())
        shop.clock.forward(days=6)
        await do(shop, kept, EarnPoints(500, None))
        await do(shop, closed, Close(reason=None), pin=None)
        shop.clock.forward(days=6)
        for each in (kept, closed):
            await do(shop, each, ExpirePoints(), store=shop.store_id, pin=None)
        async with told(shop, database_url) as answers:
            whole = await answers.statistics()
            assert (whole.points_outstanding, whole.stamps_outstanding, whole.cards) == (150, 0, 1)
            assert (whole.points_expired, whole.points_forfeited, whole.stamps_forfeited) == (100, 0, 1)
            assert [(each.points_forfeited, each.points_outstanding) for each in whole.by_day] == [
                (0, 200),
                (100, 150),
                (-100, 150),
            ]
            everybody = await platform.of_all(answers.reader, None, None, shop.clock.now())
            assert everybody.by_day == whole.by_day


@running
async def test_a_card_returns_when_it_was_there_on_an_earlier_day(database_url: str) -> None:
    async with shop_on(database_url, cooldown_minutes=0) as shop:
        today = shop.clock.now().astimezone(LUXEMBOURG).date()
        once, twice, again = await shop.enrol(), await shop.enrol(), await shop.enrol()
        for each in (once, twice, twice, again):
            await do(shop, each, EarnPoints(1_000, None))
        shop.clock.forward(days=1)
        await do(shop, again, EarnPoints(1_000, None))
        async with told(shop, database_url) as answers:
            for first, last, active, returning in (
                (None, None, 3, 1),
                (today, today, 3, 0),
                (today + timedelta(1), None, 1, 1),
                (today + timedelta(2), None, 0, 0),
            ):
                found = await answers.statistics(Wanted(first, last))
                assert (found.active_cards, found.returning_cards) == (active, returning)


@running
async def test_a_merchant_to_whom_nothing_happened_has_figures_of_nothing(database_url: str) -> None:
    async with shop_on(database_url) as shop, told(shop, database_url) as answers:
        whole = await answers.statistics()
        assert set(picked(whole).values()) == {0}
        assert (whole.from_, whole.redemption_rate, whole.by_day) == (None, None, [])
        assert whole.to == shop.clock.now().astimezone(LUXEMBOURG).date()
