"""Bodies as they are taken: bounded in size and in time, and JSON or refused."""

import asyncio
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import ValidationException

from ledger.errors import Rejected


class JsonRequest(Request[Any, Any, State]):
    """A request whose body is read whole, within the limits of the settings, however it is cut into pieces."""

    async def body(self) -> bytes:
        """The body; raises `body_too_large`, or `body_timeout` where it does not arrive in time."""
        if isinstance(self._body, bytes):
            return self._body
        settings = self.app.state.settings
        try:
            async with asyncio.timeout(settings.body_seconds_max):
                self._body = await self._read(settings.body_bytes_max)
        except TimeoutError:
            raise Rejected("body_timeout") from None
        return self._body

    async def _read(self, bytes_max: int) -> bytes:
        body = b""
        while True:
            message: Any = await self.receive()
            if message["type"] == "http.disconnect":
                raise Rejected("body_timeout")
            piece: bytes = message.get("body", b"")
            body += piece
            if len(body) > bytes_max:
                raise Rejected("body_too_large", bytes_max=bytes_max)
            if not message.get("more_body", False):
                return body

    async def json(self) -> Any:
        """The body as the shape that the handler takes, strictly: text is no number, whatever it says.

        Raises `invalid_json` for bytes that are no UTF-8, no JSON, or nested too deeply.
        """
        shape = self.route_handler.parsed_fn_signature.parameters["data"].annotation
        body = await self.body()
        try:
            return msgspec.json.decode(body, type=shape)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `$.")
            raise ValidationException(extra=[{"key": path.rstrip("`") or "body", "message": message}]) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Rejected("invalid_json") from None
