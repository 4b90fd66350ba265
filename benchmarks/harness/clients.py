"""One process of HTTP clients that send photos, in a closed loop or at a fixed rate.

    python -m benchmarks.harness.clients PLAN        a Plan as JSON

In a closed loop, each client sends its next request as soon as the last one is answered. At a rate, requests are due
at even distances, whatever the server does. A request that finds no free client waits for one, and its time runs from
when it was due. (wrk knows only the closed loop.) A request may be a millisecond late: so often does the timer tick.
Several such processes begin together, see `benchmarks.harness.barrier`.
"""

import asyncio
import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.harness.barrier import wait_for_the_others
from benchmarks.harness.load import body_of, request_of

TICK = 0.001  # seconds; for a shorter wait, uvloop would not wait at all but take a whole core
PATIENCE = 10.0  # seconds after the end, within which every request has to be answered


@dataclass(frozen=True, slots=True)
class Plan:
    """What one process of clients does.

    Args:
        port: of the server, on the loopback address.
        photos: a folder, whose files are sent in turns.
        clients: how many connections there are.
        rate: requests per second. None is a closed loop.
        warm_up: seconds in which the clients already send, and nothing is measured.
        seconds: how long is measured after that.
    """

    port: int
    photos: str
    clients: int
    rate: float | None
    warm_up: float
    seconds: float


@dataclass(slots=True)
class Outcome:
    """What one process of clients has seen.

    Args:
        measured: how many answers with status 200 came within the measured seconds.
        latencies: milliseconds of the requests with status 200 that were sent, or due, within the measured seconds.
        refusals: the same of the requests with status 503.
        answered: how many answers came in all, those of the warm-up and of other statuses too.
        failed: the number of failed requests by reason: a status, "lost" with its connection, or "not answered".
        cpu: the part of a core that this process used. Near 1, the clients are the limit, and not the server.
    """

    measured: int = 0
    latencies: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    answered: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    cpu: float = 0.0


class Clients:
    """Gives each request that is due to a client that is free. Times are those of `time.monotonic`."""

    def __init__(self, plan: Plan, requests: Iterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self.outcome = Outcome()
        self._plan = plan
        self._requests = requests
        self._loop = loop
        self._free: deque[Client] = deque()  # the one that was idle longest is next, so that all front-ends get some
        self._due: deque[float] = deque()  # the times of those requests that found no free client
        self._at_work = 0
        self._begin = self._end = 0.0
        self._ending = False
        self._over = asyncio.Event()

    async def run(self) -> Outcome:
        """Connects, waits for the other processes, sends for as long as the plan says, and waits for the answers."""
        connecting = [
            self._loop.create_connection(lambda: Client(self), "127.0.0.1", self._plan.port)
            for _ in range(self._plan.clients)
        ]
        self._free.extend(client for _, client in await asyncio.gather(*connecting))
        everyone = list(self._free)
        wait_for_the_others()
        cpu = -time.process_time()
        started = time.monotonic()
        self._begin = started + self._plan.warm_up
        self._end = self._begin + self._plan.seconds
        if self._plan.rate is None:
            while self._free:
                self._send(self._free.popleft(), started)
        else:
            await self._keep_to(self._plan.rate, started)
        await asyncio.sleep(max(0, self._end - time.monotonic()))
        self._ending = True  # nothing becomes due any more
        if self._at_work:
            self._loop.call_later(PATIENCE, self._over.set)
            await self._over.wait()
        self._fail("not answered", self._at_work + len(self._due))
        self.outcome.cpu = (cpu + time.process_time()) / (time.monotonic() - started)
        for client in everyone:
            client.hang_up()
        return self.outcome

    def answered(self, client: "Client", since: float, status: int) -> None:
        """Is called by a client whose request has its answer; `since` is when the request was sent, or due."""
        now, outcome = time.monotonic(), self.outcome
        self._at_work -= 1
        outcome.answered += 1
        if status != 200:
            self._fail(f"{status}", 1)
        else:
            outcome.measured += self._begin <= now < self._end
        if status in (200, 503) and self._begin <= since < self._end:
            times = outcome.latencies if status == 200 else outcome.refusals
            times.append(round((now - since) * 1000, 3))
        if self._due:
            self._send(client, self._due.popleft())
        elif self._plan.rate is None and now < self._end:
            self._send(client, now)
        else:
            self._free.append(client)
        self._end_if_idle()

    def lost(self, client: "Client", *, at_work: bool) -> None:
        """Is called by a client whose connection is lost.

        The client does not connect again, so that a server that refuses connections is not flooded.
        """
        if at_work:
            self._at_work -= 1
            self._fail("lost", 1)
            self._end_if_idle()
        elif client in self._free:
            self._free.remove(client)

    async def _keep_to(self, rate: float, started: float) -> None:
        """Sends requests as they become due, or keeps them for the next free client, until the end."""
        number = 0
        while (due := started + number / rate) < self._end:
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(max(TICK, wait))
                continue
            number += 1
            if self._free:
                self._send(self._free.popleft(), due)
            else:
                self._due.append(due)

    def _end_if_idle(self) -> None:
        if self._ending and not self._at_work:
            self._over.set()

    def _fail(self, why: str, number: int) -> None:
        if number:
            self.outcome.failed[why] = self.outcome.failed.get(why, 0) + number

    def _send(self, client: "Client", since: float) -> None:
        self._at_work += 1
        client.send(next(self._requests), since)


class Client(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._since: float | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def send(self, request: bytes, since: float) -> None:
        self._since = since
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(head):
            return
        since, self._since, self._received = self._since, None, b""
        if since is not None:
            self._clients.answered(self, since, int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  whatever the reason
        at_work, self._since = self._since is not None, None
        self._clients.lost(self, at_work=at_work)

    def hang_up(self) -> None:
        self._since = None
        self._transport.abort()


def _content_length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


async def _outcome(plan: Plan, requests: Sequence[bytes]) -> Outcome:
    return await Clients(plan, itertools.cycle(requests), asyncio.get_running_loop()).run()


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    requests = [request_of(body_of([path.read_bytes()], form=True)) for path in sorted(Path(plan.photos).iterdir())]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(_outcome(plan, requests)))))


if __name__ == "__main__":
    main()
