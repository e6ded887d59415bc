"""How an API process is served by uvicorn where its defaults cost a process of many small requests too much."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HELD_BYTES_MAX = 65_536


class JoinedWrites(asyncio.Transport):
    """A connection that sends together what is written in one turn of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held: list[bytes | bytearray | memoryview] = []
        self._held_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Holds the data until the turn is over, or until it is much."""
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES_MAX:
            self._send()

    def close(self) -> None:
        """Sends what is held, then closes."""
        self._send()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection is closing or closed."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Takes no more from the other side for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Takes from the other side again."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Addresses and the like."""
        return self._transport.get_extra_info(name, default)

    def _send(self) -> None:
        held = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        # The other side may have gone since.
        if held and not self._transport.is_closing():
            self._transport.write(held)


class JoiningProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which writes the head and the body of an answer one after the other, each sent by itself."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Puts itself on a connection that joins them."""
        super().connection_made(JoinedWrites(transport, self.loop))
