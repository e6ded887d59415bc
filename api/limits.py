"""Bodies as they are taken: bounded in size and in time, and JSON or refused. Answers as they are given: in time."""

import asyncio
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import ValidationException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from ledger.errors import Rejected, Unavailable

ANSWER_SECONDS_MAX = 2.8


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


class AnswerTimeLimit(ASGIMiddleware):
    """Lets nobody wait for the ledger longer than a till waits, however many steps a request takes or stands behind.

    Only the service's own time counts, not that of a body that is still to arrive; an answer that has begun may take
    as long as it is.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Raises `Unavailable` when the time is over; a command may then have been recorded, and its key tells."""
        loop = asyncio.get_running_loop()
        begun = False

        async def receive_meanwhile() -> Any:
            until = limit.when()
            if until is None:
                return await receive()
            left = until - loop.time()
            limit.reschedule(None)
            message = await receive()
            if not begun:
                limit.reschedule(loop.time() + left)
            return message

        async def send_in_time(message: Message) -> None:
            nonlocal begun
            begun = True
            limit.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX) as limit:
                await next_app(scope, receive_meanwhile, send_in_time)
        except TimeoutError:
            raise Unavailable("the answer takes too long") from None
