"""Head and body of an answer leave together, and nothing that was written is lost or kept for later."""

import asyncio
import gc

import pytest

from loyalty.garbage import OBJECTS_OF_REQUESTS, collect_less
from loyalty.serving import HELD_BYTES_MAX, JoinedWrites


class Recorder(asyncio.Transport):
    """A connection that notes what it is asked to send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Notes it; a closed connection takes no more."""
        assert not self.closed
        self.sent.append(bytes(data))

    def close(self) -> None:
        """Closes."""
        self.closed = True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed


@pytest.fixture
def connection() -> Recorder:
    """A connection that nothing was sent on yet."""
    return Recorder()


def test_what_is_written_in_one_turn_is_sent_together_when_it_ends(connection: Recorder) -> None:
    async def answers() -> None:
        joined = JoinedWrites(connection, asyncio.get_running_loop())
        joined.write(b"head")
        joined.write(b"body")
        assert connection.sent == []
        await asyncio.sleep(0)
        joined.write(b"next")
        await asyncio.sleep(0)

    asyncio.run(answers())
    assert connection.sent == [b"headbody", b"next"]


def test_what_is_much_is_not_held(connection: Recorder) -> None:
    async def streams() -> None:
        joined = JoinedWrites(connection, asyncio.get_running_loop())
        joined.write(b"head")
        joined.write(b"x" * HELD_BYTES_MAX)
        assert [len(sent) for sent in connection.sent] == [HELD_BYTES_MAX + 4]
        await asyncio.sleep(0)

    asyncio.run(streams())
    assert len(connection.sent) == 1


def test_what_was_written_before_the_connection_is_closed_is_sent(connection: Recorder) -> None:
    async def closes() -> None:
        joined = JoinedWrites(connection, asyncio.get_running_loop())
        joined.write(b"the last")
        joined.close()
        await asyncio.sleep(0)

    asyncio.run(closes())
    assert connection.sent == [b"the last"]
    assert connection.closed


def test_when_the_other_side_is_gone_nothing_is_sent(connection: Recorder) -> None:
    async def is_late() -> None:
        joined = JoinedWrites(connection, asyncio.get_running_loop())
        joined.write(b"head")
        connection.closed = True
        await asyncio.sleep(0)

    asyncio.run(is_late())
    assert connection.sent == []


def test_a_process_that_serves_collects_less_often() -> None:
    before = gc.get_threshold()
    try:
        collect_less()
        assert gc.get_threshold()[0] == OBJECTS_OF_REQUESTS
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
