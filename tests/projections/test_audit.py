"""What auditors are told of cards: everything, at any time, as known at any other, and nothing in one gulp."""

import asyncio
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest

from ledger import card
from ledger.card import AddStamp, Adjust, Card, EarnPoints, RedeemPoints, Reverse
from ledger.commands import ImportCard, MergeCards, OnCard, OnProgram, StaffEntry, WhichCard
from ledger.errors import Rejected
from ledger.merchant import MerchantSettings
from ledger.program import ChangeProgram, ExpiryPolicy
from ledger.store import records
from ledger.store.codec import NO_PREVIOUS_HASH
from projections.audit import balance, events, explain, lines
from projections.audit.events import Wanted
from projections.audit.horizon import Horizon, Moment, horizon
from schemas.audit import Balance, CardEvent, Explanation, Lot
from tests.at_the_door import shop_on
from tests.plans import EXPLAIN, Scan, answered, too_much
from tests.running import running
from tests.shop import NOON, PIN, Shop, open_shop

ONE_DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FAR = 2**60


async def looking(shop: Shop, as_of: Moment | None = None, known_at: Moment | None = None) -> Horizon:
    log = shop.ledger.log
    return await horizon(log, await log.head(), shop.clock.now(), as_of, known_at)


async def balance_of(shop: Shop, which: Card, *times: Moment | None) -> Balance:
    return await balance.balance(shop.ledger.log, await shop.card(which), await looking(shop, *times))


async def explained(shop: Shop, which: Card, *times: Moment | None) -> Explanation:
    return await explain.explain(shop.ledger.log, await shop.card(which), await looking(shop, *times))


async def events_of(shop: Shop, *cards: Card, **wanted: Any) -> list[CardEvent]:
    asked = Wanted(horizon=wanted.pop("horizon", await looking(shop)), **wanted)
    found, following = await events.page(shop.ledger.log, [each.id for each in cards], asked, None, 200)
    assert following is None
    return found


# ---- balances at two times ------------------------------------------------------------------------------------


class Moved(NamedTuple):
    """What one command did to a card, by its own answer."""

    occurred_at: datetime
    recorded_at: datetime
    position: int
    points: int
    stamps: int


async def out_of_order(shop: Shop, which: Card, commands: int, chance: random.Random) -> list[Moved]:
    """Commands of tills that were offline: each recorded after the one before, occurred whenever."""
    told: list[Moved] = []
    before = await shop.card(which)
    while len(told) < commands:
        shop.clock.forward(minutes=chance.randrange(1, 600))
        occurred_at = shop.clock.now() - chance.choice([timedelta(0), HOUR, chance.randrange(1, 40) * ONE_DAY])
        command = chance.choice(
            [
                EarnPoints(chance.randrange(5_000)),
                EarnPoints(chance.randrange(5_000)),
                RedeemPoints("coffee"),
                AddStamp(),
                Adjust(points=chance.randrange(-20, 20), stamps=1, reason="Counted again"),
                Adjust(points=chance.randrange(100), reason="Found again"),
            ]
        )
        try:
            handled = await shop.ask(which, command, occurred_at=occurred_at)
        except Rejected:
            continue
        assert handled.result is not None
        after = handled.result.main.state
        points, stamps = after.points_balance - before.points_balance, after.stamp_count - before.stamp_count
        told.append(Moved(occurred_at, shop.clock.now(), handled.position, points, stamps))
        before = after
    return told


def summed(told: list[Moved]) -> tuple[int, int]:
    return sum(moved.points for moved in told), sum(moved.stamps for moved in told)


async def balances(shop: Shop, which: Card, *times: Moment | None) -> tuple[int, int]:
    at = await balance_of(shop, which, *times)
    return at.points_balance, at.stamp_count


@running
async def test_balances_at_any_time_are_running_sums_of_what_the_commands_answered(database_url: str) -> None:
    chance = random.Random(11)  # noqa: S311 the same history each time
    async with shop_on(database_url, cooldown_minutes=0, max_daily_stamps=100) as shop:
        which = await shop.enrol()
        told = await out_of_order(shop, which, 60, chance)
        assert [moved.occurred_at for moved in told] != sorted(moved.occurred_at for moved in told)
        first, last = min(moved.occurred_at for moved in told), shop.clock.now()

        for _ in range(50):
            as_of = first + (last - first) * chance.random()
            known_at = NOON + (last - NOON) * chance.random()
            position = chance.randrange(told[0].position, told[-1].position + 1)
            occurred = [moved for moved in told if moved.occurred_at <= as_of]
            known = [moved for moved in occurred if moved.recorded_at <= known_at]
            assert await balances(shop, which, as_of) == summed(occurred)
            assert await balances(shop, which, as_of, known_at) == summed(known)
            positioned = [moved for moved in occurred if moved.position <= position]
            assert await balances(shop, which, as_of, position) == summed(positioned)
            assert await balances(shop, which, position) == summed(
                [moved for moved in told if moved.position <= position]
            )
            at = await balance_of(shop, which, as_of, known_at)
            assert at.points_balance == sum(lot.points for lot in at.lots) + at.points_outside_lots
            lines_told = (await explained(shop, which, as_of, known_at)).lines
            assert (sum(line.points for line in lines_told), sum(line.stamps for line in lines_told)) == summed(known)


@running
async def test_as_of_a_position_is_the_very_card_that_the_ledger_had_then(database_url: str) -> None:
    chance = random.Random(5)  # noqa: S311 the same history each time
    async with shop_on(database_url, points_expiration_days=10, expiry_policy=ExpiryPolicy.EARNED) as shop:
        which = await shop.enrol()
        states = {}
        for _ in range(30):
            shop.clock.forward(hours=chance.randrange(60))
            try:
                handled = await shop.ask(which, chance.choice([EarnPoints(1_500), RedeemPoints("coffee"), AddStamp()]))
            except Rejected:
                continue
            assert handled.result is not None
            states[handled.position] = handled.result.main
        for position, loaded in states.items():
            at = await balance_of(shop, which, position)
            assert (at.points_balance, at.stamp_count) == (loaded.state.points_balance, loaded.state.stamp_count)
            assert (at.status, at.last_activity_at) == ("active", loaded.state.last_activity_at)
            assert (at.version, at.position) == (loaded.version, position)
            assert at.lots == [Lot(**balance.lot_shown(lot, which.id)) for lot in loaded.state.lots]


@running
async def test_an_import_that_came_late_was_there_before_it_was_known(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        which = await shop.enrol(customer_id="C-1")
        await shop.ask(which, EarnPoints(1_000))
        shop.clock.forward(days=10)
        long_ago = NOON - 100 * ONE_DAY
        brought = ImportCard(source="old.csv", customer_id="C-1", points=30, last_activity_at=long_ago)
        await shop.send(brought, shop.merchant)

        assert (await balance_of(shop, which, long_ago)).points_balance == 30
        assert (await balance_of(shop, which, long_ago)).status is None
        assert (await balance_of(shop, which, long_ago, NOON + ONE_DAY)).points_balance == 0
        assert (await balance_of(shop, which, long_ago, NOON + ONE_DAY)).events == 0
        assert (await balance_of(shop, which, NOON + ONE_DAY)).points_balance == 130
        assert (await balance_of(shop, which, NOON + ONE_DAY, NOON + ONE_DAY)).points_balance == 100
        assert (await balance_of(shop, which, None, NOON + ONE_DAY)).points_balance == 100
        assert (await balance_of(shop, which)).points_balance == 130


@running
async def test_what_was_due_and_not_recorded_is_counted_beside_the_balance(database_url: str) -> None:
    rules: dict[str, Any] = {"points_expiration_days": 10, "expiry_policy": ExpiryPolicy.EARNED}
    async with shop_on(database_url, **rules) as shop:
        which = await shop.enrol()
        first = await shop.ask(which, EarnPoints(1_000))
        shop.clock.forward(days=5)
        await shop.ask(which, EarnPoints(2_000))
        shop.clock.forward(days=7)
        due = await balance_of(shop, which)
        assert (due.points_balance, due.points_due, due.due_by) == (300, 100, shop.clock.now())
        assert (await balance_of(shop, which, NOON + 9 * ONE_DAY)).points_due == 0
        assert (await balance_of(shop, which, NOON + 30 * ONE_DAY)).points_due == 300
        assert (await balance_of(shop, which, first.position)).points_due == 0

        await shop.ask(which, card.ExpirePoints())
        recorded = await balance_of(shop, which)
        assert (recorded.points_balance, recorded.points_due) == (200, 0)
        # It ended at its own time, which is now known; before, it was not.
        assert (await balance_of(shop, which, NOON + 11 * ONE_DAY)).points_balance == 200
        assert (await balance_of(shop, which, NOON + 11 * ONE_DAY, NOON + 11 * ONE_DAY)).points_balance == 300
        assert (await balance_of(shop, which, NOON + 11 * ONE_DAY, NOON + 11 * ONE_DAY)).points_due == 100


# ---- explanations ---------------------------------------------------------------------------------------------


@running
async def test_every_line_says_what_the_event_and_its_program_say(database_url: str) -> None:
    async with shop_on(database_url, welcome_bonus_points=120, cooldown_minutes=0) as shop:
        which = await shop.enrol()
        earned = await shop.ask(which, EarnPoints(2_500, order_reference="O-1"))
        assert earned.result is not None
        await shop.send(OnProgram(ChangeProgram({"points_per_euro": 20})), shop.merchant)
        await shop.ask(which, EarnPoints(2_500))
        await shop.ask(which, RedeemPoints("cake"))
        await shop.ask(which, AddStamp())
        await shop.ask(which, Adjust(points=-20, stamps=3, reason="Counted again"))
        await shop.ask(which, EarnPoints(5))
        await shop.ask(which, Reverse(card=which.id, version=3, purchase_amount_cents=500, reason="Too sweet"))
        told = await explained(shop, which)
        assert [line.text for line in told.lines] == [
            "Granted 120 points as a welcome bonus.",
            "Earned 250 points for a purchase of 25.00 EUR (10 points per euro), order O-1.",
            "Earned 500 points for a purchase of 25.00 EUR (20 points per euro).",
            "Spent 250 points on Cake.",
            "Added 1 stamp.",
            "Adjusted by -20 points and +3 stamps.",
            "Earned 1 point for a purchase of 0.05 EUR (20 points per euro).",
            f"Refunded 5.00 EUR of transaction {which.id}-3: -50 points.",
        ]
        assert [line.program_version for line in told.lines] == [1, 1, 2, 2, 2, 2, 2, 2]
        assert [line.reason for line in told.lines[5:]] == ["Counted again", None, "Too sweet"]
        reversal = told.lines[-1]
        assert reversal.reverses is not None
        assert (reversal.reverses.transaction_id, reversal.reverses.position) == (f"{which.id}-3", earned.position)
        assert reversal.positions[1:] == [earned.position]
        assert told.balance == await balance_of(shop, which)
        assert [lot.points for lot in told.lots] == [551]


@running
async def test_a_debt_is_told_where_it_arose_and_where_it_was_made_good(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        which = await shop.enrol()
        await shop.ask(which, EarnPoints(1_000))
        await shop.ask(which, RedeemPoints("coffee"))
        await shop.ask(which, Reverse(card=which.id, version=2, allow_negative_balance=True))
        owed = await balance_of(shop, which)
        assert (owed.points_balance, owed.points_outside_lots, owed.lots) == (-100, -100, [])
        await shop.ask(which, EarnPoints(3_000))
        told = await explained(shop, which)
        assert [line.text for line in told.lines[2:]] == [
            f"Refunded 10.00 EUR of transaction {which.id}-2: -100 points; 100 points of it were spent already.",
            "Earned 300 points for a purchase of 30.00 EUR (10 points per euro);"
            " 100 points of it made a negative balance good.",
        ]
        assert [line.points_outside_lots for line in told.lines] == [0, 0, -100, 100]
        assert [lot.points for lot in told.lots] == [200]


@running
async def test_both_sides_of_a_merge_name_each_other(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        old, new = await shop.enrol(), await shop.enrol()
        await shop.ask(old, EarnPoints(1_000))
        merged = await shop.send(MergeCards(WhichCard(card_id=old.id), new.id), shop.merchant)
        (gave,) = (await explained(shop, old)).lines[1:]
        (took,) = (await explained(shop, new)).lines
        assert gave.text == f"Passed 100 points on to card {new.id}, into which it was merged."
        assert took.text == f"Took over 100 points from card {old.id}, merged into this one."
        assert gave.other_card is not None
        assert took.other_card is not None
        assert (gave.other_card.card_id, gave.other_card.position) == (new.id, merged.position)
        assert (took.other_card.card_id, took.other_card.position) == (old.id, gave.positions[0])
        assert took.positions == [merged.position, gave.positions[0]]
        assert [part.lot for part in took.lots] == [f"{old.id}-2"]
        assert (await balance_of(shop, old)).status == "closed"

        names = [event.name for event in await events_of(shop, new, old)]
        assert names == ["card_enrolled", "card_enrolled", "points_earned", "card_merged", "card_absorbed"]


@running
async def test_a_card_of_thousands_of_events_is_explained_chunk_by_chunk(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        which = await shop.enrol()
        asked = asyncio.Semaphore(50)

        async def earn(number: int) -> None:
            async with asked:
                await shop.ask(which, EarnPoints(1_000 + number))

        await asyncio.gather(*(earn(number) for number in range(2_000)))
        others = 0

        async def somebody_else() -> None:
            nonlocal others
            while True:
                await asyncio.sleep(0)
                others += 1

        waiting = asyncio.create_task(somebody_else())
        told = await explained(shop, which)
        waiting.cancel()
        assert len(told.lines) == 2_000
        assert told.balance.points_balance == sum((1_000 + number) * 10 // 100 for number in range(2_000))
        # Others had their turn between any two chunks.
        assert others >= 2_000 // records.CHUNK_EVENTS


# ---- events ---------------------------------------------------------------------------------------------------


@running
async def test_a_cards_events_are_told_in_full_refusals_among_them(database_url: str) -> None:
    keeps_addresses = MerchantSettings(log_ip_addresses=True)
    async with shop_on(database_url, settings=keeps_addresses) as shop:
        which = await shop.enrol(customer_id="C-1")
        here = msgspec.structs.replace(shop.till, ip_address="192.0.2.7", user_agent="Till/1.0")
        adjusting = card.Adjust(points=5, reason="Forgotten by Zoë")
        request = OnCard(which=WhichCard(card_id=which.id), staff=StaffEntry(staff_pin=PIN), command=adjusting)
        await shop.ledger.handle(request, here, key="adjust")
        with pytest.raises(Rejected):
            await shop.ask(which, RedeemPoints("cake"))
        enrolled, adjusted, refused = await events_of(shop, which)
        assert [event.name for event in (enrolled, adjusted, refused)] == [
            "card_enrolled",
            "balance_adjusted",
            "command_refused",
        ]
        assert opened(adjusted.private) == {"reason": "Forgotten by Zoë"}
        assert adjusted.origin is not None
        assert (adjusted.origin.ip_address, adjusted.origin.user_agent) == ("192.0.2.7", "Till/1.0")
        assert opened(enrolled.private)["customer_id"] == "C-1"
        assert (adjusted.program_version, refused.program_version) == (1, 1)
        assert (enrolled.previous_hash, adjusted.previous_hash) == (NO_PREVIOUS_HASH, enrolled.hash)
        said = msgspec.json.decode(refused.data)
        assert (said["code"], said["facts"]["points_missing"]) == ("not_enough_points", 245)
        assert b"Forgotten" not in msgspec.json.encode(await lines.page(shop.ledger.log, None, 0, FAR, 200))


@running
async def test_what_was_sealed_is_gone_with_its_key_and_all_else_stays(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        which = await shop.enrol(customer_id="C-1")
        await shop.ask(which, Adjust(points=5, reason="Forgotten"))
        before = await events_of(shop, which)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute("DELETE FROM subject_keys WHERE subject_id = %s", (which.customer,))
        after = await events_of(shop, which)
        assert [event.private for event in after] == [None, None]
        assert [msgspec.structs.replace(event, private=None) for event in before] == after
        assert (await explained(shop, which)).lines[0].reason is None


@running
async def test_events_come_by_name_time_and_page_in_either_order(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        which = await shop.enrol()
        for _ in range(5):
            shop.clock.forward(days=1)
            await shop.ask(which, EarnPoints(1_000))
        every = await events_of(shop, which)
        assert await events_of(shop, which, name="points_earned") == every[1:]
        assert await events_of(shop, which, since=NOON + ONE_DAY, until=NOON + 3 * ONE_DAY) == every[1:4]
        assert await events_of(shop, which, horizon=await looking(shop, every[2].position)) == every[:3]
        assert await events_of(shop, which, horizon=await looking(shop, NOON + ONE_DAY)) == every[:2]
        assert await events_of(shop, which, horizon=await looking(shop, None, NOON)) == every[:1]
        for newest_first, expected in ((False, every), (True, every[::-1])):
            for limit in (1, 2, 3, 6, 7):
                assert await paged(shop, which, limit, newest_first=newest_first) == expected


def opened(private: Any) -> dict[str, str]:
    """What was sealed, as it crosses the wire."""
    return msgspec.json.decode(msgspec.json.encode(private), type=dict[str, str])


async def paged(shop: Shop, which: Card, limit: int, *, newest_first: bool) -> list[CardEvent]:
    found: list[CardEvent] = []
    cursor = None
    while True:
        wanted = Wanted(horizon=await looking(shop))
        page, cursor = await events.page(shop.ledger.log, [which.id], wanted, cursor, limit, newest_first=newest_first)
        assert len(page) <= limit
        found += page
        if cursor is None:
            return found


@running
async def test_streams_are_read_whole_however_many_chunks_they_take(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop_on(database_url) as shop:
        cards = [await shop.enrol() for _ in range(3)]
        for number in range(20):
            await shop.ask(cards[number % 3], EarnPoints(100))
        whole = await events_of(shop, *cards)
        assert [event.position for event in whole] == sorted(event.position for event in whole)
        for chunk in (1, 2, 3, 23, 24):
            monkeypatch.setattr(records, "CHUNK_EVENTS", chunk)
            assert await events_of(shop, *cards) == whole
            assert (await explained(shop, cards[0])).balance.points_balance == 70


# ---- the whole log --------------------------------------------------------------------------------------------


@running
async def test_the_log_is_read_page_by_page_of_one_merchant_or_of_all(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        other = await open_shop(shop.ledger, shop.clock)
        for each in (shop, other, shop):
            await each.enrol()
        log = shop.ledger.log
        head = await log.head()
        positions = []
        after: int | None = 0
        while after is not None:
            page, after = await lines.page(log, None, after, head, 3)
            positions += [line.position for line in page]
        assert positions == list(range(1, head + 1))
        mine, following = await lines.page(log, shop.merchant.merchant_id, 0, head, 200)
        theirs, _ = await lines.page(log, other.merchant.merchant_id, 0, head, 200)
        assert following is None
        assert {bytes(line.merchant_id) for line in mine} == {f'"{shop.merchant.merchant_id}"'.encode()}
        assert len(mine) + len(theirs) == head
        assert [text async for _, _, text in lines.texts(log, None, head, head)] == []


# ---- plans ----------------------------------------------------------------------------------------------------

MANY = """
    INSERT INTO events (notification_id, originator_id, originator_version, topic, state, merchant_id, subject_id)
    SELECT 100000 + n, md5((n / 20)::text)::uuid, n % 20 + 1, 'points_earned.2', '\\x7b7d', md5((n % 7)::text)::uuid,
        md5((n / 20)::text)::uuid
    FROM generate_series(0, 40000) AS n
"""
MANY_KEYS = """
    INSERT INTO subject_keys (subject_id, merchant_id, wrapped)
    SELECT md5(n::text)::uuid, md5((n % 7)::text)::uuid, '\\x7b7d' FROM generate_series(0, 2000) AS n
"""
SOMEBODY = UUID("cfcd2084-95d5-65ef-66e7-dff9f98764da")


ASKED: list[tuple[str, dict[str, Any]]] = [
    (records.LOG_PAGE, {"after": 0, "until": FAR, "limit": 1_000}),
    (records.LOG_PAGE, {"after": 139_000, "until": FAR, "limit": 1_000}),
    (records.MERCHANT_PAGE, {"after": 0, "until": FAR, "limit": 1_000, "merchant": SOMEBODY}),
    (records.MERCHANT_PAGE, {"after": 139_000, "until": FAR, "limit": 1_000, "merchant": SOMEBODY}),
    (records.MERCHANT_PAGE, {"after": 0, "until": FAR, "limit": 1_000, "merchant": uuid4()}),
    (records.STREAMS_FORWARDS, {"streams": [SOMEBODY, uuid4()], "reached": [0, 5], "after": 0, "until": FAR}),
    (records.STREAMS_FORWARDS, {"streams": [SOMEBODY], "reached": [0], "after": 120_000, "until": FAR}),
    (records.STREAMS_BACKWARDS, {"streams": [SOMEBODY, uuid4()], "reached": [9, 9], "after": 0, "until": FAR}),
    (records.PLACES, {"streams": [SOMEBODY, uuid4()], "versions": [1, 2]}),
    (records.AT_POSITION, {"position": 7}),
]


@pytest.fixture
def long_log(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a database whose log is long."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(MANY)
        connection.execute(MANY_KEYS)
        connection.execute("VACUUM ANALYZE")
        yield connection


def looked_at(connection: psycopg.Connection[Any], query: str, asked: dict[str, Any]) -> list[Scan]:
    """The scans that looked at much more than the query found."""
    ((plan,),) = connection.execute(f"{EXPLAIN} {query}".encode(), {"limit": 200, **asked}).fetchall()
    return too_much(plan[0]["Plan"], answered(plan[0]["Plan"]))


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_no_read_looks_through_the_whole_log(long_log: psycopg.Connection[Any], mode: str) -> None:
    long_log.execute(f"SET plan_cache_mode = {mode}".encode())
    wrong = [(query, asked, scans) for query, asked in ASKED if (scans := looked_at(long_log, query, asked))]
    assert wrong == []


@pytest.mark.parametrize("options", ["", "SET enable_seqscan = off"])
def test_a_read_of_a_merchants_events_without_its_index_is_noticed(
    long_log: psycopg.Connection[Any], options: str
) -> None:
    long_log.execute(options.encode())
    long_log.execute("DROP INDEX events_of_merchant")
    assert [scan.table for scan in looked_at(long_log, *ASKED[4])] == ["events"]
