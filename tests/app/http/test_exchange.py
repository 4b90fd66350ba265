"""Fast routes without a model: what is answered below ASGI, what is left to ASGI, and what an exchange does."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send

from app.http.connection_limits import LINGER_BYTES
from app.http.exchange import FastRoute
from app.http.problems import Problem
from app.http.server import Server
from app.settings import Settings
from app.telemetry.metrics import Metrics
from tests.app.telemetry.test_metrics import samples
from tests.support.answers import CheckProblem
from tests.support.raw import Connection, chunked, connection, request
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


class Echo:
    """A fast route that answers with what it was asked; or with a problem; or never, where `silent`.

    Where `full`, it refuses bodies that are not small.
    """

    methods: Sequence[str] = ("PUT",)
    path = "/echo"
    small_body = 100

    def __init__(self, *, silent: bool = False, full: bool = False, problem: Problem | None = None) -> None:
        self.silent = silent
        self.full = full
        self.problem = problem
        self.cancelled = 0

    def matches(self, headers: Mapping[bytes, bytes]) -> bool:
        return b"x-by-asgi" not in headers

    def check(self, body_bytes: int) -> None:
        if self.full:
            raise Problem("overloaded", f"no room for {body_bytes} bytes")

    def start(
        self, headers: Mapping[bytes, bytes], query: bytes, body: bytes, done: Callable[[bytes | Exception], None]
    ) -> "Echo":
        if not self.silent:
            said = b'["%b", "%b", "%b"]' % (headers[b"x-word"], query, body)
            asyncio.get_running_loop().call_soon(done, self.problem or said)
        return self

    def cancel(self) -> None:
        self.cancelled += 1


class Side:
    """A server with that route, and an application that says that it was asked."""

    def __init__(self, port: int, metrics: Metrics, stop: Callable[[], None]) -> None:
        self.port = port
        self.stop = stop
        self._metrics = metrics

    def numbers(self) -> dict[str, float]:
        """All requests that were counted, by route and status, and those in flight."""
        found = samples(self._metrics.exposition().decode())
        counted = {
            f"{dict(labels)['route']} {dict(labels)['status']}": value
            for (name, labels), value in found.items()
            if name == "flambeau_requests_total"
        }
        return {**counted, "in flight": found["flambeau_requests_in_flight", frozenset()]}


@asynccontextmanager
async def serving(*routes: FastRoute) -> AsyncIterator[Side]:
    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for word in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{word}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
        await send({"type": "http.response.body", "body": b"by asgi"})

    metrics = Metrics()
    server = Server(
        asgi, Settings(grace_seconds=0.01, upload_seconds=0.05, header_seconds=0.2), metrics, fast_routes=routes
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        await server.listening.wait()
        yield Side(listener.getsockname()[1], metrics, server.stop)
        server.stop()
        await task


async def asked(client: Connection, sent: bytes) -> bytes:
    await client.send(sent)
    return (await client.response()).content


def echo(
    target: str = "/echo",
    body: bytes = b"body",
    *,
    method: str = "PUT",
    more: Mapping[str, str] | None = None,
) -> bytes:
    return request(target, body, method=method, more=more, x_word="word")


async def test_a_route_is_told_headers_query_and_body_and_what_it_says_is_the_answer() -> None:
    async with serving(Echo()) as side, connection(side.port) as client:
        await client.send(echo("/echo?a=b?c", more={"x-request-id": "mine"}))
        answer = await client.response()
        assert (answer.status_code, answer.json()) == (200, ["word", "a=b?c", "body"])
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == "mine"
        assert {"date", "content-length"} <= answer.headers.keys()
        assert side.numbers() == {"/echo 200": 1, "in flight": 0}


@pytest.mark.parametrize(
    "sent",
    [
        echo(method="POST"),
        echo("/echo/"),
        echo("/ech"),
        echo("http://127.0.0.1/echo"),
        echo(more={"x-by-asgi": "yes"}),
        echo(body=b"x" * 101)[:-1],
        echo().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request("/echo", method="PUT", x_word="word", transfer_encoding="chunked") + chunked(b"body", b""),
    ],
)
async def test_what_it_does_not_match_is_left_to_asgi(sent: bytes) -> None:
    async with serving(Echo()) as side, connection(side.port) as client:
        assert await asked(client, sent) == b"by asgi"


async def test_several_routes_are_told_apart_by_method_and_path() -> None:
    other, third = Echo(problem=Problem("not_found", "other")), Echo(problem=Problem("bad_request", "third"))
    other.path, third.methods = "/other", ("POST", "PATCH")
    async with serving(Echo(), other, third) as side, connection(side.port) as client:
        assert await asked(client, echo()) == b'["word", "", "body"]'
        assert b'"not_found"' in await asked(client, echo("/other"))
        assert b'"bad_request"' in await asked(client, echo(method="POST"))


async def test_a_problem_is_a_document_and_the_connection_lives(check_problem: CheckProblem) -> None:
    async with serving(Echo(problem=Problem("overloaded", "full"))) as side, connection(side.port) as client:
        for _ in range(2):
            await client.send(echo())
            answer = await client.response()
            assert check_problem(answer, "overloaded") == "full"
            assert answer.headers["retry-after"] == "1"
        assert side.numbers() == {"/echo 503": 2, "in flight": 0}


async def test_a_body_in_pieces_is_one_body_if_it_is_small() -> None:
    sent = echo(body=b"0123456789")
    async with serving(Echo()) as side, connection(side.port) as client:
        await client.send(sent[:-10])
        await until(lambda: side.numbers()["in flight"] == 1)
        for i in range(len(sent) - 10, len(sent)):
            await client.send(sent[i : i + 1])
        assert (await client.response()).json() == ["word", "", "0123456789"]


async def test_a_body_that_does_not_come_is_too_slow(check_problem: CheckProblem) -> None:
    route = Echo()
    async with serving(route) as side, connection(side.port) as client:
        await client.send(echo()[:-1])
        check_problem(await client.response(), "upload_too_slow")
        assert await client.rest() == b""
        assert side.numbers() == {"/echo 408": 1, "in flight": 0}


async def test_a_large_body_that_is_refused_is_not_waited_for_but_skipped(check_problem: CheckProblem) -> None:
    sent = echo(body=b"x" * 1000)
    async with serving(Echo(full=True)) as side, connection(side.port) as client:
        for begun in (sent[:-1000], sent[:-900], sent):
            await client.send(begun)
            answer = await client.response()
            assert "1000 bytes" in check_problem(answer, "overloaded")
            assert "connection" not in answer.headers
            await client.send(sent[len(begun) :])
        assert await asked(client, echo()) == b'["word", "", "body"]'
        assert side.numbers() == {"/echo 503": 3, "/echo 200": 1, "in flight": 0}


async def test_a_request_behind_a_body_that_is_skipped_is_answered() -> None:
    async with serving(Echo(full=True)) as side, connection(side.port) as client:
        await client.send(echo(body=b"x" * 1000) + echo())
        assert (await client.response()).status_code == 503
        assert (await client.response()).json() == ["word", "", "body"]


@pytest.mark.slow
async def test_a_body_that_is_skipped_and_does_not_come_ends_the_connection() -> None:
    async with serving(Echo(full=True)) as side, connection(side.port) as client:
        await client.send(echo(body=b"x" * 1000)[:-1])
        assert (await client.response()).status_code == 503
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "sent",
    [
        echo(body=b"x" * 1000, more={"connection": "close"}),
        echo(more={"content-length": str(LINGER_BYTES + 1)}),
        echo(body=b"x" * 1000, more={"expect": "100-continue"}),
    ],
)
async def test_where_the_connection_could_not_stay_open_the_refusal_is_left_to_asgi(sent: bytes) -> None:
    async with serving(Echo(full=True)) as side, connection(side.port) as client:
        assert b"by asgi" in await asked(client, sent[:-1])


async def test_the_work_of_a_client_that_leaves_is_cancelled_once() -> None:
    route = Echo(silent=True)
    async with serving(route) as side, connection(side.port) as client:
        await client.send(echo())
        await until(lambda: side.numbers()["in flight"] == 1)
        client.hang_up()
        await until(lambda: route.cancelled == 1)
        assert side.numbers() == {"in flight": 0}
    assert route.cancelled == 1


async def test_who_waits_when_the_grace_period_is_over_is_told(check_problem: CheckProblem) -> None:
    route = Echo(silent=True)
    async with serving(route) as side, connection(side.port) as client:
        await client.send(echo())
        await until(lambda: side.numbers()["in flight"] == 1)
        side.stop()
        check_problem(await client.response(), "draining")
        assert route.cancelled == 1
