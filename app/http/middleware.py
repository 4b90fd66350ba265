"""What holds for every request that goes by ASGI: plain ASGI applications around both the hot route and FastAPI."""

import asyncio
import math

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.connection_limits import LINGER_BYTES, LINGER_SECONDS
from app.http.disconnect import ClientDisconnect
from app.http.draining import Draining
from app.http.guard import enter_request, leave_request
from app.http.problems import problem_of
from app.telemetry.metrics import Metrics


class RequestIdAndMetrics:
    """The outermost middleware. It gives each request an id, and counts what was answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # as GET; the HTTP server leaves the content out
            scope = {**scope, "method": "GET"}
        state = scope.setdefault("state", {})
        request_id = enter_request(dict(scope["headers"]), self._metrics)
        state["request_id"] = request_id.decode()

        async def observed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                state["answered"] = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
                route = scope["route"].path if "route" in scope else "none"
                self._metrics.answered(method, route, message["status"], state.get("problem"))
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        finally:
            leave_request(self._metrics)


class LingeringClose:
    """Lets an answer arrive although much of the request's body was not read.

    It announces that the connection will be closed, sends the answer, and reads on for a little before the end. A
    connection that is closed while the client sends is reset, and the reset may overtake the answer.

    Args:
        draining: while the server drains, the protocol ends connections by itself. Then any body is read on.
    """

    def __init__(self, app: ASGIApp, draining: Draining) -> None:
        self._app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (size := _announced_size(scope)):
            await self._app(scope, receive, send)
            return
        state, closes = scope["state"], size > LINGER_BYTES or _ends(scope)

        async def send_then_read_on(message: Message) -> None:
            if state.get("body_read") or not (closes or self._draining.begun):
                await send(message)
            elif message["type"] == "http.response.start":
                headers = [(b"connection", b"close")] if closes else []
                await send({**message, "headers": [*message.get("headers", ()), *headers]})
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await _read_on(receive)
                await send({"type": "http.response.body", "body": b""})

        await self._app(scope, receive, send_then_read_on)


class ProblemDocuments:
    """The innermost middleware. It makes answers of what was raised, so that clients see every error in one form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            return
        except asyncio.CancelledError as error:
            # Starlette and uvicorn would say 500, or nothing.
            await _answer_if_none_was(error, scope, receive, send)
            raise
        except Exception as error:  # noqa: BLE001  `problem_of` sees to it that a bug is logged
            await _answer_if_none_was(error, scope, receive, send)


async def _answer_if_none_was(error: BaseException, scope: Scope, receive: Receive, send: Send) -> None:
    problem = problem_of(error, scope["state"]["request_id"].encode())
    if not scope["state"].get("answered"):
        await problem.response(scope)(scope, receive, send)


def _announced_size(scope: Scope) -> float:
    """Returns how many bytes of a body are to come: infinitely many where that is not said."""
    size = 0.0
    for name, value in scope["headers"]:
        if name == b"content-length":
            size = int(value)
        elif name == b"transfer-encoding":
            return math.inf
    return size


def _ends(scope: Scope) -> bool:
    """Says whether the connection is to end with a request that is answered before its body was read.

    Otherwise the HTTP server skips what would be read on before a close as well, and the connection can stay open.
    """
    return scope["http_version"] == "1.0" or any(
        # Whether a body that is expected will come at all is the client's choice.
        name == b"expect" or (name == b"connection" and b"close" in value.lower())
        for name, value in scope["headers"]
    )


async def _read_on(receive: Receive) -> None:
    """Reads what still comes, to the end of the body or to a limit of bytes or seconds."""
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return
