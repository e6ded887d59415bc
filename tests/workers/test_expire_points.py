"""The run that expires points: late, twice, twice at once or interrupted, the ledger is that of one punctual run."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from ledger import card
from ledger.commands import OnCard, OnProgram, WhichCard
from ledger.errors import Unavailable
from ledger.handle import Ledger
from ledger.program import ChangeProgram, ExpiryPolicy
from ledger.store.log import SNAPSHOT_EVERY_EVENTS
from ledger.store.names import CARD, PROGRAM
from ledger.streams import program_stream
from projections.cards import find
from tests.running import open_ledger, running
from tests.shop import NOON, SettableClock, Shop, open_shop
from workers import expire_points as job
from workers.expire_points import Expired, cards_to_look_at, expire_points

DAY = timedelta(days=1)
EARNED: dict[str, Any] = {"expiry_policy": ExpiryPolicy.EARNED, "points_expiration_days": 30, "cooldown_minutes": 0}
IDLE: dict[str, Any] = {"expiry_policy": ExpiryPolicy.INACTIVITY, "points_expiration_days": 30, "cooldown_minutes": 0}


async def trade(shop: Shop, clock: SettableClock, cards: int = 3) -> list[card.Card]:
    """Some cards, each with a purchase on three days of its own."""
    made = [await shop.enrol() for _ in range(cards)]
    began = clock.time
    for number, each in enumerate(made):
        for purchase in range(3):
            clock.time = began + (number + 4 * purchase) * DAY
            await shop.ask(each, card.EarnPoints(1000 + number))
    return made


async def expiries(shop: Shop, cards: list[card.Card]) -> list[list[tuple[datetime, card.PointsExpired]]]:
    """What expired on each card, and when it is said to have happened."""
    histories = [await shop.history(each.id) for each in cards]
    return [
        [(read.at.occurred_at, read.event) for _, read in reversed(each) if isinstance(read.event, card.PointsExpired)]
        for each in histories
    ]


@pytest.mark.parametrize("rules", [EARNED, IDLE], ids=["earned", "inactivity"])
@running
async def test_a_late_run_leaves_the_same_ledger_as_a_run_every_day(database_url: str, rules: dict[str, Any]) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        told = []
        for runs in ([*range(60)], [60], [13, 13, 41, 55]):
            clock.time = NOON
            shop = await open_shop(ledger, clock, **rules)
            cards = await trade(shop, clock)
            for day in runs:
                clock.time = NOON + day * DAY + timedelta(hours=14)
                await expire_points(ledger, clock.time)
            clock.time = NOON + 90 * DAY
            await expire_points(ledger, clock.time)
            told.append(await expiries(shop, cards))
            assert [(await shop.card(each)).points_balance for each in cards] == [0, 0, 0]
    assert told[0] == told[1] == told[2]
    assert [len(each) for each in told[0]] == [3, 3, 3] if rules is EARNED else [1, 1, 1]
    assert all(occurred_at == event.expired_at for each in told[0] for occurred_at, event in each)


@running
async def test_a_missed_night_saves_no_points_from_the_next_purchase(database_url: str) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = await open_shop(ledger, clock, **IDLE)
        mine = await shop.enrol()
        await shop.ask(mine, card.EarnPoints(1000))
        clock.forward(days=31)
        handled = await shop.ask(mine, card.EarnPoints(500))
        assert handled.result is not None
        assert [type(event) for _, event in handled.result.events] == [card.PointsExpired, card.PointsEarned]
        assert (await shop.card(mine)).points_balance == 50
        assert await expiries(shop, [mine]) == [[(NOON + 30 * DAY, handled.result.events[0][1])]]
        assert (await expire_points(ledger, clock.time)).cards == 0


@running
async def test_points_that_ended_are_on_no_card_even_before_a_run_takes_them(database_url: str) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = await open_shop(ledger, clock, **EARNED)
        (mine,) = await trade(shop, clock, cards=1)
        for days, spendable in ((29, 300), (30, 200), (34, 100), (38, 0)):
            now = NOON + days * DAY
            merchant = shop.merchant.merchant_id
            seen = await find(ledger.log, merchant, mine.id, now)
            assert seen is not None
            assert seen.points_balance == spendable
            assert seen.next_expiry is None or seen.next_expiry.at > now


@running
async def test_a_card_that_fails_holds_up_no_other(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = await open_shop(ledger, clock, **IDLE)
        cards = await trade(shop, clock, cards=5)
        clock.time = NOON + 90 * DAY
        handle = ledger.handle

        async def failing(command: Any, *given: Any, **more: Any) -> Any:
            if command.which.card_id == cards[0].id:
                raise Unavailable("it takes too long")
            return await handle(command, *given, **more)

        monkeypatch.setattr(ledger, "handle", failing)
        assert await expire_points(ledger, clock.time) == Expired(looked_at=5, cards=4, points=1200, failed=1)
        monkeypatch.setattr(ledger, "handle", handle)
        assert (await expire_points(ledger, clock.time)).cards == 1


@running
async def test_a_run_without_a_log_says_so(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unavailable(*_: Any, **__: Any) -> Any:
        raise Unavailable("the log cannot be reached")

    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = await open_shop(ledger, clock, **IDLE)
        await trade(shop, clock)
        clock.time = NOON + 90 * DAY
        monkeypatch.setattr(ledger, "handle", unavailable)
        with pytest.raises(Unavailable):
            await expire_points(ledger, clock.time)


@running
async def test_what_was_due_before_expiry_was_switched_off_is_recorded_all_the_same(database_url: str) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = await open_shop(ledger, clock, **IDLE)
        cards = await trade(shop, clock)
        clock.time = NOON + 90 * DAY
        await shop.send(OnProgram(ChangeProgram({"points_expiration_days": None})), shop.merchant)
        assert (await expire_points(ledger, clock.time)).cards == 3
        assert [len(each) for each in await expiries(shop, cards)] == [1] * 3


@running
async def test_two_runs_at_once_on_two_servers_expire_everything_once(database_url: str) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as here, open_ledger(database_url, clock) as there:
        shop = await open_shop(here, clock, **EARNED)
        cards = await trade(shop, clock, cards=20)
        clock.time = NOON + 90 * DAY
        both = await asyncio.gather(expire_points(here, clock.time), expire_points(there, clock.time))
        assert sum(each.points for each in both) == sum(3 * (100 + number // 10) for number in range(20))
        assert [len(each) for each in await expiries(shop, cards)] == [3] * 20


@running
async def test_an_interrupted_run_is_finished_by_the_next(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Exception):
        pass

    def after_the_first_batch(_: Expired) -> None:
        raise Interrupted

    monkeypatch.setattr(job, "CARDS_AT_ONCE", 2)
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = await open_shop(ledger, clock, **IDLE)
        cards = await trade(shop, clock, cards=5)
        clock.time = NOON + 90 * DAY
        with pytest.raises(Interrupted):
            await expire_points(ledger, clock.time, tell=after_the_first_batch)
        assert sum(bool(each) for each in await expiries(shop, cards)) == 2
        rest = await expire_points(ledger, clock.time)
        assert (rest.looked_at, rest.cards) == (5, 3)
        assert [len(each) for each in await expiries(shop, cards)] == [1] * 5


@running
async def test_a_dry_run_counts_what_a_run_takes_and_writes_nothing(database_url: str) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = await open_shop(ledger, clock, **EARNED)
        await trade(shop, clock)
        by = NOON + 33 * DAY
        head = await ledger.log.head()
        counted = await expire_points(ledger, by, writes=False)
        assert await ledger.log.head() == head
        clock.time = by
        assert counted == await expire_points(ledger, by)
        assert counted == Expired(looked_at=3, cards=3, points=300)


@running
async def test_what_a_run_takes_is_what_was_foretold(database_url: str) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = await open_shop(ledger, clock, **EARNED)
        (mine,) = await trade(shop, clock, cards=1)
        state = await shop.card(mine)
        program = await ledger.log.load(PROGRAM, program_stream(shop.merchant.merchant_id))
        assert program is not None
        foretold = card.next_expiry(state, program.state)
        assert foretold is not None
        assert (await expire_points(ledger, foretold.at - timedelta(microseconds=1))).points == 0
        assert (await expire_points(ledger, foretold.at)).points == foretold.points


@running
async def test_only_programs_with_an_expiry_are_looked_at_and_each_by_its_own_rules(database_url: str) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        never = await open_shop(ledger, clock, cooldown_minutes=0)
        idle = await open_shop(ledger, clock, **IDLE)
        for shop in (never, idle):
            await trade(shop, clock)
            clock.time = NOON
        clock.time = NOON + 90 * DAY
        assert await cards_to_look_at(ledger) == 3
        told: list[int] = []
        assert await expire_points(ledger, clock.time, tell=lambda so_far: told.append(so_far.looked_at)) == Expired(
            3, 3, 900
        )
        assert told == [3]
        await never.send(OnProgram(ChangeProgram({"points_expiration_days": 30})), never.merchant)
        assert (await expire_points(ledger, clock.time + DAY - timedelta(seconds=1))).cards == 0
        assert await expire_points(ledger, clock.time + DAY) == Expired(6, 3, 900)


@running
async def test_suspended_and_closed_cards_expire_as_others_do(database_url: str) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = await open_shop(ledger, clock, **IDLE)
        cards = await trade(shop, clock)
        suspend = OnCard(which=WhichCard(card_id=cards[0].id), command=card.Suspend())
        close = OnCard(which=WhichCard(card_id=cards[1].id), command=card.Close())
        for command in (suspend, close):
            await shop.send(command, shop.merchant)
        clock.time = NOON + 90 * DAY
        assert (await expire_points(ledger, clock.time)).cards == 3


# ---- many cards at once ---------------------------------------------------------------------------------------


async def same_as_one_by_one(ledger: Ledger, fresh: Ledger, cards: list[card.Card]) -> None:
    """Holds states loaded together equal to states loaded one by one."""
    streams = sorted(each.id for each in cards)
    together = await fresh.log.load_many(CARD, streams)
    assert max(loaded.snapshot_version for loaded in together) == SNAPSHOT_EVERY_EVENTS
    alone = [await ledger.log.load(CARD, stream, fresh=True) for stream in streams]
    assert [loaded.state for loaded in together] == [loaded.state for loaded in alone if loaded is not None]
    assert [loaded.version for loaded in together] == [loaded.version for loaded in alone if loaded is not None]


@running
async def test_cards_loaded_together_are_as_if_loaded_alone(database_url: str) -> None:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        shop = await open_shop(ledger, clock, cooldown_minutes=0)
        cards = [*await trade(shop, clock), await shop.enrol()]
        for _ in range(SNAPSHOT_EVERY_EVENTS):
            await shop.ask(cards[0], card.EarnPoints(100))
    async with open_ledger(database_url, clock) as other, open_ledger(database_url, clock) as fresh:
        await same_as_one_by_one(other, fresh, cards)
        strangers = await fresh.log.load_many(CARD, [shop.staff_id, cards[3].id])
        assert [loaded.stream for loaded in strangers] == [cards[3].id]
