"""Fast routes: requests that came whole, or are small, are answered below ASGI.

For a small image ASGI costs as much as decoding it: a cycle with its event, messages to receive and to send, headers
taken apart and put together again, a wrapper for each thing that holds for all requests. Here headers and a body become
an answer in one write. What is said and counted is the same: `guard` and the table of problems say it. Whatever comes
otherwise goes by ASGI: there, much is decided before a body is read.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.engine.interface import Cancelable
from app.http.connection_limits import LINGER_BYTES
from app.http.deadlines import Deadlines
from app.http.disconnect import DisconnectNotifier, too_slow
from app.http.guard import enter_request, leave_request
from app.http.problems import problem_bytes, problem_of
from app.telemetry.metrics import Metrics

_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b"


class FastRoute(Protocol):
    """A route that can answer from headers and a whole body, by calls: without a task and without a coroutine."""

    @property
    def methods(self) -> Sequence[str]:
        """Returns the methods that it answers, such as POST."""

    @property
    def path(self) -> str:
        """Returns the path that it answers, as it stands in the URL. Metrics count under it, too."""

    @property
    def small_body(self) -> int:
        """The size in bytes up to which a body is waited for here, if it did not come with its headers."""

    def matches(self, headers: Mapping[bytes, bytes]) -> bool:
        """Says whether it answers a request with these headers, by their names in lower case. If not, ASGI does.

        Asked only where method and path are its own, and the body has a length.
        """

    def check(self, body_bytes: int) -> None:
        """Refuses what cannot be answered now, before its body has come. Asked of bodies that are not small.

        Raises: Exception, for the client.
        """

    def start(
        self,
        headers: Mapping[bytes, bytes],
        query: bytes,
        body: bytes,
        done: Callable[[bytes | Exception], None],
    ) -> Cancelable:
        """Begins to answer a request.

        Args:
            headers: by their names in lower case.
            query: what stands behind the question mark of the URL.
            done: is called once, after `start` has returned: with the JSON document, or with what went wrong. It is not
                called after `cancel`.
        """


class FastRoutes:
    """The fast routes of one server, and what their exchanges share.

    Args:
        upload_seconds: the time that the rest of a body may take.
    """

    def __init__(self, routes: Iterable[FastRoute], metrics: Metrics, *, upload_seconds: float) -> None:
        self.metrics = metrics
        self.uploads: Deadlines[Exchange] = Deadlines(upload_seconds, Exchange.be_late)
        self._routes = {
            (method.encode(), route.path.encode()): (route, method) for route in routes for method in route.methods
        }
        self._headers: list[tuple[bytes, bytes]] = []
        self._lines = b""

    def exchange(self, protocol: HttpToolsProtocol, notifier: DisconnectNotifier) -> "Exchange | None":
        """The exchange for the request whose headers the protocol has just read; None if it must go by ASGI."""
        parser = protocol.parser
        path, _, query = protocol.url.partition(b"?")
        found = self._routes.get((parser.get_method(), path))
        if found is None or parser.get_http_version() != "1.1":
            return None
        route, method = found
        headers = dict(protocol.headers)
        if b"transfer-encoding" in headers or b"expect" in headers or not route.matches(headers):
            return None
        return Exchange(self, route, protocol, notifier, method=method, headers=headers, query=query)

    def close(self) -> None:
        """Lets every request go by ASGI from now on."""
        self._routes.clear()

    def lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Returns the header lines that every answer has. uvicorn makes a new list of them each second."""
        if headers is not self._headers:
            self._headers = headers
            self._lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._lines


class Exchange(RequestResponseCycle):
    """One such request and its answer. For uvicorn it is a cycle like others, and the task that works for it, too."""

    response_started = False
    response_complete = False
    disconnected = False
    body: bytes = b""  # type: ignore[assignment]  # in pieces that are put together, where it comes in several
    message_event: Any

    def __init__(
        self,
        shared: FastRoutes,
        route: FastRoute,
        protocol: HttpToolsProtocol,
        notifier: DisconnectNotifier,
        *,
        method: str,
        headers: Mapping[bytes, bytes],
        query: bytes,
    ) -> None:
        self.keep_alive = protocol.parser.should_keep_alive()
        self.message_event = _Unheard
        self._shared = shared
        self._route = route
        self._method = method
        self._protocol = protocol
        self._notifier = notifier
        self._headers = headers
        self._size = int(headers.get(b"content-length", 0))
        self._query = query
        self._request_id = b""
        self._began: float | None = None  # when, by perf_counter, while something is done for it
        self._work: Cancelable | None = None

    @property
    def is_small(self) -> bool:
        """Says whether its body is so small that nothing is lost by reading all of it first."""
        return self._size <= self._route.small_body

    def refusal(self) -> Exception | None:
        """Returns why the request is refused before its body has come; None if that is waited for.

        Under overload, most of the time of a refused photo would go into reading it. The HTTP server skips the body. It
        cannot do so where the connection is to be closed, and a long body is not worth it: those are left to ASGI.
        """
        if self.is_small or self._size > LINGER_BYTES or not self.keep_alive:
            return None
        try:
            self._route.check(self._size)
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told
            return error
        return None

    def begin(self) -> None:
        """Counts the request in. Its body may still be on its way."""
        self._began = time.perf_counter()
        self._request_id = enter_request(self._headers, self._shared.metrics)
        self._protocol.tasks.add(self)  # type: ignore[arg-type]  # of which uvicorn asks `cancel` alone
        self._notifier.add_listener(self)

    def await_body(self) -> None:
        """Sets the time within which the rest of the body must come."""
        self._shared.uploads.begin(self)

    def answer(self) -> None:
        """Starts the route, now that `body` is whole; does nothing if the exchange has ended."""
        if self._began is None:
            return
        self._shared.uploads.end(self)
        self._shared.metrics.upload_seconds(time.perf_counter() - self._began)
        self._work = self._route.start(self._headers, self._query, self.body, self._done)

    def refuse(self, error: Exception) -> None:
        """Ends the exchange with what was wrong with it before its body came."""
        self._done(error)

    def be_late(self) -> None:
        """Ends the exchange: its body did not come in time."""
        self._done(too_slow(self._shared.uploads.seconds))

    def client_disconnected(self) -> None:
        """Ends the exchange without an answer."""
        self.disconnected = True
        self._end()

    def cancel(self, msg: object = None) -> None:  # noqa: ARG002  as of a task
        """Ends the exchange as shut down: the grace period is over. uvicorn goes through its tasks just now."""
        self._protocol.loop.call_soon(self._done, asyncio.CancelledError())

    def _done(self, outcome: bytes | BaseException) -> None:
        if self._began is None:  # the client has left just now
            return
        if isinstance(outcome, bytes):
            self._work = None  # it is through
        self._end()
        metrics, request_id, route = self._shared.metrics, self._request_id, self._route
        lines = self._shared.lines(self._protocol.server_state.default_headers)
        if isinstance(outcome, bytes):
            metrics.answered(self._method, route.path, 200, None)
            if not self.keep_alive:
                lines += b"connection: close\r\n"
            self._send(_OK % (len(outcome), request_id, lines, outcome))
        else:
            problem = problem_of(outcome, request_id)
            metrics.answered(self._method, route.path, problem.status, problem.code)
            self.keep_alive = self.keep_alive and not problem.closes
            self._send(problem_bytes(problem, request_id, lines, keep_alive=self.keep_alive))

    def _end(self) -> None:
        """Nothing is done for it any more."""
        if self._began is not None:
            self._began = None
            self._shared.uploads.end(self)
            if self._work is not None:
                work, self._work = self._work, None
                work.cancel()
            leave_request(self._shared.metrics)
            self._notifier.remove_listener(self)
            self._protocol.tasks.discard(self)

    def _send(self, response: bytes) -> None:
        protocol = self._protocol
        self.response_complete = True
        protocol.transport.write(response)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class _Unheard:
    """An event that nobody waits for: there are no messages."""

    @staticmethod
    def set() -> None:
        pass
