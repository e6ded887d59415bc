"""Answers whose JSON is ready, sent as they are: litestar's own way to an answer finds out what is known here."""

from typing import Any

from litestar import Request, Response
from litestar.datastructures import State
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send


class JsonAnswer(Response[bytes]):
    """Encoded JSON with its status and headers; cookies and background tasks it has none."""

    def __init__(self, content: bytes, *, headers: dict[str, str], status_code: int = 200) -> None:
        super().__init__(content, status_code=status_code, headers=headers, media_type="application/json")

    def to_asgi_response(
        self,
        app: Any,  # noqa: ARG002 as litestar calls it
        request: Request[Any, Any, State],  # noqa: ARG002 as litestar calls it
        **_: Any,
    ) -> ASGIResponse:
        """The answer for the server; nothing that litestar would add to it is in use."""
        return Encoded(self)


class Encoded(ASGIResponse):
    """An answer on its way out."""

    def __init__(self, answer: JsonAnswer) -> None:
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 as ASGI calls it
        """Sends head and body."""
        answer = self.answer
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
        headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", b"%d" % len(answer.content)))
        await send({"type": "http.response.start", "status": answer.status_code or 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content, "more_body": False})
