"""Clients that hang up, and bodies that come too slowly: both end the work for a request at once.

Where our own protocol serves, it knows first that a client has gone, and tells. A task that waits for ASGI's
`http.disconnect` would cost as much as decoding a small image. Under another ASGI server there is no other way.
"""

import asyncio
from types import TracebackType
from typing import Protocol, Self

from starlette.types import Receive, Scope

from app.http.problems import Problem

# Under this name our protocol puts its notifier into the state of each scope.
NOTIFIER = "disconnect_notifier"


class ClientDisconnect(Exception):
    """The client has hung up."""


class DisconnectListener(Protocol):
    """Something that works for a client."""

    def client_disconnected(self) -> None:
        """Ends the work. Called on the event loop."""


class DisconnectNotifier:
    """Tells the listeners of one connection that its client has hung up."""

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: dict[DisconnectListener, None] = {}

    def add_listener(self, listener: DisconnectListener) -> None:
        """Begins to tell `listener`."""
        self._listeners[listener] = None

    def remove_listener(self, listener: DisconnectListener) -> None:
        """Ends what `add_listener` began."""
        del self._listeners[listener]

    def notify(self) -> None:
        """Tells all listeners of now."""
        for listener in list(self._listeners):
            listener.client_disconnected()


class CancelOnDisconnect:
    """Around the work of a task for one request: nothing is waited for too long, and nothing is computed for nobody.

    Args:
        scope: of the request.
        receive: of the request; asked only after the body was read, and only where the scope has no notifier.
        upload_seconds: the time that the body may take.

    Raises: Problem (upload_too_slow), ClientDisconnect.
    """

    __slots__ = ("_notifier", "_reason", "_receive", "_seconds", "_task", "_timer", "_waiting")

    def __init__(self, scope: Scope, receive: Receive, *, upload_seconds: float) -> None:
        self._notifier: DisconnectNotifier | None = scope["state"].get(NOTIFIER)
        self._receive = receive
        self._seconds = upload_seconds
        self._reason: Exception | None = None
        self._waiting: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        self._timer = loop.call_later(self._seconds, self._be_late)
        if self._notifier is not None:
            self._notifier.add_listener(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._notifier is not None:
            self._notifier.remove_listener(self)
        if self._waiting is not None:
            self._waiting.cancel()
        if self._reason is not None and kind is asyncio.CancelledError and self._task is not None:
            self._task.uncancel()
            raise self._reason from error

    def uploaded(self) -> None:
        """Says that the body is there: from now on the client only waits."""
        self._timer.cancel()
        if self._notifier is None:
            self._waiting = asyncio.get_running_loop().create_task(self._wait_for_disconnect())

    def client_disconnected(self) -> None:
        """Ends the work with `ClientDisconnect`."""
        self._end(ClientDisconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.client_disconnected()

    def _be_late(self) -> None:
        self._end(too_slow(self._seconds))

    def _end(self, reason: Exception) -> None:
        if self._reason is None and self._task is not None:
            self._reason = reason
            self._task.cancel()


def too_slow(seconds: float) -> Problem:
    """The problem of a body that did not come within so many seconds."""
    return Problem("upload_too_slow", f"the body did not come within {seconds:g} seconds")
