"""The clients of a benchmark: whose time is counted, and from when."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import pytest

from benchmarks.harness import clients
from benchmarks.harness.clients import Clients, Outcome, Plan

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(20)]

REQUEST = b"POST /predict HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
SECONDS = 0.1
RATE = 300
DUE = 30  # in so many seconds
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@dataclass(slots=True)
class Answers:
    """A server that always gives the same answer.

    Args:
        piece: how many bytes are sent at once.
        first_takes: the seconds before the first answer.
    """

    answer: bytes = OK
    piece: int = 1000
    first_takes: float = 0.0
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readexactly(len(REQUEST)):
                await asyncio.sleep(self.first_takes)
                self.first_takes = 0.0
                for start in range(0, len(self.answer), self.piece):
                    writer.write(self.answer[start : start + self.piece])
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def _serving(answers: Answers) -> AsyncIterator[Answers]:
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
    answers.port = server.sockets[0].getsockname()[1]
    try:
        yield answers
    finally:
        server.close()


@pytest.fixture(autouse=True)
def _begins_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "wait_for_the_others", lambda: None)


async def _outcome(server: Answers, *, number: int = 4, rate: float | None = None, warm_up: float = 0.0) -> Outcome:
    plan = Plan(port=server.port, photos="", clients=number, rate=rate, warm_up=warm_up, seconds=SECONDS)
    return await Clients(plan, itertools.repeat(REQUEST), asyncio.get_running_loop()).run()


async def test_in_a_closed_loop_an_answer_leads_to_the_next_request() -> None:
    async with _serving(Answers(piece=7)) as server:
        outcome = await _outcome(server)
    assert outcome.answered >= outcome.measured > 4
    assert not outcome.failed


async def test_at_a_rate_as_many_are_sent_as_are_due() -> None:
    async with _serving(Answers()) as server:
        outcome = await _outcome(server, rate=RATE)
    assert outcome.answered == len(outcome.latencies) == DUE
    assert not outcome.failed


async def test_a_request_that_waits_for_a_free_client_counts_from_when_it_was_due() -> None:
    async with _serving(Answers(first_takes=0.08)) as server:
        outcome = await _outcome(server, number=1, rate=RATE)
    assert outcome.answered == DUE
    assert max(outcome.latencies) > 79  # a loop's timers may come a little early
    assert sum(latency > 20 for latency in outcome.latencies) >= 10  # not that of the one alone that was on its way


async def test_what_is_answered_after_the_end_counts_with_its_whole_time() -> None:
    async with _serving(Answers(first_takes=0.15)) as server:
        outcome = await _outcome(server, rate=RATE)
    assert outcome.answered == len(outcome.latencies) == DUE
    assert max(outcome.latencies) > 149
    assert not outcome.failed


async def test_refusals_are_failures_and_what_was_sent_before_the_measured_seconds_has_no_latency() -> None:
    async with _serving(Answers(BUSY)) as server:
        refused = await _outcome(server, rate=RATE)
    said = json.loads(json.dumps(asdict(refused)))  # as its process says it
    assert (said["failed"], said["measured"], said["latencies"]) == ({"503": DUE}, 0, [])
    async with _serving(Answers()) as server:
        outcome = await _outcome(server, rate=RATE, warm_up=0.05)
    assert outcome.answered == pytest.approx(15 + DUE, abs=1)  # the last one is due in the moment that ends it all
    assert outcome.answered - len(outcome.latencies) == 15
