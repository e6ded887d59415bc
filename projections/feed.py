"""The feed: follows the log and keeps the read models told.

Any number of processes may run it. One leads, by a lock of its session that the database frees when it dies; the
others stand by. Rows and checkpoint change in one transaction, and each batch begins with the checkpoints locked, so
that even two that take themselves for the leader apply every event once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import psycopg

from ledger.store.keys import Keyring
from ledger.store.names import UnknownEvent
from projections.applying import BATCH_EVENTS_MAX, LIVE, Applying, Overtaken, connected, wanted_by
from projections.batches import Batches
from projections.models import MODELS
from projections.read_model import Connection, ReadModel, Untellable
from projections.rebuild import build

LOG = logging.getLogger("loyalty")

LEADER = 7310868725460103215
POLL_SECONDS = 1.0
"""How long the feed waits for the log to call before it looks by itself."""

GATHER_SECONDS = 0.02
"""How long the feed rests after a batch. What comes after a quiet moment is told at once; what comes in a stream is
told some fifty times a second, which leaves the machine to those who write."""

SILENT_SECONDS = 10
"""A leader that says nothing to the database for so long hangs, and its session is ended; one that works says something
every second."""

STAND_BY_SECONDS = 0.5
RETRY_SECONDS = 1.0
QUIET_SECONDS = 10.0
"""What the feed meets again when it tries again at once, it does not say again."""


HEARD = """
    SELECT set_config('idle_session_timeout', %(seconds)s, false),
        set_config('idle_in_transaction_session_timeout', %(seconds)s, false)
"""


class Feed:
    """Keeps the read models told, as long as it is let; builds those that are missing or of an earlier release."""

    def __init__(self, database_url: str, keyring: Keyring, models: Sequence[ReadModel] = MODELS) -> None:
        self._database_url = database_url
        self._keyring = keyring
        self._models = {model.name: model for model in models}

    async def follow(self) -> None:
        """Leads when nobody else does, until cancelled; starts over where the database goes away."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._kept_up(self._build))
            both.create_task(self._kept_up(self._lead))

    async def _kept_up(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does some work to its end, however often it has to be begun."""
        loop = asyncio.get_running_loop()
        said = ""
        while True:
            begun = loop.time()
            try:
                return await work()
            except psycopg.OperationalError as error:
                why = f"the feed lost the database ({error}) and tries again"
            except UnknownEvent as error:
                why = f"the feed stops at the event {error}, which a newer release wrote"
            except Untellable as error:
                why = f"the feed stops: {error}"
            except Overtaken as error:
                why = f"the feed rests: another release replaced the read model {error}"
            if why != said or loop.time() - begun > QUIET_SECONDS:
                LOG.warning(why)
            said = why
            await asyncio.sleep(RETRY_SECONDS)

    async def _build(self) -> None:
        await build(self._database_url, self._keyring, list(self._models.values()))

    async def _lead(self) -> None:
        async with (
            await connected(self._database_url, LIVE) as leading,
            await connected(self._database_url, LIVE) as reading,
        ):
            while not await leads(leading):
                await asyncio.sleep(STAND_BY_SECONDS)
            await leading.execute(HEARD, {"seconds": f"{SILENT_SECONDS}s"})
            await leading.execute("LISTEN events")
            applying = Applying(leading, Batches(reading, self._keyring, wanted_by(self._models)), self._models)
            async with applying:
                await follow_on(applying, leading)


async def follow_on(applying: Applying, leading: Connection) -> None:
    """Applies what there is and what comes, without those models whose tables are not as they should be.

    Goes on in ever smaller batches before an event that cannot be opened, so that it stops right before it, as it does
    before an event that it does not know.
    """
    events_max = BATCH_EVENTS_MAX
    while True:
        try:
            reached = await applying.step(events_max=events_max)
        except Untellable as error:
            if error.model is not None:
                LOG.warning("the feed goes on without one model: %s", error)
                applying.leave_out(error.model)
                continue
            if events_max == 1:
                raise
            events_max = max(1, events_max // 10)
            continue
        if reached is None:
            events_max = BATCH_EVENTS_MAX
            await called(leading)
        elif not applying.catching_up:
            await asyncio.sleep(GATHER_SECONDS)


async def leads(connection: Connection) -> bool:
    """Whether this session is the leader."""
    cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", [LEADER])
    return bool((await cursor.fetchone() or (False,))[0])


async def called(connection: Connection) -> None:
    """Waits until the log calls, or for as long as the feed can go without looking."""
    async for _ in connection.notifies(timeout=POLL_SECONDS, stop_after=1):
        pass
