"""A read model that is built anew is the one that was fed; what is not as the log has it is found and mended."""

import asyncio
import dataclasses
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from random import Random

import msgspec
import pytest

from ledger import card
from ledger.card import AddStamp, EarnPoints
from ledger.commands import OnCard, WhichCard
from ledger.store.names import topics_of
from projections import cards, programs, statistics, transactions
from projections import rebuild as rebuild_module
from projections.applying import LIVE, Applying, connected, wanted_by
from projections.batches import Batches
from projections.models import MODELS
from projections.read_model import ReadModel
from projections.rebuild import EXAMPLES_MAX, rebuild
from tests.projections.random_trade import trade_in
from tests.projections.telling import (
    KEYRING,
    ROOT,
    Seen,
    Tables,
    agreed,
    caught_up,
    compared,
    environment,
    fed,
    feeding,
    held,
    ran,
    reading,
    shop_on,
    tables_of,
    until,
    write_unknown,
)
from tests.running import running
from tests.shop import NOON, Shop, open_shop

CARDS_HELD = "SELECT FROM rebuilding.checkpoints WHERE model = 'cards' FOR UPDATE"


@pytest.fixture
def tables(database_url: str) -> Iterator[Tables]:
    """The tables of the test's own database."""
    with tables_of(database_url) as known:
        yield known


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a rebuild of a short history take many steps."""
    monkeypatch.setattr(rebuild_module, "BATCH_EVENTS", 5)


async def traded(shop: Shop, steps: int = 60, seed: int = 1) -> None:
    """A random history of a shop."""
    trade = await trade_in(shop, Random(seed))  # noqa: S311 any history will do
    await trade.steps(steps)


@pytest.mark.parametrize("seed", range(4))
@running
async def test_a_rebuild_after_any_history_is_what_was_fed_row_by_row(
    database_url: str, tables: Tables, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(rebuild_module, "BATCH_EVENTS", (3, 17, 1_000, 20_000)[seed])
    async with feeding(database_url), shop_on(database_url) as shop:
        await traded(shop, 150, seed)
        await caught_up(tables)
        found = await compared(database_url)
    assert agreed(found)
    assert all(each is not None and each.rows > 0 for each in found.values())
    before = tables.rows()
    assert agreed(await rebuild(database_url, KEYRING, MODELS))
    assert tables.rows() == before
    assert set(tables.positions().values()) == {tables.head()}


def test_histories_leave_no_event_of_a_card_out(database_url: str) -> None:
    @running
    async def play() -> None:
        async with shop_on(database_url, stamps_target=1, cooldown_minutes=0, welcome_bonus_points=50) as shop:
            trade = await trade_in(shop, Random(1))  # noqa: S311 any history will do
            for _ in range(8):
                await trade.steps(50)
                await trade.begin_anew()
            closing = OnCard(which=WhichCard(card_id=trade.cards[0]), command=card.Close())
            await shop.send(closing, shop.merchant)

    play()
    with tables_of(database_url) as tables:
        told = {topic for (topic,) in tables.ask("SELECT DISTINCT topic FROM events")}
    missing = [event for event in card.Event.__args__ if not told & set(topics_of(event))]
    assert missing == []


@pytest.mark.usefixtures("small_batches")
@running
async def test_a_cancelled_rebuild_goes_on_from_where_it_was(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url) as shop:
        await traded(shop)
    await fed(database_url, tables)
    before = tables.rows()

    def give_up(seen: Seen) -> None:
        if len(seen.positions) == 4:
            task.cancel()

    first = Seen(give_up)
    task = asyncio.create_task(rebuild(database_url, KEYRING, MODELS, watcher=first))
    await asyncio.wait({task})
    assert task.cancelled()
    # The last of the steps was told of before it was certain that nothing would stop it.
    assert first.positions == [5, 10, 15, 20]
    second = Seen()
    assert agreed(await rebuild(database_url, KEYRING, MODELS, watcher=second))
    assert second.went_on == {model.name: 20 for model in MODELS}
    assert second.positions[0] == 25
    assert tables.rows() == before


KILLED = """
import asyncio, os, signal, sys
from projections import rebuild
from projections.models import MODELS
from tests.projections.telling import KEYRING, Seen
rebuild.BATCH_EVENTS = 5
def kill(seen):
    if len(seen.positions) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(rebuild.rebuild(sys.argv[1], KEYRING, MODELS, watcher=Seen(kill)))
"""


@running
async def test_a_killed_rebuild_goes_on_from_where_it_was(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url) as shop:
        await traded(shop)
    await fed(database_url, tables)
    before = tables.rows()
    command = [sys.executable, "-c", KILLED, database_url]
    killed = subprocess.run(command, cwd=ROOT, env=environment(database_url), check=False)
    assert killed.returncode == -signal.SIGKILL
    seen = Seen()
    assert agreed(await rebuild(database_url, KEYRING, MODELS, watcher=seen))
    assert seen.went_on == {model.name: 30 for model in MODELS}
    assert seen.positions[0] > 30
    assert tables.rows() == before


@pytest.mark.usefixtures("small_batches")
@running
async def test_writing_and_reading_go_on_while_a_model_is_built(database_url: str, tables: Tables) -> None:
    async with (
        feeding(database_url),
        shop_on(database_url) as older,
        reading(database_url) as reader,
    ):
        await traded(older, 20)
        shop = await open_shop(older.ledger, older.clock, cooldown_minutes=0)
        await caught_up(tables)
        holding = asyncio.Event()

        def stop(seen: Seen) -> None:
            if len(seen.positions) == 2:
                holding.set()

        building = asyncio.create_task(rebuild(database_url, KEYRING, MODELS, watcher=Seen(stop)))
        await holding.wait()
        with held(database_url, CARDS_HELD):
            made = await shop.enrol()
            handled = await shop.ask(made, EarnPoints(1_000))
            assert await reader.reached(MODELS, handled.position) >= handled.position
            rows = await reader.rows("SELECT points_balance FROM cards WHERE id = %(id)s", {"id": made.id})
            assert rows == [(100,)]
            assert not building.done()
        assert agreed(await building)
        await shop.ask(made, EarnPoints(1_000))
        await caught_up(tables)
        assert agreed(await compared(database_url))


@pytest.mark.parametrize(
    ("model", "harm", "key"),
    [
        (cards.MODEL, "UPDATE {} SET points_balance = points_balance + 1 WHERE id = {key} RETURNING id", "id"),
        (cards.MODEL, "DELETE FROM {} WHERE id = {key} RETURNING id", "id"),
        (transactions.MODEL, "DELETE FROM {} WHERE position = {key} RETURNING position", "position"),
        (programs.MODEL, "INSERT INTO {} VALUES (gen_random_uuid(), 1) RETURNING id", None),
        (
            statistics.MODEL,
            "UPDATE {} SET points_earned = 0 WHERE (merchant_id, day, store_id, staff_id) = (SELECT merchant_id, day,"
            " store_id, staff_id FROM {} WHERE points_earned > 0 LIMIT 1)"
            " RETURNING ROW(merchant_id, day, store_id, staff_id)::text",
            None,
        ),
    ],
    ids=["changed", "deleted", "a transaction deleted", "added", "a sum changed"],
)
@running
async def test_a_row_that_is_not_as_the_log_has_it_is_named_and_mended(
    database_url: str, tables: Tables, model: ReadModel, harm: str, key: str | None
) -> None:
    async with shop_on(database_url) as shop:
        await traded(shop, 40)
    await fed(database_url, tables)
    before = tables.rows()
    table = next(iter(model.tables))
    kind = "uuid" if key == "id" else "bigint"
    least = f"(SELECT min({key}::text)::{kind} FROM {{}})"  # noqa: S608 names of our own
    query = harm.replace("{key}", least).replace("{}", f"projections.{table}")
    ((harmed,),) = tables.ask(query)
    found = (await rebuild(database_url, KEYRING, [model]))[model.name]
    assert found is not None
    named = harmed if str(harmed).startswith("(") else f"({harmed})"
    assert (found.differing, found.examples) == (1, [f"{table} {named}"])
    assert tables.rows() == before
    assert agreed(await compared(database_url))


@running
async def test_of_many_rows_that_differ_ten_are_named_and_all_are_counted(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url) as shop:
        await traded(shop, 60)
    await fed(database_url, tables)
    changed = tables.change("UPDATE projections.transactions SET points = points + 1")
    found = (await compared(database_url, [transactions.MODEL]))["transactions"]
    assert found is not None
    assert (found.rows, found.differing, len(found.examples)) == (changed, changed, 10)


@running
async def test_what_the_feed_remembers_of_a_card_does_not_survive_a_takeover(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url, cooldown_minutes=0) as shop:
        made = await shop.enrol()
        await shop.ask(made, EarnPoints(1_000))
        await fed(database_url, tables)
        ((state,),) = tables.ask("SELECT state FROM projections.cards")
        wrong = msgspec.structs.replace(cards.decoded(state), enrolled_at=NOON - timedelta(days=9))
        tables.change("UPDATE projections.cards SET state = %s", msgspec.msgpack.encode(wrong))
        async with feeding(database_url):
            await shop.ask(made, EarnPoints(1_000))
            await caught_up(tables)
            found = (await rebuild(database_url, KEYRING, [cards.MODEL]))["cards"]
            assert found is not None
            assert found.differing == 1
            await shop.ask(made, AddStamp())
            await caught_up(tables)
            assert tables.ask("SELECT stamp_count FROM projections.cards") == [(1,)]
            assert agreed(await compared(database_url))


@running
async def test_several_batches_may_be_applied_in_one_transaction(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url) as shop:
        await traded(shop)
        await fed(database_url, tables)
        await traded(shop, seed=2)
    models = {model.name: model for model in MODELS}
    async with await connected(database_url, LIVE) as changing, await connected(database_url, LIVE) as asking:
        topics = wanted_by(models)
        async with Applying(changing, Batches(asking, KEYRING, topics), models) as applying, changing.transaction():
            while await applying.step(events_max=7) is not None:
                pass
    assert set(tables.positions().values()) == {tables.head()}
    assert agreed(await compared(database_url))


# ---- at the command line ------------------------------------------------------------------------------------------


@pytest.fixture
def harmed(database_url: str) -> str:
    """The id of a card whose balance is wrong in the table."""

    @running
    async def trade() -> None:
        async with shop_on(database_url) as shop:
            await traded(shop, 20)
        with tables_of(database_url) as tables:
            await fed(database_url, tables)

    trade()
    query = "UPDATE projections.cards SET points_balance = -7 WHERE id = (SELECT id FROM projections.cards LIMIT 1)"
    with tables_of(database_url) as tables:
        ((card_id,),) = tables.ask(f"{query} RETURNING id::text")
    return str(card_id)


def test_a_check_mends_nothing_and_says_so_by_its_exit_code(database_url: str, tables: Tables, harmed: str) -> None:
    before = tables.rows()
    checked = ran(database_url, "rebuild", "--check")
    assert checked.returncode == 1, checked.stderr
    assert f"1 differ; left as it is. cards ({harmed})" in checked.stdout
    assert len(checked.stdout.splitlines()) == len(MODELS)
    assert tables.rows() == before
    assert tables.built() == []
    assert tables.ask("SELECT FROM rebuilding.checkpoints") == []


def test_a_rebuild_mends_what_differs_and_then_nothing_does(database_url: str, harmed: str) -> None:
    mended = ran(database_url, "rebuild", "cards")
    assert mended.returncode == 0, mended.stderr
    assert f"1 differ; replaced. cards ({harmed})" in mended.stdout
    checked = ran(database_url, "rebuild", "--check", "cards")
    assert checked.returncode == 0
    assert "none differs" in checked.stdout


def test_a_check_names_no_person(database_url: str, tables: Tables, harmed: str) -> None:
    assert harmed
    terms = [term for (term,) in tables.ask("SELECT DISTINCT term FROM projections.search_terms")]
    harm = "DELETE FROM projections.search_terms WHERE term ~ '^(zoe|352621)' RETURNING term"
    assert {"zoe@shop.example", "352621000000"} <= {term for (term,) in tables.ask(harm)}
    checked = ran(database_url, "rebuild", "--check", "card_search")
    assert checked.returncode == 1, checked.stderr
    named = re.findall(r"search_terms \(([^)]*)\)", checked.stdout)
    assert len(named) == EXAMPLES_MAX
    assert all(re.fullmatch(r"[0-9a-f-]{36},[0-9a-f]{8},[0-9a-f-]{36}", row) for row in named)
    assert [term for term in terms if term in checked.stdout + checked.stderr] == []


def test_what_was_never_built_has_nothing_to_be_compared_with(database_url: str) -> None:
    built = ran(database_url, "rebuild", "cards")
    assert (built.returncode, built.stdout) == (0, "cards: nothing of the same shape to compare with; replaced.\n")


def test_an_unknown_model_is_answered_with_those_that_there_are(database_url: str) -> None:
    wrong = ran(database_url, "rebuild", "no_such_model")
    assert wrong.returncode == 2
    assert all(model.name in wrong.stderr for model in MODELS)


def test_a_rebuild_says_where_it_goes_on_and_what_it_waits_for(database_url: str, harmed: str) -> None:
    assert harmed
    command = [sys.executable, "-m", "loyalty", "rebuild", "cards"]
    settings = {"cwd": ROOT, "env": environment(database_url), "text": True, "stderr": subprocess.PIPE}
    with tables_of(database_url) as tables:
        tables.change("UPDATE projections.checkpoints SET position = 1")
        assert ran(database_url, "rebuild", "cards").returncode == 0
    lock = "SELECT pg_advisory_lock(%s, hashtext('cards'))"
    with held(database_url, lock, rebuild_module.BUILDER):
        waiting = subprocess.Popen(command, **settings)  # type: ignore[call-overload]  # as subprocess.run takes it
        assert "cards waits: it is being built elsewhere" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        _, rest = waiting.communicate(timeout=30)
    assert waiting.returncode == 1
    assert "it goes on from here" in rest


# ---- a model that changed -----------------------------------------------------------------------------------------

CHANGED = dataclasses.replace(
    transactions.MODEL,
    version=transactions.MODEL.version + 1,
    tables={"transactions": transactions.MODEL.tables["transactions"].rstrip().removesuffix(")") + ", note text)"},
)
RELEASE = tuple(CHANGED if model.name == CHANGED.name else model for model in MODELS)
NOTED = "SELECT count(note) + count(*) FROM projections.transactions"


@running
async def test_a_changed_model_takes_over_from_one_that_is_fed_and_read_until_then(
    database_url: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        shop_on(database_url) as older,
        reading(database_url) as reader,
        feeding(database_url),
    ):
        await traded(older, 20)
        shop = await open_shop(older.ledger, older.clock, cooldown_minutes=0)
        await caught_up(tables)
        # What is being built stops at the first page of the log that it wants to note.
        with held(database_url, "LOCK TABLE rebuilding.checkpoints IN SHARE MODE"):
            newer = asyncio.create_task(ran_feed(database_url))
            made = await shop.enrol()
            handled = await shop.ask(made, EarnPoints(1_000))
            assert await reader.reached([transactions.MODEL], handled.position) >= handled.position
            assert tables.identities()["transactions"] == transactions.MODEL.identity
        with caplog.at_level(logging.WARNING, "loyalty"):
            await until(lambda: tables.identities()["transactions"] == CHANGED.identity)
            handled = await shop.ask(made, EarnPoints(1_000))
            await caught_up(tables)
            await until(lambda: "rests" in caplog.text)
        # The older release's readers find in the newer one's tables what they know.
        assert await reader.reached([transactions.MODEL], handled.position) >= handled.position
        count = "SELECT count(*) FROM transactions WHERE card_id = %(id)s"
        assert await reader.rows(count, {"id": made.id}) == [(3,)]
        assert tables.ask(NOTED) == tables.ask("SELECT count(*) FROM projections.transactions")
        assert not newer.done()
        newer.cancel()
        await asyncio.wait({newer})
    assert tables.identities()["transactions"] == CHANGED.identity
    assert tables.built() == []
    # A feed of the older release that is started later rests, too.
    async with shop_on(database_url) as shop, feeding(database_url):
        before = tables.rows()
        await shop.enrol()
        await until(lambda: caplog.text.count("rests") > 1)
        assert tables.rows() == before
        assert tables.identities()["transactions"] == CHANGED.identity
    assert agreed(await compared(database_url, [cards.MODEL]))


async def ran_feed(database_url: str) -> None:
    """The feed of the release with the changed model."""
    async with feeding(database_url, RELEASE):
        await asyncio.Event().wait()


@running
async def test_all_models_of_a_release_are_built_before_the_first_takes_over(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url) as shop:
        await traded(shop, 20)
    await fed(database_url, tables)
    older = tables.identities()
    release = [dataclasses.replace(model, version=model.version + 1) for model in MODELS]
    with held(database_url, "SELECT FROM projections.checkpoints FOR UPDATE"):
        async with feeding(database_url, release):
            built = sorted(table for model in MODELS for table in model.tables)
            positions = "SELECT min(position) FROM rebuilding.checkpoints"
            await until(lambda: tables.built() == built and tables.ask(positions) == [(tables.head(),)])
            assert tables.identities() == older


@running
async def test_going_back_to_an_older_release_is_a_rebuild_by_it(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url) as shop:
        await traded(shop, 10)
        await fed(database_url, tables)
        async with feeding(database_url, RELEASE):
            await until(lambda: tables.identities()["transactions"] == CHANGED.identity)
        found = await rebuild(database_url, KEYRING, [transactions.MODEL])
        assert found == {"transactions": None}
        await shop.enrol()
        await fed(database_url, tables)
    assert agreed(await compared(database_url))


@running
async def test_of_two_rebuilds_of_a_model_at_once_one_waits(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url) as shop:
        await traded(shop, 20)
    await fed(database_url, tables)
    # As an interrupted rebuild leaves it.
    locked = "LOCK TABLE rebuilding.checkpoints IN EXCLUSIVE MODE"
    second_seen = Seen()
    with held(database_url, locked):
        first = asyncio.create_task(rebuild(database_url, KEYRING, [cards.MODEL]))
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'rebuilding.checkpoints'::regclass"
        await until(lambda: tables.ask(waiting))
        second = asyncio.create_task(rebuild(database_url, KEYRING, [cards.MODEL], watcher=second_seen))
        await until(lambda: second_seen.waited)
        assert not first.done()
    assert agreed(await first)
    assert agreed(await second)
    assert second_seen.waited == ["cards: it is being built elsewhere"]
    generation = "SELECT generation FROM projections.checkpoints WHERE model = 'cards'"
    assert tables.ask(generation) == [(3,)]


@running
async def test_what_cannot_be_told_further_can_still_be_compared_and_mended(database_url: str, tables: Tables) -> None:
    async with shop_on(database_url) as shop:
        made = await shop.enrol()
        await fed(database_url, tables)
        await write_unknown(shop.ledger.log)
        await shop.ask(made, EarnPoints(1_000))
    tables.change("UPDATE projections.cards SET points_balance = 9")
    found = (await rebuild(database_url, KEYRING, [cards.MODEL]))["cards"]
    assert found is not None
    assert found.differing == 1
    assert tables.ask("SELECT points_balance FROM projections.cards") == [(0,)]
