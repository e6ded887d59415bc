"""Bringing a customer along from another system, through the door; and rehearsing it, which writes nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger import card, program
from ledger.commands import ImportCard, OnProgram
from ledger.entry import Handled, Result
from ledger.errors import Rejected
from ledger.program import ExpiryPolicy, ProgramType
from ledger.store.names import MERCHANT
from loyalty.cards import Summary, import_cards
from loyalty.records import Format
from tests.running import open_ledger, running
from tests.shop import NOON, SettableClock, Shop, open_shop

NUMBER, OTHER_NUMBER = "123456789015", "123456789023"
TOKEN = "a token of the old system"
LONG_AGO = NOON - timedelta(days=400)
ONE_DAY = timedelta(days=1)
BY_DATE: dict[str, Any] = {"expiry_policy": ExpiryPolicy.EARNED, "points_expiration_days": 365}


def brought(customer_id: str = "C-1", **more: Any) -> ImportCard:
    return ImportCard(source="old.csv", customer_id=customer_id, **more)


@asynccontextmanager
async def a_shop(database_url: str, **rules: Any) -> AsyncIterator[Shop]:
    clock = SettableClock()
    async with open_ledger(database_url, clock) as ledger:
        yield await open_shop(ledger, clock, **rules)


async def bring(shop: Shop, command: ImportCard, **options: Any) -> card.Card:
    """The card after an import."""
    return state_of(await shop.send(command, **options))


def state_of(handled: Handled) -> card.Card:
    assert handled.result is not None
    return handled.result.main.state  # type: ignore[no-any-return]  # a loaded stream's state is Any here


async def refusal_of(shop: Shop, command: ImportCard, **options: Any) -> str:
    with pytest.raises(Rejected) as refused:
        await shop.send(command, **options)
    return refused.value.code


@running
async def test_a_new_customer_has_been_one_since_they_joined_the_other_system(database_url: str) -> None:
    async with a_shop(database_url) as shop:
        joined, active = LONG_AGO, NOON - ONE_DAY
        new = await bring(shop, brought(points=30, stamps=2, enrolled_at=joined, last_activity_at=active))
        assert (new.enrolled_at, new.last_activity_at) == (joined, active)
        assert (new.points_balance, new.stamp_count, [lot.earned_at for lot in new.lots]) == (30, 2, [active])
        assert await shop.card(new) == new
        second = await bring(shop, brought("C-2", last_activity_at=active))
        assert (second.enrolled_at, second.last_activity_at) == (active, active)
        third = await bring(shop, brought("C-3", enrolled_at=joined))
        assert (third.enrolled_at, third.last_activity_at) == (joined, NOON)


@running
async def test_points_of_an_idle_customer_end_as_if_they_had_been_idle_here(database_url: str) -> None:
    async with a_shop(database_url, points_expiration_days=10, expiry_policy=ExpiryPolicy.INACTIVITY) as shop:
        idle = await bring(shop, brought(points=30, last_activity_at=NOON - 9 * ONE_DAY))
        busy = await bring(shop, brought("C-2", points=30, last_activity_at=NOON - ONE_DAY))
        shop.clock.forward(days=2)
        for which, left in ((idle, 0), (busy, 30)):
            await shop.ask(which, card.ExpirePoints())
            assert (await shop.card(which)).points_balance == left


@running
async def test_an_old_balance_does_not_make_a_card_look_idle(database_url: str) -> None:
    async with a_shop(database_url) as shop:
        known = await shop.enrol(customer_id="C-1")
        after = await bring(shop, brought(points=30, last_activity_at=LONG_AGO, enrolled_at=LONG_AGO))
        assert (after.id, after.enrolled_at, after.last_activity_at) == (known.id, NOON, NOON)
        assert after.points_balance == 30


@running
async def test_another_last_activity_is_another_request(database_url: str) -> None:
    async with a_shop(database_url) as shop:
        await bring(shop, brought(last_activity_at=LONG_AGO), key="one")
        assert (await shop.send(brought(last_activity_at=LONG_AGO), key="one")).replayed
        assert await refusal_of(shop, brought(last_activity_at=NOON), key="one") == "idempotency_key_reused"


@running
async def test_where_there_are_no_points_it_does_not_matter_when_they_ended(database_url: str) -> None:
    async with a_shop(database_url, **BY_DATE) as shop:
        assert (await bring(shop, brought(stamps=3, points_expire_at=LONG_AGO))).stamp_count == 3
        assert await refusal_of(shop, brought("C-2", points=1, points_expire_at=LONG_AGO)) == "expired_already"


@running
async def test_a_program_that_takes_nobody_new_still_takes_balances_of_those_it_has(database_url: str) -> None:
    async with a_shop(database_url) as shop:
        known = await shop.enrol(customer_id="C-1")
        await shop.send(OnProgram(program.ChangeProgram({"active": False})), shop.merchant)
        after = await bring(shop, brought(points=30, card_number=NUMBER))
        assert (after.id, after.points_balance) == (known.id, 30)
        assert await refusal_of(shop, brought("C-2", card_number=NUMBER)) == "card_number_taken"
        assert await refusal_of(shop, brought("C-2")) == "program_inactive"


@running
async def test_names_of_others_are_refused_and_ones_own_are_welcome_again(database_url: str) -> None:
    async with a_shop(database_url) as shop:
        first = await bring(shop, brought(card_number=NUMBER, qr_code=TOKEN))
        assert (first.card_number, first.qr_code) == (NUMBER, TOKEN)
        assert await refusal_of(shop, brought("C-2", card_number=NUMBER)) == "card_number_taken"
        assert await refusal_of(shop, brought("C-2", qr_code=TOKEN)) == "qr_code_taken"
        assert (await bring(shop, brought(card_number=NUMBER, qr_code=TOKEN, points=1))).id == first.id


# ---- from a file --------------------------------------------------------------------------------------------------


@running
@pytest.mark.parametrize("policy", ExpiryPolicy)
async def test_an_import_says_how_many_of_its_points_had_ended_already(
    database_url: str, tmp_path: Path, policy: ExpiryPolicy
) -> None:
    path = tmp_path / "cards.csv"
    idle, busy = (NOON - 20 * ONE_DAY).isoformat(), NOON.isoformat()
    path.write_text(f"customer_id,points,last_activity_at\nC-1,100,{idle}\nC-2,100,{busy}\nC-3,0,{idle}\n")
    async with a_shop(database_url, expiry_policy=policy, points_expiration_days=10) as shop:
        shop.clock.forward(days=2)
        for dry_run in (True, False):
            summary = await from_file(shop, path, dry_run=dry_run)
            assert (summary.imported, summary.points, summary.ended) == (3, 200, 100)


@running
async def test_what_ends_of_a_card_that_was_here_is_none_of_the_file(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "cards.csv"
    path.write_text(f"customer_id,points,last_activity_at\nC-1,5,{(NOON + 9 * ONE_DAY).isoformat()}\n")
    async with a_shop(database_url, expiry_policy=ExpiryPolicy.EARNED, points_expiration_days=10) as shop:
        await bring(shop, brought(points=30))
        shop.clock.forward(days=11)
        for dry_run in (True, False):
            summary = await from_file(shop, path, dry_run=dry_run)
            assert (summary.onto_known_cards, summary.points, summary.ended) == (1, 5, 0)


async def from_file(shop: Shop, path: Path, *, dry_run: bool) -> Summary:
    loaded = await shop.ledger.log.load(MERCHANT, shop.merchant.merchant_id)
    assert loaded is not None
    (store,) = loaded.state.stores.values()
    return await import_cards(shop.ledger, path, store.code, file_format=Format.CSV, source="Old till", dry_run=dry_run)


# ---- rehearsing ---------------------------------------------------------------------------------------------------


async def told_alike(shop: Shop, *commands: ImportCard) -> list[str | bool]:
    """What a rehearsal says, which writes nothing and must be what then happens."""
    head = await shop.ledger.log.head()
    rehearsed = [outcome_of(each) for each in await shop.ledger.previews.rehearse(commands, shop.till)]
    assert await shop.ledger.log.head() == head
    happened: list[str | bool] = []
    for command in commands:
        try:
            happened.append((await shop.send(command)).created)
        except Rejected as refusal:
            happened.append(refusal.code)
    assert rehearsed == happened
    return rehearsed


def outcome_of(rehearsed: Result | Rejected) -> str | bool:
    """The code of a refusal, or whether there would be a new card."""
    return rehearsed.code if isinstance(rehearsed, Rejected) else rehearsed.created


@running
async def test_a_rehearsal_says_of_each_command_what_would_happen(database_url: str) -> None:
    async with a_shop(database_url, type=ProgramType.POINTS, **BY_DATE) as shop:
        await shop.enrol(customer_id="at the till")
        await bring(shop, brought("known", card_number=NUMBER, qr_code=TOKEN))
        closed = await shop.enrol(customer_id="closed")
        await shop.ask(closed, card.Close())
        assert await told_alike(
            shop,
            brought("new", points=5, card_number=OTHER_NUMBER),
            brought("at the till", points=5),
            brought("known", card_number=NUMBER),
            brought("closed"),
            brought("number", card_number=NUMBER),
            brought("token", qr_code=TOKEN),
            brought("ended", points=1, points_expire_at=LONG_AGO),
            brought("stamped", stamps=1),
        ) == [
            *(True, False, False, True),
            *("card_number_taken", "qr_code_taken", "expired_already", "stamps_not_offered"),
        ]


@running
async def test_a_rehearsal_goes_by_the_program_of_now_on_whatever_server_it_was_changed(database_url: str) -> None:
    async with a_shop(database_url) as shop:
        assert await told_alike(shop, brought(points=1)) == [True]
        async with open_ledger(database_url, shop.clock) as other:
            await other.handle(OnProgram(program.ChangeProgram({"type": "stamps"})), shop.merchant)
        assert await told_alike(shop, brought(points=1), brought("C-2", points=1), brought("C-3", stamps=1)) == [
            "points_not_offered",
            "points_not_offered",
            True,
        ]


@running
async def test_rehearsing_nothing_is_nothing(database_url: str) -> None:
    async with a_shop(database_url) as shop:
        assert await told_alike(shop) == []


@running
async def test_keys_tell_what_they_were_used_for(database_url: str) -> None:
    async with a_shop(database_url) as shop:
        await bring(shop, brought(), key="one")
        used = await shop.ledger.replays.used_keys(["one", "two"], shop.till)
        assert used == {"one": shop.ledger.digest(brought(), shop.till)}
        assert used["one"] != shop.ledger.digest(brought(points=1), shop.till)
        assert await shop.ledger.replays.used_keys(["one"], shop.merchant) == {}
