"""What holds for every request, around the hot route and FastAPI alike: plain ASGI, no BaseHTTPMiddleware."""

import asyncio
import logging
import random
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import Problem
from app.api.upload import ClientLeft
from app.metrics import Metrics

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

# A refused body is read on so far, and no longer, before the connection is closed: closing at once would reset it,
# and the reset would overtake the answer.
_LINGER_BYTES = 1 << 20
_LINGER_SECONDS = 2.0
# The rest of a smaller body is skipped by the HTTP server, and the connection stays open.
_SMALL_BODY = 1 << 16


class Observe:
    """The outermost: gives each request an id, and counts what was answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()

        async def observed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
                route = scope["route"].path if "route" in scope else "none"
                self._metrics.answered(scope["method"], route, message["status"], state.get("problem"))
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, observed_send)
        finally:
            self._metrics.in_flight.dec()


class Problems:
    """The innermost: makes answers of what was raised, so that a client is told of every error in one form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except ClientLeft:
            return
        except Problem as problem:
            await _answer(problem, scope, receive, send)
        except asyncio.CancelledError:
            # The grace period is over. Starlette and uvicorn would say 500, or nothing.
            await _answer(Problem("draining", "the server has shut down"), scope, receive, send)
            raise


async def _answer(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    response = problem.response(scope)
    if not _much_is_unread(scope):
        await response(scope, receive, send)
        return
    headers = [*response.raw_headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    await _read_on(receive)
    await send({"type": "http.response.body", "body": b""})


def _much_is_unread(scope: Scope) -> bool:
    if scope["state"].get("body_read"):
        return False
    headers = dict(scope["headers"])
    if b"expect" in headers:  # the client waits for our word before it sends anything
        return False
    length = headers.get(b"content-length")
    return b"transfer-encoding" in headers if length is None else int(length) > _SMALL_BODY


async def _read_on(receive: Receive) -> None:
    left = _LINGER_BYTES
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _request_id(scope: Scope) -> bytes:
    """The client's own, where it is fit to be repeated, else a new one: 64 random bits in hexadecimal."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return b"%016x" % random.getrandbits(64)
