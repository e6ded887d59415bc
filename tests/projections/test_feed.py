"""The feed applies every event once and in order, whoever leads; who reads what was written waits for it, not long."""

import asyncio
import logging
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import httpx
import pytest

from ledger.actor import PLATFORM, Role
from ledger.card import AddStamp, EarnPoints
from ledger.errors import Rejected, Unavailable
from loyalty.embedded import Servers
from projections import batches as batches_module
from projections import reading as reading_module
from projections.applying import LIVE, Applying, connected, wanted_by
from projections.batches import KNOWN, Batches
from projections.cards import MODEL as CARDS
from projections.lag import lag
from projections.models import MODELS
from projections.read_model import Batch, Connection, Memory, ReadModel
from projections.reading import CHECKPOINTS
from tests.projections.random_trade import trade_in
from tests.projections.telling import (
    KEYRING,
    LISTENING,
    Tables,
    agreed,
    caught_up,
    compared,
    fed,
    feeding,
    held,
    outage,
    projecting,
    ran,
    reading,
    shop_on,
    tables_of,
    until,
    write_unknown,
)
from tests.running import running
from tests.served import Client, Served, ServedShop, answer_of, refusal, serving

LIVE_HELD = "SELECT FROM projections.checkpoints FOR UPDATE"
DIARY = "SELECT position FROM projections.diary ORDER BY line"


async def note(batch: Batch, connection: Connection, _: Memory) -> None:
    """Writes down each event in a line of its own."""
    for told in batch.events:
        await connection.execute(
            "INSERT INTO diary (position, stream) VALUES (%s, %s)", [told.position, told.read.at.stream]
        )


class Spoiled(Exception):
    """What a batch ends with that cannot be applied."""


async def note_and_fail(batch: Batch, connection: Connection, memory: Memory) -> None:
    """Does the same and then something wrong."""
    await note(batch, connection, memory)
    raise Spoiled


DIARY_OF_ALL = ReadModel(
    name="diary",
    version=1,
    tables={
        "diary": "CREATE TABLE diary (line bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, position bigint NOT NULL,"
        " stream uuid NOT NULL)"
    },
    indexes="",
    topics=KNOWN,
    apply=note,
)
"""A read model that holds which events it was told, and in which order."""


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    """The tables of the test's own database."""
    with tables_of(database_url) as known:
        yield known


def chance(seed: int) -> Random:
    """Chance that is the same every time."""
    return Random(seed)  # noqa: S311 any history will do


def diary(tables: Tables) -> list[int]:
    """The positions that were told, in the order in which they were."""
    return [position for (position,) in tables.ask(DIARY)]


def told_now(admin: Client) -> httpx.Response:
    """How far the read models are, without waiting for what was written."""
    headers = {"Authorization": f"Bearer {admin.credential}"}
    return admin.http.get("/api/v1/admin/loyalty/projections", headers=headers)


def with_model(model: ReadModel, apply: Any) -> ReadModel:
    """The same tables, told otherwise."""
    return replace(model, apply=apply)


@asynccontextmanager
async def applying(database_url: str, models: Mapping[str, ReadModel]) -> AsyncIterator[Applying]:
    """What the feed applies batches with, in the hands of the test."""
    async with (
        await connected(database_url, LIVE) as changing,
        await connected(database_url, LIVE) as asking,
        Applying(changing, Batches(asking, KEYRING, wanted_by(models)), models) as known,
    ):
        yield known


async def applied(database_url: str, model: ReadModel, events_max: int = 10) -> None:
    """Applies what there is, batch by batch, as the feed does."""
    async with applying(database_url, {model.name: model}) as known:
        while await known.step(events_max=events_max) is not None:
            pass


# ---- once and in order --------------------------------------------------------------------------------------------


@running
async def test_every_event_is_applied_once_and_in_order(database_url: str, tables: Tables) -> None:
    async with feeding(database_url, [DIARY_OF_ALL]), shop_on(database_url) as shop:
        trade = await trade_in(shop, chance(1))
        await trade.steps(40)
        await caught_up(tables, [DIARY_OF_ALL])
    assert diary(tables) == list(range(1, tables.head() + 1))


@running
async def test_two_that_take_themselves_for_the_leader_apply_every_event_once(
    database_url: str, tables: Tables
) -> None:
    async with shop_on(database_url) as shop:
        await fed(database_url, tables)
        async with feeding(database_url, [DIARY_OF_ALL]):
            await until(lambda: "diary" in tables.positions())
        trade = await trade_in(shop, chance(2))
        await trade.steps(60)
    await asyncio.gather(*(applied(database_url, DIARY_OF_ALL, events_max) for events_max in (3, 5)))
    assert diary(tables) == list(range(1, tables.head() + 1))


@running
async def test_rows_and_checkpoint_move_together(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url) as shop:
        async with feeding(database_url, [DIARY_OF_ALL]):
            await caught_up(tables, [DIARY_OF_ALL])
        rows, positions = diary(tables), tables.positions()
        await shop.enrol()
        with pytest.raises(Spoiled):
            await applied(database_url, with_model(DIARY_OF_ALL, note_and_fail))
        assert (diary(tables), tables.positions()) == (rows, positions)
        await applied(database_url, DIARY_OF_ALL)
    assert diary(tables) == list(range(1, tables.head() + 1))


@running
async def test_a_batch_that_failed_is_forgotten_by_what_remembers_cards(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url, cooldown_minutes=0) as shop:
        made = await shop.enrol()
        await fed(database_url, tables)
        failing = with_model(CARDS, spoilt_after(CARDS))
        known = {"cards": failing}
        async with applying(database_url, known) as changing:
            await shop.ask(made, EarnPoints(1_000))
            with pytest.raises(Spoiled):
                await changing.step()
            known["cards"] = CARDS
            await shop.ask(made, AddStamp())
            while await changing.step(events_max=1) is not None:
                pass
        await fed(database_url, tables)
        assert agreed(await compared(database_url))


def spoilt_after(model: ReadModel) -> Any:
    """What applies a batch as a model does, and fails then."""

    async def apply(batch: Batch, connection: Connection, memory: Memory) -> None:
        await model.apply(batch, connection, memory)
        raise Spoiled

    return apply


@running
async def test_a_feed_that_was_away_catches_up(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url) as shop:
        await shop.enrol()
        await fed(database_url, tables)
        trade = await trade_in(shop, chance(3))
        await trade.steps(40)
        assert max(tables.positions().values()) < tables.head()
        await fed(database_url, tables)
    assert set(tables.positions().values()) == {tables.head()}
    assert agreed(await compared(database_url))


# ---- several processes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)], ids=["killed", "hanging"]
)
def test_when_the_leader_dies_or_hangs_another_takes_over(
    database_url: str, tables: Tables, how: signal.Signals
) -> None:
    with ExitStack() as stack:
        processes = {name: stack.enter_context(projecting(database_url, name)) for name in ("one", "two")}

        @running
        async def trade() -> None:
            async with shop_on(database_url) as shop:
                await until(tables.leader)
                leader = tables.leader()
                assert leader in processes
                await shop.enrol()
                await caught_up(tables)
                os.kill(processes[leader].pid, how)
                await shop.enrol()
                await caught_up(tables)
                (other,) = processes.keys() - {leader}
                assert tables.leader() == other
                assert processes[other].poll() is None
                if how is signal.SIGSTOP:
                    os.kill(processes[leader].pid, signal.SIGCONT)
                    await shop.enrol()
                    await caught_up(tables)
                    assert processes[leader].poll() is None
            assert agreed(await compared(database_url))

        trade()


# ---- what it does not know, and what goes away --------------------------------------------------------------------


@running
async def test_an_event_of_a_newer_release_stops_the_feed_right_before_it(
    database_url: str, tables: Tables, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop_on(database_url) as shop, reading(database_url) as reader:
        await fed(database_url, tables)
        known = await shop.enrol()
        position = await write_unknown(shop.ledger.log)
        await shop.enrol()
        with caplog.at_level(logging.WARNING, "loyalty"):
            async with feeding(database_url):
                await until(lambda: "stops at the event told_tomorrow.1" in caplog.text)
                assert set(tables.positions().values()) == {position - 1}
                assert await reader.reached(MODELS, position - 1) == position - 1
                rows = await reader.rows("SELECT id FROM cards", {})
                assert rows == [(known.id,)]
                with pytest.raises(Rejected, match="behind"):
                    await reader.reached(MODELS, position)
                # It was tried again meanwhile, and said once.
                assert caplog.text.count("stops at") == 1
        # The release that has a name for it goes on.
        monkeypatch.setattr(batches_module, "KNOWN", KNOWN | {"told_tomorrow.1"})
        await fed(database_url, tables)
    assert tables.ask("SELECT count(*) FROM projections.cards") == [(2,)]


def test_an_event_of_a_newer_release_does_not_end_the_process(database_url: str) -> None:
    @running
    async def write() -> None:
        async with shop_on(database_url) as shop:
            await write_unknown(shop.ledger.log)

    write()
    with tempfile.TemporaryFile() as said, projecting(database_url, "one", said) as process:

        def printed() -> str:
            said.seek(0)
            return said.read().decode()

        @running
        async def wait() -> None:
            await until(lambda: "stops at the event told_tomorrow.1" in printed())

        wait()
        assert process.poll() is None


@running
async def test_a_model_whose_row_is_gone_stays_where_it_is_until_it_is_mended_and_the_others_go_on(
    database_url: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop_on(database_url, cooldown_minutes=0) as shop, reading(database_url) as reader:
        made, other = await shop.enrol(), await shop.enrol()
        await fed(database_url, tables)
        told = tables.head()
        tables.change("DELETE FROM projections.cards WHERE id = %s", made.id)
        await shop.ask(made, EarnPoints(1_000))
        after = await shop.ask(other, AddStamp())
        others = [model for model in MODELS if model.name != "cards"]
        with caplog.at_level(logging.WARNING, "loyalty"):
            async with feeding(database_url):
                assert await reader.reached(others, after.position) >= after.position
                assert tables.positions()["cards"] == told
                said = f"the read model cards cannot be told of what stands after position {told},"
                assert said in caplog.text
                assert "run `loyalty rebuild cards`" in caplog.text
                with pytest.raises(Rejected, match="behind"):
                    await reader.reached(MODELS, after.position)
                later = await shop.ask(other, EarnPoints(500))
                assert await reader.reached(others, later.position) >= later.position
                assert caplog.text.count("the feed goes on without") == 1
                mended = await asyncio.to_thread(ran, database_url, "rebuild", "cards")
                assert f"1 differ; replaced. cards ({made.id})" in mended.stdout, mended.stderr
                await caught_up(tables)
        assert await reader.reached(MODELS, later.position) >= later.position
    assert agreed(await compared(database_url))


@pytest.mark.parametrize(
    "harm",
    ["DROP TABLE projections.pin_use", "ALTER TABLE projections.pin_use ADD COLUMN more int"],
    ids=["gone", "altered"],
)
@running
async def test_a_table_that_is_gone_or_altered_is_found_and_built_anew(
    database_url: str, tables: Tables, harm: str
) -> None:
    async with shop_on(database_url, cooldown_minutes=0) as shop, reading(database_url) as reader:
        made = await shop.enrol()
        async with feeding(database_url):
            await caught_up(tables)
            tables.change(harm)
            stamped = await shop.ask(made, AddStamp())
            others = [model for model in MODELS if model.name != "pin_use"]
            assert await reader.reached(others, stamped.position) >= stamped.position
            checked = await asyncio.to_thread(ran, database_url, "rebuild", "pin_use", "--check")
            assert checked.returncode == 1
            assert "pin_use is gone or altered" in checked.stdout
            assert (await asyncio.to_thread(ran, database_url, "rebuild", "pin_use")).returncode == 0
            await caught_up(tables)
    assert agreed(await compared(database_url))


@running
async def test_a_seal_that_is_broken_stops_the_feed_right_before_it(
    database_url: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop_on(database_url) as shop, reading(database_url) as reader:
        await fed(database_url, tables)
        made = await shop.enrol(name="Zoë Müller")
        await shop.enrol()
        head = tables.head()
        ((position, topic),) = tables.ask(
            "SELECT notification_id, topic FROM events WHERE subject_id = %s ORDER BY notification_id LIMIT 1",
            made.customer,
        )
        ((wrapped,),) = tables.ask("SELECT wrapped FROM subject_keys WHERE subject_id = %s", made.customer)
        broken = "UPDATE subject_keys SET wrapped = %s WHERE subject_id = %s"
        tables.change(broken, wrapped[::-1], made.customer)
        with caplog.at_level(logging.WARNING, "loyalty"):
            async with feeding(database_url):
                said = f"the event {topic} at position {position} does not open with its person's key"
                await until(lambda: said in caplog.text)
                assert set(tables.positions().values()) == {position - 1}
                assert await reader.reached(MODELS, position - 1) == position - 1
                with pytest.raises(Rejected, match="behind"):
                    await reader.reached(MODELS, position)
                assert caplog.text.count("the feed stops") == 1
                checked = await asyncio.to_thread(ran, database_url, "rebuild", "--check")
                assert set(tables.positions().values()) == {position - 1}
                assert checked.returncode == 0, checked.stderr
                tables.change(broken, wrapped, made.customer)
                await caught_up(tables)
        assert await reader.reached(MODELS, head) == head
    assert agreed(await compared(database_url))


@running
async def test_a_database_that_goes_away_does_not_end_the_feed(
    servers: Servers, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with feeding(database_url):
        for _ in range(2):
            async with shop_on(database_url) as shop:
                await shop.enrol()
                with tables_of(database_url) as tables:
                    await caught_up(tables)
            with outage(servers.database_url, database_url):
                await until(lambda: "lost the database" in caplog.text)
            caplog.clear()
        async with shop_on(database_url) as shop:
            await shop.enrol()
            with tables_of(database_url) as tables:
                await caught_up(tables)
    assert agreed(await compared(database_url))


def test_a_database_that_goes_away_does_not_end_the_process(servers: Servers, database_url: str) -> None:
    @running
    async def trade() -> None:
        async with shop_on(database_url) as shop:
            await shop.enrol()
            with tables_of(database_url) as tables:
                await caught_up(tables)

    with projecting(database_url, "one") as process:
        trade()
        with outage(servers.database_url, database_url):
            pass
        trade()
        assert process.poll() is None


# ---- reads that wait ----------------------------------------------------------------------------------------------


@running
async def test_a_read_that_waits_is_woken_and_does_not_look_again_and_again(
    database_url: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "WAIT_SECONDS_MAX", 1_000)
    monkeypatch.setattr(reading_module, "LOOK_SECONDS", 1_000)
    async with shop_on(database_url) as shop, reading(database_url) as reader, feeding(database_url):
        await caught_up(tables)
        with held(database_url, LIVE_HELD):
            made = await shop.enrol()
            head = tables.head()
            waiting = asyncio.create_task(reader.reached(MODELS, head))
            done, _ = await asyncio.wait({waiting}, timeout=0.3)
            assert not done
        assert await waiting >= head
        assert await reader.rows("SELECT id FROM cards", {}) == [(made.id,)]


@running
async def test_a_read_that_nobody_wakes_looks_by_itself(
    database_url: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "WAIT_SECONDS_MAX", 1_000)
    async with shop_on(database_url) as shop, reading(database_url) as reader:
        await fed(database_url, tables)
        await shop.enrol()
        waiting = asyncio.create_task(reader.reached(MODELS, tables.head()))
        tables.change("UPDATE projections.checkpoints SET position = %s", tables.head())
        assert await waiting == tables.head()


@running
async def test_a_reader_that_was_not_told_looks_before_it_says_that_a_model_is_being_built(
    database_url: str, tables: Tables
) -> None:
    async with shop_on(database_url) as shop:
        await shop.enrol()
        await fed(database_url, tables)
    tables.change("CREATE TABLE kept AS TABLE projections.checkpoints")
    tables.change("DELETE FROM projections.checkpoints")
    async with reading(database_url) as reader:
        with pytest.raises(Unavailable, match="is being built"):
            await reader.reached(MODELS)
        tables.change("INSERT INTO projections.checkpoints SELECT * FROM kept")
        assert await reader.reached(MODELS) == tables.head()


@running
async def test_a_defect_of_what_listens_is_said_once_and_the_reader_hears_again_and_can_be_closed(
    database_url: str, tables: Tables, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "RECONNECT_SECONDS", 0.01)
    async with shop_on(database_url) as shop, reading(database_url) as reader:
        await shop.enrol()
        await fed(database_url, tables)
        said = "readers hear of no change and look by themselves"
        tables.change("ALTER TABLE projections.checkpoints RENAME TO away")
        tables.change("NOTIFY projected")
        await until(lambda: said in caplog.text)
        assert "UndefinedTable" in caplog.text
        tables.change("ALTER TABLE projections.away RENAME TO checkpoints")
        await until(lambda: tables.ask(LISTENING, CHECKPOINTS))
        assert await reader.reached(MODELS) == tables.head()
        assert caplog.text.count(said) == 1
        tables.change("ALTER TABLE projections.checkpoints RENAME TO away")
        tables.change("NOTIFY projected")
        await until(lambda: caplog.text.count(said) == 2)
    with pytest.raises(Unavailable):
        await reader.rows("SELECT 1", {})


@pytest.fixture(scope="module")
def shop(served: Served) -> ServedShop:
    """A shop whose cards are listed."""
    return served.shop()


def test_a_read_of_what_is_not_told_yet_ends_with_503_and_when_to_ask_again(shop: ServedShop) -> None:
    shop.enrol()
    before = shop.manager.get("cards")
    assert before.status_code == 200
    with held(str(shop.served.settings.database_url), LIVE_HELD):
        card = shop.enrol()
        response = shop.manager.get("cards")
        facts = refusal(response, 503, "behind")
        assert int(response.headers["retry-after"]) > 0
        assert int(before.headers["loyalty-position"]) <= facts["position"] < shop.served.seen.position
        # What asks for nothing newer is answered with what there is, and one card is read from the log.
        assert shop.manager.get("cards", headers={"Loyalty-Position": "0"}).json()["items"] == before.json()["items"]
        assert shop.manager.get(f"cards/{card['id']}").status_code == 200
    listed = answer_of(shop.manager.get("cards"))["items"]
    assert card["id"] in {item["id"] for item in listed}


@pytest.mark.parametrize("path", ["cards", "cards/{card}/transactions"])
def test_a_model_that_is_being_built_is_unavailable_and_neither_empty_nor_missing(database_url: str, path: str) -> None:
    with serving(database_url) as served, tables_of(database_url) as tables:
        shop = served.shop()
        # As it is when the first API process of a release is there before what it reads.
        tables.change("UPDATE projections.checkpoints SET identity = 'older'")
        tables.change("NOTIFY projected")
        card = shop.enrol()
        response = shop.manager.get(path.format(card=card["id"]))
        refusal(response, 503, "unavailable")
        assert int(response.headers["retry-after"]) > 0
        lag = told_now(served.account(Role.ADMIN, PLATFORM))
        assert {item["status"] for item in lag.json()["items"]} == {"building"}
        assert ran(database_url, "rebuild").returncode == 0
        assert len(answer_of(shop.manager.get(path.format(card=card["id"])))["items"]) == 1


@running
async def test_a_reader_without_any_tables_says_that_they_are_being_built(database_url: str) -> None:
    async with reading(database_url) as reader:
        with pytest.raises(Unavailable, match="is being built"):
            await reader.reached(MODELS)


# ---- how far it is ------------------------------------------------------------------------------------------------


def test_an_admin_sees_how_far_each_model_is(shop: ServedShop) -> None:
    admin = shop.served.account(Role.ADMIN, PLATFORM)
    database_url = str(shop.served.settings.database_url)
    with tables_of(database_url) as tables:
        with held(database_url, LIVE_HELD):
            shop.enrol()
            seen = answer_of(told_now(admin))
            assert seen["head"] == tables.head()
            assert [item["name"] for item in seen["items"]] == [model.name for model in MODELS]
            for item in seen["items"]:
                assert item["status"] == "current"
                assert item["rebuilding"] is None
                assert item["lag_events"] == seen["head"] - item["position"] > 0
                assert item["lag_seconds"] > 0

        @running
        async def wait() -> None:
            await caught_up(tables)

        wait()
        seen = answer_of(told_now(admin))
        assert {(item["lag_events"], item["lag_seconds"]) for item in seen["items"]} == {(0, 0.0)}


@running
async def test_what_is_being_built_and_what_another_release_has_is_told_apart(
    database_url: str, tables: Tables
) -> None:
    async with shop_on(database_url) as shop, reading(database_url) as reader:
        await fed(database_url, tables)
        await write_unknown(shop.ledger.log)
        tables.change(
            "UPDATE projections.checkpoints SET identity = '9-x', replaced = ARRAY[identity] WHERE model = 'cards'"
        )
        tables.change("UPDATE projections.checkpoints SET identity = '0-x' WHERE model = 'pin_use'")
        tables.change(
            "INSERT INTO rebuilding.checkpoints (model, identity, position, generation, tables)"
            " VALUES ('pin_use', 'x', 3, 0, '{}')"
        )
        now = datetime(2026, 3, 2, 11, 0, 30, tzinfo=UTC)
        found = await lag(reader, MODELS, now)
        told = {item.name: item for item in found.items}
        assert (told["cards"].status, told["pin_use"].status, told["platform"].status) == (
            "of_another_release",
            "building",
            "current",
        )
        assert told["pin_use"].rebuilding is not None
        assert (told["pin_use"].rebuilding.position, told["pin_use"].rebuilding.of) == (3, tables.head())
        # The event that waits is of a newer release, and says when it was recorded all the same.
        assert {item.lag_events for item in found.items} == {1}
        assert told["platform"].lag_seconds == timedelta(seconds=30).total_seconds()
