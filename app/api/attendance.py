"""Attendance: ends a request whose body comes too slowly, and one whose client has hung up."""

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

from app.api.errors import Problem
from app.api.upload import ClientLeft

# A request that is answered sooner never notices that its client hung up; watching each one would cost more.
_LOOK_SECONDS = 0.05


class Attendance:
    """Around the work for one request: nothing is waited for too long, and nothing is computed for nobody.

    One timer looks after both, so that the many quick requests pay neither for a task nor for a second timer.

    Raises: Problem (upload_too_slow), ClientLeft.
    """

    __slots__ = ("_loop", "_reason", "_receive", "_request", "_seconds", "_timer", "_until", "_uploading", "_watching")

    def __init__(self, receive: Receive, *, upload_seconds: float) -> None:
        self._receive = receive
        self._seconds = upload_seconds
        self._uploading = True
        self._reason: Exception | None = None
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._loop = loop = asyncio.get_running_loop()
        self._request = asyncio.current_task(loop)
        self._until = loop.time() + self._seconds
        self._timer = loop.call_later(min(self._seconds, _LOOK_SECONDS), self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._reason is not None and kind is asyncio.CancelledError and self._request is not None:
            self._request.uncancel()
            raise self._reason from error

    def uploaded(self) -> None:
        """The body is there; from now on the client only waits."""
        self._uploading = False

    def _look(self) -> None:
        if not self._uploading:
            self._watching = self._loop.create_task(self._until_it_leaves())
            return
        remaining = self._until - self._loop.time()
        if remaining <= 0:
            self._end(Problem("upload_too_slow", f"the body did not come within {self._seconds:g} seconds"))
        else:
            self._timer = self._loop.call_later(min(remaining, _LOOK_SECONDS), self._look)

    async def _until_it_leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end(ClientLeft())

    def _end(self, reason: Exception) -> None:
        self._reason = reason
        if self._request is not None:
            self._request.cancel()
