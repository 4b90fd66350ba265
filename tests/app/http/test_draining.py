"""The last seconds of a server: what is sent in them is answered, and then the port is closed without a reset."""

import asyncio
import select
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from app.http.draining import accept_all, drained
from app.http.server import Server
from app.telemetry.connections import Connections
from tests.support.answers import CheckProblem
from tests.support.checkpoints import png
from tests.support.engines import ScriptedEngine
from tests.support.http_side import http_side
from tests.support.raw import PATIENCE, connection, request

pytestmark = pytest.mark.anyio

PREDICT = request("/predict?model=digits", body=png())
LIVE, READY = request("/health/live", method="GET"), request("/health/ready", method="GET")
NOBODY, SOMEBODY = Connections(0, 7), Connections(1, 7)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


class Looks:
    """What is seen, look after look; the last one again and again."""

    def __init__(self, *seen: Connections) -> None:
        self._seen = list(seen)
        self.count = 0

    def __call__(self) -> Connections:
        self.count += 1
        return self._seen.pop(0) if len(self._seen) > 1 else self._seen[0]


async def looks_until_drained(
    looks: Looks, listener: socket.socket, *, seconds: float = 600, min_seconds: float = 0
) -> int:
    await drained(looks, listener, seconds=seconds, min_seconds=min_seconds, hurry=asyncio.Event())
    return looks.count


async def test_the_drain_ends_as_soon_as_nobody_is_connected(listener: socket.socket) -> None:
    assert await looks_until_drained(Looks(NOBODY), listener) == 2
    assert await looks_until_drained(Looks(SOMEBODY, SOMEBODY, NOBODY), listener) == 3


@pytest.mark.slow
async def test_it_goes_on_while_clients_come_and_go(listener: socket.socket) -> None:
    coming = [Connections(0, opened) for opened in range(5)]
    assert await looks_until_drained(Looks(*coming), listener) == 6


async def test_it_ends_when_its_time_is_over_though_somebody_is_connected(listener: socket.socket) -> None:
    assert await looks_until_drained(Looks(SOMEBODY), listener, seconds=0.1) >= 2


@pytest.mark.parametrize("seconds", [0, 600])
async def test_it_takes_its_least_time_though_nobody_is_connected(listener: socket.socket, seconds: float) -> None:
    assert await looks_until_drained(Looks(NOBODY), listener, seconds=seconds, min_seconds=0.2) > 2


async def test_without_any_time_there_is_none(listener: socket.socket) -> None:
    assert await looks_until_drained(Looks(SOMEBODY), listener, seconds=0) == 0
    with socket.create_connection(listener.getsockname()[:2]):  # nobody was turned away
        (accepted,) = accept_all(listener)
        accepted.close()


async def test_who_is_in_a_hurry_waits_for_nothing(listener: socket.socket) -> None:
    hurry = asyncio.Event()
    hurry.set()
    await drained(Looks(SOMEBODY), listener, seconds=600, min_seconds=600, hurry=hurry)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a filter")
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_afterwards_nobody_begins_to_connect_and_who_has_begun_before_is_accepted(
    family: socket.AddressFamily,
) -> None:
    """So the listener can be closed without a reset."""
    host = "127.0.0.1" if family is socket.AF_INET else "::1"
    with socket.create_server((host, 0), family=family) as listener, socket.socket(family) as late:
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()[:2]) as early:
            await looks_until_drained(Looks(NOBODY), listener)
            late.setblocking(False)
            late.connect_ex(listener.getsockname())
            assert select.select([], [late], [], 0)[1] == []  # on loopback it would be there already
            (accepted,) = accept_all(listener)
            with accepted:
                early.sendall(b"said")
                assert accepted.recv(10) == b"said"


async def test_a_server_that_drains_is_alive_and_not_ready(check_problem: CheckProblem) -> None:
    async with http_side(ScriptedEngine()) as side, side.client() as client:
        assert (await client.get("/health/ready")).status_code == 200
        side.server.drain()
        check_problem(await client.get("/health/ready"), "draining")
        assert (await client.get("/health/live")).status_code == 200


@pytest.mark.parametrize("sent", [PREDICT, LIVE, READY, request("/nothing", method="GET"), b"nonsense\r\n\r\n"])
async def test_each_answer_ends_its_connection_and_new_ones_are_answered(sent: bytes) -> None:
    method = "POST" if sent is PREDICT else "GET"
    async with http_side(ScriptedEngine()) as side, side.connection() as kept:
        await kept.send(LIVE)
        assert "connection" not in (await kept.response(method="GET")).headers
        side.server.drain()
        async with side.connection() as new:
            for client in (kept, new):
                await client.send(sent)
                assert (await client.response(method=method)).headers["connection"] == "close"
                assert await client.rest() == b""


@pytest.mark.parametrize("sent", [PREDICT, request("/predict?model=digits", body=png() + bytes(100_000))])
async def test_so_does_the_answer_to_a_request_that_was_there_before(sent: bytes) -> None:
    engine = ScriptedEngine()
    engine.gate.clear()
    async with http_side(engine) as side, side.connection() as client:
        await client.send(sent)
        await engine.submitted.get()
        side.server.drain()
        engine.gate.set()
        answer = await client.response()
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "head",
    [
        request("/predict?model=digits", content_length="300000", content_encoding="gzip"),
        request("/predict?top_k=0", content_length="300000"),
        request("/nothing", content_length="300000"),
        request("/models", content_length="300000"),
    ],
)
async def test_a_client_that_is_answered_before_its_body_has_come_may_finish_it(head: bytes) -> None:
    """A connection that is closed while the client sends is reset, and the reset may overtake the answer."""
    async with http_side(ScriptedEngine()) as side, side.connection() as client:
        side.server.drain()
        await client.send(head)
        answer = await client.response()
        assert (answer.status_code // 100, answer.headers["connection"]) == (4, "close")
        for _ in range(3):
            await client.send(bytes(100_000))
            async with side.connection() as other:  # so that the server has read it
                await other.send(LIVE)
                await other.response(method="GET")
        assert await client.rest() == b""


async def test_of_requests_that_come_one_behind_the_other_the_last_one_ends_the_connection() -> None:
    engine = ScriptedEngine()
    engine.gate.clear()
    async with http_side(engine) as side, side.connection() as client:
        await client.send(PREDICT)
        await engine.submitted.get()
        await client.send(LIVE)
        side.server.drain()
        async with side.connection() as other:  # so that the second one has been read
            await other.send(LIVE)
            await other.response(method="GET")
        await client.send(READY)
        engine.gate.set()
        answers = [await client.response(), await client.response(method="GET"), await client.response(method="GET")]
        assert [answer.status_code for answer in answers] == [200, 200, 503]
        assert [answer.headers.get("connection") for answer in answers] == [None, None, "close"]
        assert await client.rest() == b""


AtLast = Callable[[Callable[[], None]], None]


@pytest.fixture
def at_last(monkeypatch: pytest.MonkeyPatch) -> AtLast:
    """Sets what happens in the very last moment before the port is closed: the loop reads nothing in between."""
    main_loop = Server.main_loop
    happens: list[Callable[[], None]] = []

    async def and_at_last(server: Server) -> None:
        await main_loop(server)
        happens[0]()

    monkeypatch.setattr(Server, "main_loop", and_at_last)
    return happens.append


class TestWhenThePortIsClosed:
    async def test_an_idle_connection_is_closed(self) -> None:
        async with http_side(ScriptedEngine()) as side, side.connection() as client:
            await client.send(LIVE)
            await client.response(method="GET")
            side.stop()
            assert await client.rest() == b""

    async def test_a_request_that_has_come_but_was_not_read_yet_is_answered(self, at_last: AtLast) -> None:
        async with http_side(ScriptedEngine()) as side, side.connection() as client:
            await client.send(LIVE)
            await client.response(method="GET")
            at_last(lambda: client.send_now(PREDICT))
            side.stop()
            answer = await client.response()
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")

    async def test_a_connection_that_nobody_has_accepted_yet_is_answered(self, at_last: AtLast) -> None:
        asked = asyncio.Event()
        async with http_side(ScriptedEngine()) as side:
            with socket.socket() as client:
                client.settimeout(PATIENCE)

                def connect_and_ask() -> None:
                    client.connect(("127.0.0.1", side.port))
                    client.sendall(PREDICT)
                    asked.set()

                at_last(connect_and_ask)
                side.stop()
                await asked.wait()
                answer = await asyncio.to_thread(client.recv, 1 << 16)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer

    @pytest.mark.parametrize("came", [0, 20, len(PREDICT) - 10])
    async def test_a_request_of_which_a_part_has_come_is_answered(self, came: int) -> None:
        async with http_side(ScriptedEngine()) as side, side.connection() as client, side.connection() as other:
            await client.send(PREDICT[:came])
            await other.send(LIVE)
            await other.response(method="GET")
            side.stop()
            assert await other.rest() == b""  # it is closed now
            await client.send(PREDICT[came:])
            answer = await client.response()
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")

    @pytest.mark.slow
    async def test_a_new_connection_that_asks_nothing_does_not_hold_up_the_end(self) -> None:
        async with http_side(ScriptedEngine(), grace_seconds=600) as side, connection(side.port) as silent:
            side.stop()
            assert await silent.rest() == b""
