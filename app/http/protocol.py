"""uvicorn's HTTP protocol with what it leaves out: bounds for what comes outside of a request that is being answered.

Without them a client that sends a byte now and then holds a connection for ever, and one whose headers never end
takes memory without bound.
"""

import asyncio
import logging
import re
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.http.disconnect import Departure
from app.http.exchange import Exchange, Straight
from app.http.middleware import LINGER_BYTES, LINGER_SECONDS, new_request_id
from app.http.problems import Problem, problem_bytes
from app.telemetry.log import event
from app.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 64 * 1024
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


def bounded(
    *, head_seconds: float, max_connections: int, metrics: Metrics, straight: Straight | None
) -> type[HttpToolsProtocol]:
    """The protocol of one server with these bounds; what it refuses is counted.

    A class, because uvicorn makes one object of it for each connection.

    Args:
        straight: answers what it takes, before ASGI sees it.
    """
    return type(
        "Protocol",
        (_Bounded,),
        {
            "head_seconds": head_seconds,
            "max_connections": max_connections,
            "turned_away": set(),
            "counts": metrics,
            "straight": straight,
        },
    )


class _Bounded(HttpToolsProtocol):
    head_seconds: float
    max_connections: int
    turned_away: set["_Bounded"]  # those that are told that there are too many, until they are closed
    counts: Metrics
    straight: Straight | None
    _place: Literal["between", "head", "body"] = "between"  # what the next byte belongs to
    _counted = 0  # bytes of this head, or of what comes after a refusal
    _timer: asyncio.TimerHandle | None = None
    _refused = False
    _begun: RequestResponseCycle | None = None  # the last request that is, or was, being answered
    _exchange: Exchange | None = None  # whose body is coming

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._departure = Departure()
        super().connection_made(transport)
        if len(self.connections) - len(self.turned_away) <= self.max_connections:
            self._await_head()
        elif len(self.turned_away) < self.max_connections:
            self.turned_away.add(self)
            self._refuse(Problem("overloaded", f"as many connections are open as may be ({self.max_connections:,})"))
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.turned_away.discard(self)
        self._stop_counting()
        if self._begun is not None:  # uvicorn tells only the newest
            self._begun.disconnected = True
        super().connection_lost(exc)
        self._departure.happen()

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data if self._place == "body" else _without_upgrade(data))
            if self._exchange is not None and self._exchange is not self.cycle:
                self._await_the_rest(self._exchange)
        if self._refused or self._place == "head":
            self._count(len(data))
        if self._timer is None and (self._place == "head" or not self._is_answering()):
            self._await_head()  # the rest of a head, of a body that nobody wants, or line ends between requests

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["departure"] = self._departure
        self._place = "head"

    def on_headers_complete(self) -> None:
        self._stop_counting()
        headers = dict(self.headers)
        if (
            self.straight is None
            or not self.straight.takes(self.parser.get_method(), self.url, headers)
            or self._is_answering()
            or self.flow.write_paused
            or self.parser.get_http_version() != "1.1"
        ):
            super().on_headers_complete()
            self._place = "body"
            if len(self.pipeline) == 1:  # uvicorn does not read on, which would hide a hang-up
                self.loop.call_soon(self.flow.resume_reading)
            return
        self._place = "body"
        self._exchange = Exchange(
            self.straight,
            self,
            self._departure,
            headers=headers,
            url=self.url,
            keep_alive=self.parser.should_keep_alive(),
        )

    def on_body(self, body: bytes) -> None:
        if self._exchange is None:
            super().on_body(body)
        else:
            self._exchange.body += body

    def on_message_complete(self) -> None:
        self._place = "between"
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            super().on_message_complete()
            return
        if exchange is not self.cycle:
            self._begin(exchange)
        exchange.answer()

    def _begin(self, exchange: Exchange) -> None:
        self.cycle = self._begun = exchange
        exchange.begin()

    def _await_the_rest(self, exchange: Exchange) -> None:
        """Of a body that did not come with its head."""
        if exchange.is_small:
            self._begin(exchange)
            exchange.await_body()
        else:
            self._exchange = None
            super().on_headers_complete()
            if exchange.body:
                super().on_body(exchange.body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._begun = cycle
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        self._refuse(Problem("bad_request", msg))

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _stop_counting(self) -> None:
        self._counted = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        if self._place == "head":
            self._refuse(Problem("upload_too_slow", f"the head did not come within {self.head_seconds:g} seconds"))
        else:  # nothing came of it, so nobody waits for an answer
            self.transport.close()

    def _count(self, received: int) -> None:
        self._counted += received
        if self._refused and self._counted > LINGER_BYTES:
            self.transport.close()
        elif not self._refused and self._counted > _MAX_HEAD_BYTES:
            self._refuse(Problem("header_too_large", f"a head may have {_MAX_HEAD_BYTES:,} bytes at the most"))

    def _refuse(self, problem: Problem) -> None:
        """Answers outside of ASGI, where there is no request yet; then reads on a little before it closes."""
        self._stop_counting()
        self._refused = True
        self.counts.answered("none", "none", problem.status, problem.code)
        event(logger, "refused a connection", level=logging.DEBUG, client=self.client, problem=problem.code)
        answering, in_body = self._is_answering(), self._place == "body"
        if answering and not in_body:
            self.cycle.keep_alive = False  # the request before this one is sound: its answer comes, and is the last
        elif self.pipeline or (in_body and (not answering or self.cycle.response_started)):
            self.transport.close()  # another answer would be taken for that of another request
        else:
            if answering:
                self.cycle.disconnected = True  # to the application it looks as if the client had hung up
                self.cycle.message_event.set()
                self._departure.happen()
            self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)
            self.transport.write(problem_bytes(problem, new_request_id(), b"", keep_alive=False))
            self.transport.write_eof()


def _without_upgrade(data: bytes) -> bytes:
    """Hides the offer of another protocol (as Java's HTTP client makes it) from the parser, which would take the body
    for that protocol (https://github.com/Kludex/uvicorn/issues/2722). A name that is cut in two goes through."""
    if b"pgrade:" not in data and b"PGRADE:" not in data:  # far quicker than a pattern that ignores case
        return data
    head, end, body = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrade:", head) + end + body
