"""The recorder is the library's: the library's own test cases run against it, and its subscriptions follow the log."""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import eventsourcing.cryptography
import pytest
from eventsourcing.persistence import IntegrityError, StoredEvent

from ledger.store.recorder import LedgerRecorder, datastore

# The library's test cases import its cipher, which wants a package that nothing here uses; this is its twin.
sys.modules.setdefault("eventsourcing.cipher", eventsourcing.cryptography)
from eventsourcing.tests import persistence  # noqa: E402 (the twin has to be there first)

WRITERS = 4
WRITES = 25


@pytest.fixture
def recorder(database_url: str) -> Iterator[LedgerRecorder]:
    with datastore(database_url) as store:
        yield LedgerRecorder(store)


class WithoutPositions(LedgerRecorder):
    """The recorder as the library's aggregate recorders are: without a notification log, they answer with no ids."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> None:
        super().insert_events(stored_events, **kwargs)


class TestAggregateRecorder(persistence.AggregateRecorderTestCase):
    @pytest.fixture(autouse=True)
    def of_this_database(self, recorder: LedgerRecorder) -> None:
        self.recorder = recorder

    def create_recorder(self) -> WithoutPositions:
        return WithoutPositions(self.recorder.datastore)


class TestAggregateRecorderFromZero(TestAggregateRecorder):
    INITIAL_VERSION = 0


class TestApplicationRecorder(persistence.ApplicationRecorderTestCase[LedgerRecorder]):
    @pytest.fixture(autouse=True)
    def of_this_database(self, recorder: LedgerRecorder) -> None:
        self.recorder = recorder

    def create_recorder(self) -> LedgerRecorder:
        return self.recorder

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestApplicationRecorderFromZero(TestApplicationRecorder):
    INITIAL_VERSION = 0


class TestNonInterleavingPositions(persistence.NonInterleavingNotificationIDsBaseCase):
    @pytest.fixture(autouse=True)
    def of_this_database(self, recorder: LedgerRecorder) -> None:
        self.recorder = recorder

    def create_recorder(self) -> LedgerRecorder:
        return self.recorder


def stored(stream: UUID, version: int) -> StoredEvent:
    return StoredEvent(originator_id=stream, originator_version=version, topic="told.1", state=b"{}")


def test_a_subscription_sees_every_event_in_order(recorder: LedgerRecorder) -> None:
    def write(_: int) -> None:
        stream = uuid4()
        for version in range(1, WRITES + 1):
            recorder.insert_events([stored(stream, version)])

    first = uuid4()
    recorder.insert_events([stored(first, 1), stored(first, 2)])
    total = 2 + WRITERS * WRITES
    with recorder.subscribe() as subscription, ThreadPoolExecutor(WRITERS) as threads:
        writing = [threads.submit(write, number) for number in range(WRITERS)]
        seen = [next(subscription) for _ in range(total)]
        for future in writing:
            future.result()
    assert [notification.id for notification in seen] == list(range(1, total + 1))
    versions: dict[UUID | str, list[int]] = {}
    for notification in seen:
        versions.setdefault(notification.originator_id, []).append(notification.originator_version)
    assert versions.pop(first) == [1, 2]
    assert list(versions.values()) == [list(range(1, WRITES + 1))] * WRITERS


def test_a_subscription_begins_after_what_was_seen(recorder: LedgerRecorder) -> None:
    stream = uuid4()
    recorder.insert_events([stored(stream, version) for version in range(1, 6)])
    with recorder.subscribe(gt=3) as subscription:
        assert [next(subscription).id, next(subscription).id] == [4, 5]
        recorder.insert_events([stored(stream, 6)])
        assert next(subscription).id == 6


def test_a_later_version_refuses_an_earlier_one(recorder: LedgerRecorder) -> None:
    stream, other = uuid4(), uuid4()
    recorder.insert_events([stored(stream, 1), stored(stream, 2)])
    with pytest.raises(IntegrityError):
        recorder.insert_events([stored(other, 1), stored(stream, 2)])
    assert recorder.select_events(other) == []
    assert recorder.max_notification_id() == 2
