"""uvicorn's HTTP protocol with what it leaves out: a deadline and a limit for the head of a request.

Without them a client that sends a byte now and then holds a connection for ever, and one whose headers never end
takes memory without bound.
"""

import asyncio
import logging
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.errors import Problem
from app.log import event

logger = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 64 * 1024


def bounded_head(seconds: float) -> type[HttpToolsProtocol]:
    """The protocol with this deadline. A class, because uvicorn makes one object of it for each connection."""

    class Protocol(_BoundedHead):
        head_seconds = seconds

    return Protocol


class _BoundedHead(HttpToolsProtocol):
    head_seconds: float
    _head_bytes = 0
    _in_head = False
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_over()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:  # still, after this piece: only then does it cost a timer
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._refuse(Problem("header_too_large", f"a head may have {_MAX_HEAD_BYTES:,} bytes at the most"))
            elif self._head_timer is None:
                self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        self._head_is_over()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem("bad_request", msg))

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _head_is_over(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if self._in_head:
            self._refuse(Problem("upload_too_slow", f"the head did not come within {self.head_seconds:g} seconds"))
        else:  # nothing came at all, so nobody waits for an answer
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answers outside of ASGI, where there is no request yet, and closes."""
        self._head_is_over()
        event(logger, "refused a connection", level=logging.DEBUG, client=self.client, problem=problem.code)
        if self.transport.is_closing():
            return
        response = problem.response({"state": {"request_id": ""}})
        lines = [f"HTTP/1.1 {response.status_code} {HTTPStatus(response.status_code).phrase}".encode()]
        lines += [name + b": " + value for name, value in (*response.raw_headers, (b"connection", b"close"))]
        self.transport.write(b"\r\n".join([*lines, b"", response.body]))
        self.transport.close()
