"""uvicorn's HTTP protocol with the limits that it lacks, and with fast routes that are answered below ASGI."""

import asyncio
import logging
import re
import select
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.http.connection_limits import LINGER_SECONDS, ConnectionLimits, Entry, OpenConnections, Rejection
from app.http.disconnect import NOTIFIER, DisconnectNotifier
from app.http.exchange import Exchange, FastRoutes
from app.http.guard import new_request_id
from app.http.half_closed import HalfClosed, HalfClosedTransport
from app.http.problems import Problem, problem_bytes
from app.telemetry.log import event
from app.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

# So long a new connection is left open, when the port has been closed, for the request that it was made for. A busy
# machine may need it to send on the new connection, or a network in which the first packet is lost.
_FIRST_REQUEST_SECONDS = 2.0
# After so long the loop has read what had come before. uvloop runs the timers that are due before it reads.
_UNTIL_READ_SECONDS = 0.001

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


def limited_protocol(
    *, header_seconds: float, max_connections: int, metrics: Metrics, fast_routes: FastRoutes
) -> "type[LimitedProtocol]":
    """Returns the protocol of one server: a class, because uvicorn makes one object of it for each connection.

    Args:
        header_seconds: the time within which all headers of a request must have come.
        max_connections: how many may be open at once.
        metrics: count what is rejected.
        fast_routes: answer what they match, before ASGI sees it.
    """
    return type(
        "Protocol",
        (LimitedProtocol,),
        {
            "header_seconds": header_seconds,
            "open_connections": OpenConnections(max_connections),
            "half_closed": HalfClosed(),
            "metrics": metrics,
            "fast_routes": fast_routes,
        },
    )


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `ConnectionLimits` and `FastRoutes` decide; this class has the socket and the timer.

    uvicorn calls its public methods on the event loop: those of an `asyncio.Protocol`, and those of httptools' parser.
    """

    header_seconds: float
    open_connections: OpenConnections
    half_closed: HalfClosed
    metrics: Metrics
    fast_routes: FastRoutes
    draining = False  # of the whole server: set on the class
    _timer: asyncio.TimerHandle | None = None
    _last_cycle: RequestResponseCycle | None = None  # the last request whose answer was begun
    _exchange: Exchange | None = None  # whose body is coming
    _ahead: HalfClosedTransport | None = None  # what is written to, if the client sends no more
    _made_last: RequestResponseCycle | None = None  # the connection ends with its answer, because the server stops

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._limits = ConnectionLimits()
        self._notifier = DisconnectNotifier()
        super().connection_made(transport)
        self.metrics.connected()
        self._entry = self.open_connections.enter()
        if self._entry is Entry.ACCEPTED:
            self._await_headers()
        elif self._entry is Entry.REJECTED:
            limit = self.open_connections.limit
            self._reject(Problem("overloaded", f"as many connections are open as may be ({limit:,})"))
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open_connections.leave(self._entry)
        self.metrics.disconnected()
        self._stop_timer()
        if self._ahead is not None:
            self._ahead.stop()
        if self._last_cycle is not None:  # uvicorn tells only the newest
            self._last_cycle.disconnected = True
        super().connection_lost(exc)
        self._notifier.notify()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's closes in any case
        """The client sends no more. Returns whether the connection stays open, because it may wait for an answer.

        It does if all that it sent came whole. Then what it has asked for is answered, and the connection closed. Who
        stops within a request has left.
        """
        cycle = self._last_cycle
        waits = cycle is not None and not cycle.response_complete and not cycle.disconnected
        if cycle is None or not waits or self._limits.place != "between":
            return False
        self.cycle.keep_alive = False  # that of the last request
        if cycle.response_started or self.transport.get_write_buffer_size():
            return True
        self._ahead = HalfClosedTransport(self.transport, self.loop, self.half_closed)
        if not self._ahead.begin():
            return False
        transport: Any = self._ahead
        self.transport = cycle.transport = transport
        for queued, _ in self.pipeline:
            queued.transport = transport
        return True

    def data_received(self, data: bytes) -> None:
        limits = self._limits
        if not limits.rejected:
            super().data_received(data if limits.place == "body" else _without_upgrade(data))
            if self._exchange is not None and self._exchange is not self.cycle:
                self._await_the_rest(self._exchange)
        if limits.rejected or limits.place == "headers":
            problem = limits.received(len(data))
            if problem is not None:
                self._reject(problem)
            elif limits.exhausted:
                self.transport.close()
        # The rest of the headers, of a body that nobody wants, or line ends between requests.
        if self._timer is None and limits.timed(answering=self._is_answering()):
            self._await_headers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][NOTIFIER] = self._notifier
        self._limits.message_begun()

    def on_headers_complete(self) -> None:
        self._stop_timer()
        exchange = None
        if not self._is_answering() and not self.flow.write_paused:
            exchange = self._exchange = self.fast_routes.exchange(self, self._notifier)
        if exchange is None:
            super().on_headers_complete()
            if self.draining:
                self._end_with(self.cycle)
            if len(self.pipeline) == 1:  # uvicorn does not read on, which would hide a hang-up
                self.loop.call_soon(self.flow.resume_reading)
        elif (refusal := exchange.refusal()) is not None:
            self._begin(exchange)
            self._exchange = None
            exchange.refuse(refusal)
        self._limits.headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._exchange is None:
            super().on_body(body)
        else:
            self._exchange.body += body

    def on_message_complete(self) -> None:
        self._limits.message_complete()
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            super().on_message_complete()
            return
        if exchange is not self.cycle:
            self._begin(exchange)
        exchange.answer()

    def drain(self) -> None:
        """Ends the connection with the answer that is due, if there is one: the server stops soon."""
        if self._is_answering():
            self._end_with(self.cycle)

    def shutdown(self) -> None:
        """Ends the connection as soon as nothing is lost by that. Called once the port is closed."""
        if self._is_answering():
            self._end_with(self.cycle)
        elif self.cycle is not None and self._limits.place == "between" and not _has_sent(self.transport):
            self.transport.close()
        else:  # a request is coming, or has come just now; the first one of a new connection is to be expected
            self.loop.call_later(_FIRST_REQUEST_SECONDS, self._close_if_idle)

    def timeout_keep_alive_handler(self) -> None:
        """Closes the connection, on which nothing has come for long. What has come just now is read and answered."""
        if not self.transport.is_closing() and not _has_sent(self.transport):
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._reject(Problem("bad_request", msg))

    def _begin(self, exchange: Exchange) -> None:
        self.cycle = self._last_cycle = exchange
        exchange.begin()

    def _await_the_rest(self, exchange: Exchange) -> None:
        """The body did not come whole with the headers. A large one goes by ASGI."""
        if exchange.is_small:
            self._begin(exchange)
            exchange.await_body()
        else:
            self._exchange = None
            super().on_headers_complete()
            if exchange.body:
                super().on_body(exchange.body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._last_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def _end_with(self, cycle: RequestResponseCycle) -> None:
        """Lets the answer of the newest request say that it is the last on its connection."""
        if self._made_last is not None and not self._made_last.response_started:
            self._made_last.keep_alive = True  # another request has come behind it
        self._made_last = None
        if cycle.keep_alive and not cycle.response_started:
            cycle.keep_alive = False
            self._made_last = cycle

    def _close_if_idle(self) -> None:
        if not self._is_answering() and self._limits.place == "between":
            self.timeout_keep_alive_handler()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_headers(self) -> None:
        self._timer = self.loop.call_later(self.header_seconds, self._on_late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_late(self) -> None:
        """Judges the client by all that has come, also where the loop was held up and has not read it yet."""
        if _has_sent(self.transport):
            self._timer = self.loop.call_later(_UNTIL_READ_SECONDS, self._be_late)
        else:
            self._be_late()

    def _be_late(self) -> None:
        problem = self._limits.late(self.header_seconds)
        if problem is None:
            self.transport.close()
        else:
            self._reject(problem)

    def _reject(self, problem: Problem) -> None:
        """Answers outside of ASGI, where there is no request yet; then reads on a little before it closes."""
        self._stop_timer()
        self.metrics.answered("none", "none", problem.status, problem.code)
        event(logger, "refused a connection", level=logging.DEBUG, client=self.client, problem=problem.code)
        answering = self._is_answering()
        rejection = self._limits.reject(
            answering=answering,
            started=answering and self.cycle.response_started,
            queued=bool(self.pipeline),
        )
        if rejection is Rejection.AFTER_ANSWER:
            self.cycle.keep_alive = False
        elif rejection is Rejection.CLOSE:
            self.transport.close()
        else:
            if answering:
                self.cycle.disconnected = True  # to the application it looks as if the client had hung up
                self.cycle.message_event.set()
                self._notifier.notify()
            self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)
            self.transport.write(problem_bytes(problem, new_request_id(), b"", keep_alive=False))
            self.transport.write_eof()


def _has_sent(transport: asyncio.Transport) -> bool:
    """Says whether the client has sent something that was not read yet, or has closed the connection."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _without_upgrade(data: bytes) -> bytes:
    """Hides the offer of another protocol (as Java's HTTP client makes it) from the parser.

    The parser would take the body for that protocol (https://github.com/Kludex/uvicorn/issues/2722). A name that is cut
    in two goes through.
    """
    end = data.find(b"\r\n\r\n")  # what comes after it may be a photo, in which a search would take long
    end = len(data) if end < 0 else end
    if data.find(b"pgrade:", 0, end) < 0 and data.find(b"PGRADE:", 0, end) < 0:  # far quicker than to ignore case
        return data
    return _UPGRADE.sub(b"\r\nx-upgrade:", data[:end]) + data[end:]
