"""Straight: answers a prediction whose request is small, or came whole, without ASGI.

For a small image ASGI costs as much as decoding it: a cycle with its event, messages to receive and to send, headers
taken apart and put together again, a wrapper for each thing that holds for all requests. Here a head and a body become
an answer in one write. What is said and counted is the same: `Predict` and the table of problems say it. Whatever comes
otherwise goes by ASGI: there, much is decided before a body is read.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.predict import PATH, Predict
from app.api.predict_fast import SMALL_BODY, Steps
from app.http.deadlines import Deadlines
from app.http.disconnect import Departure, too_slow
from app.http.middleware import request_id_of
from app.http.problems import problem_bytes, problem_of
from app.telemetry.metrics import Metrics

_URL = PATH.encode()
_URL_WITH_QUERY = _URL + b"?"
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b"


class Straight:
    """What all connections of one server share.

    Args:
        upload_seconds: that the rest of a body may take.
        cors: pages of other origins may ask; they are answered by ASGI, where that is seen to.
    """

    def __init__(self, predict: Predict, metrics: Metrics, *, upload_seconds: float, cors: bool) -> None:
        self.predict = predict
        self.metrics = metrics
        self.uploads: Deadlines[Exchange] = Deadlines(upload_seconds, Exchange.be_late)
        self.answers: Deadlines[Steps] = Deadlines(predict.deadline_seconds, Steps.be_late)
        self._cors = cors
        self._headers: list[tuple[bytes, bytes]] = []
        self._lines = b""

    def takes(self, method: bytes, url: bytes, headers: Mapping[bytes, bytes]) -> bool:
        """Such a request, if it is small or all of it has come. `headers` by their names in lower case."""
        return (
            method == b"POST"
            and (url == _URL or url.startswith(_URL_WITH_QUERY))
            and b"transfer-encoding" not in headers
            and b"expect" not in headers
            and not (self._cors and b"origin" in headers)
        )

    def lines(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Those that every answer has; uvicorn makes a new list each second."""
        if headers is not self._headers:
            self._headers = headers
            self._lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        return self._lines


class Exchange(RequestResponseCycle):
    """One such request and its answer. For uvicorn a cycle like others, and the task that works for it, too."""

    response_started = False
    response_complete = False
    disconnected = False
    body: bytes = b""  # type: ignore[assignment]  # in pieces that are put together, where it comes in several
    message_event: Any

    def __init__(
        self,
        straight: Straight,
        protocol: HttpToolsProtocol,
        departure: Departure,
        *,
        headers: Mapping[bytes, bytes],
        url: bytes,
        keep_alive: bool,
    ) -> None:
        self.keep_alive = keep_alive
        self.message_event = _Unheard
        self._straight = straight
        self._protocol = protocol
        self._departure = departure
        self._headers = headers
        self._query_string = url[len(_URL_WITH_QUERY) :]
        self._began: float | None = None  # while something is done for it, since when
        self._steps: Steps | None = None

    @property
    def is_small(self) -> bool:
        """So small that nothing is lost by reading all of it first."""
        return int(self._headers[b"content-length"]) <= SMALL_BODY

    def begin(self) -> None:
        """Somebody waits for it now, though its body may be on its way still."""
        self._began = time.perf_counter()
        self._straight.metrics.began()
        self._protocol.tasks.add(self)  # type: ignore[arg-type]  # of which uvicorn asks `cancel` alone
        self._departure.concerns(self)

    def await_body(self) -> None:
        self._straight.uploads.begin(self)

    def answer(self) -> None:
        """Now that `body` is whole; if nobody has said yet that it took too long."""
        if self._began is None:
            return
        straight = self._straight
        straight.uploads.end(self)
        straight.metrics.upload_seconds(time.perf_counter() - self._began)
        steps = self._steps = Steps(
            straight.predict,
            straight.answers,
            headers=self._headers,
            query_string=self._query_string,
            body=self.body,
            ended=self._ended,
        )
        steps.begin()

    def be_late(self) -> None:
        """With its body."""
        self._ended(too_slow(self._straight.uploads.seconds))

    def client_left(self) -> None:
        self.disconnected = True
        self._end()

    def cancel(self, msg: object = None) -> None:  # noqa: ARG002  as of a task
        """The grace period is over; uvicorn goes through its tasks just now."""
        self._protocol.loop.call_soon(self._ended, asyncio.CancelledError())

    def _ended(self, outcome: bytes | BaseException) -> None:
        if self._began is None:  # the client has left just now
            return
        metrics, request_id = self._straight.metrics, request_id_of(self._headers)
        self._end()
        lines = self._straight.lines(self._protocol.server_state.default_headers)
        if isinstance(outcome, bytes):
            metrics.answered("POST", PATH, 200, None)
            if not self.keep_alive:
                lines += b"connection: close\r\n"
            self._send(_OK % (len(outcome), request_id, lines, outcome))
        else:
            problem = problem_of(outcome, request_id)
            metrics.answered("POST", PATH, problem.status, problem.code)
            self.keep_alive = self.keep_alive and not problem.closes
            self._send(problem_bytes(problem, request_id, lines, keep_alive=self.keep_alive))

    def _end(self) -> None:
        """Nothing is done for it any more."""
        if self._began is not None:
            self._began = None
            self._straight.uploads.end(self)
            if self._steps is not None:
                steps, self._steps = self._steps, None
                steps.drop()
            self._straight.metrics.ended()
            self._departure.concerns_no_more(self)
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
