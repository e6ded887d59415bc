"""Bodies that are too slow, too deep or no text: litestar bounds their size, this the rest."""

import asyncio
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from ledger.errors import Rejected


class BodyTooSlow(HTTPException):
    """The body did not arrive within the time that bodies are given."""

    status_code = 408


class JsonRequest(Request[Any, Any, State]):
    """A request whose body is JSON or refused: the decoder's own errors differ by what is wrong with the bytes."""

    async def json(self) -> Any:
        """The body, decoded; raises `invalid_json` for bytes that are no UTF-8, no JSON, or nested too deeply."""
        body = await self.body()
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Rejected("invalid_json") from None


class BodyTimeLimit(ASGIMiddleware):
    """Gives a request's body a time to arrive in, all of it, however it is cut into pieces."""

    def __init__(self, seconds_max: float) -> None:
        self._seconds_max = seconds_max

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Counts from the first read to the last piece; later reads wait for the client to leave, without limit."""
        deadline: float | None = None
        complete = False

        async def receive_in_time() -> Any:
            nonlocal deadline, complete
            if complete:
                return await receive()
            loop = asyncio.get_running_loop()
            if deadline is None:
                deadline = loop.time() + self._seconds_max
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlow from None
            complete = not message.get("more_body", False)
            return message

        await next_app(scope, receive_in_time, send)
