"""Attendance: ends a request whose body comes too slowly, and one whose client has hung up."""

import asyncio
from types import TracebackType
from typing import Protocol, Self

from starlette.types import Scope

from app.http.problems import Problem


class ClientDisconnect(Exception):
    """The client has hung up."""


class Attendant(Protocol):
    """Who works for a client."""

    def client_left(self) -> None: ...


class Departure:
    """Of the client of one connection: who attends to its requests is told. In the scope's state, as `departure`."""

    __slots__ = ("_attending",)

    def __init__(self) -> None:
        self._attending: dict[Attendant, None] = {}

    def concerns(self, attendant: Attendant) -> None:
        self._attending[attendant] = None

    def concerns_no_more(self, attendant: Attendant) -> None:
        del self._attending[attendant]

    def happen(self) -> None:
        for attendant in list(self._attending):
            attendant.client_left()


class Attendance:
    """Around the work for one request: nothing is waited for too long, and nothing is computed for nobody.

    A task that waits for ASGI's `http.disconnect` would cost as much as decoding a small image.

    Raises: Problem (upload_too_slow), ClientDisconnect.
    """

    __slots__ = ("_departure", "_reason", "_request", "_seconds", "_timer")

    def __init__(self, scope: Scope, *, upload_seconds: float) -> None:
        self._departure: Departure = scope["state"]["departure"]
        self._seconds = upload_seconds
        self._reason: Exception | None = None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._request = asyncio.current_task(loop)
        self._timer = loop.call_later(self._seconds, self._be_late)
        self._departure.concerns(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._departure.concerns_no_more(self)
        if self._reason is not None and kind is asyncio.CancelledError and self._request is not None:
            self._request.uncancel()
            raise self._reason from error

    def uploaded(self) -> None:
        """The body is there; from now on the client only waits."""
        self._timer.cancel()

    def client_left(self) -> None:
        self._end(ClientDisconnect())

    def _be_late(self) -> None:
        self._end(too_slow(self._seconds))

    def _end(self, reason: Exception) -> None:
        self._reason = reason
        if self._request is not None:
            self._request.cancel()


def too_slow(seconds: float) -> Problem:
    return Problem("upload_too_slow", f"the body did not come within {seconds:g} seconds")
