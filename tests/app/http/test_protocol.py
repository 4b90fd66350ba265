"""What happens on a connection around its requests: early answers, hang-ups, pipelines, what is never finished."""

import asyncio
import gc
import socket
from contextlib import AsyncExitStack

import httpx2
import pytest

from app.http.connection_limits import LINGER_BYTES
from tests.support.answers import CheckProblem
from tests.support.checkpoints import png
from tests.support.engines import ScriptedEngine
from tests.support.http_side import http_side
from tests.support.raw import PATIENCE, chunked, connection, request
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio

MEGABYTE = 1_000_000
PREDICT = "/predict?model=digits"
# What the kernel may hold of a connection, on both sides, besides what was read.
KERNEL_BYTES = 16 * MEGABYTE


def sent_until_refused(port: int, head: bytes, filling: bytes, *, most: int) -> tuple[int, bytes]:
    """Sends without ever reading, as a simple client does. Returns how much went out, and what had come by then."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        sent = client.send(head)
        piece = filling * (1 << 16)
        try:
            while sent < most:
                sent += client.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = b""
        try:
            while data := client.recv(1 << 16):
                received += data
        except ConnectionResetError:
            pass
        return sent, received


def answer_to(port: int, head: bytes, later: list[bytes]) -> bytes:
    """Returns the answer to some headers, after which the client goes on sending once it has the answer.

    Raises: ConnectionError, where the server did not take what came.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(head)
        received = b""
        while not received.endswith(b"}"):
            data = client.recv(1 << 16)
            assert data, received
            received += data
        for piece in later:
            client.sendall(piece)
        assert client.recv(1 << 16) == b""
        return received


class TestEarlyAnswers:
    """An answer before the body was read must arrive, and the body must not be read for ever."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("head", "code"),
        [
            (request(PREDICT, content_type="image/png", content_length="5000000"), "upload_too_large"),
            (request(PREDICT, content_encoding="gzip", content_length="5000000"), "unsupported_content_encoding"),
            (request("/nothing", content_length="5000000"), "not_found"),
            (request("/models", content_length="5000000"), "method_not_allowed"),
            (request("/nothing", content_length="5000000", connection="close"), "not_found"),
            (request("/predict?top_k=0", content_type="image/png", content_length="5000000"), "bad_parameter"),
        ],
    )
    async def test_one_reaches_a_client_that_is_still_sending(
        self, server: ServerProcess, check_problem: CheckProblem, head: bytes, code: str
    ) -> None:
        for _ in range(5):
            async with connection(server.port) as client:
                sending = asyncio.create_task(client.send(head + bytes(5 * MEGABYTE)))
                answer = await client.response()
                check_problem(answer, code)
                assert answer.headers["connection"] == "close"
                sending.cancel()
                await asyncio.wait([sending])

    @pytest.mark.parametrize("path", [PREDICT, "/nothing", "/models"])
    @pytest.mark.parametrize("length", [{"content_length": str(10**9)}, {"transfer_encoding": "chunked"}])
    async def test_it_is_read_on_to_a_bound_and_no_further(
        self, server: ServerProcess, path: str, length: dict[str, str]
    ) -> None:
        head = request(path, content_type="image/png", more=length)
        if "transfer_encoding" in length:
            head += b"%x\r\n" % 10**9  # one chunk without an end
        sent, received = await asyncio.to_thread(sent_until_refused, server.port, head, b"\0", most=100 * MEGABYTE)
        assert sent < LINGER_BYTES + KERNEL_BYTES
        assert received.startswith(b"HTTP/1.1 4")
        assert b'"code"' in received

    async def test_headers_without_an_end_are_read_on_to_a_bound_and_their_answer_arrives(
        self, server: ServerProcess
    ) -> None:
        head = b"GET / HTTP/1.1\r\nhost: x\r\nx-much: "
        sent, received = await asyncio.to_thread(sent_until_refused, server.port, head, b"x", most=100 * MEGABYTE)
        assert sent < LINGER_BYTES + KERNEL_BYTES
        assert received.startswith(b"HTTP/1.1 431 ")
        assert b'"header_too_large"' in received

    async def test_a_small_body_that_nobody_wanted_does_not_cost_the_connection(
        self, server: ServerProcess, check_problem: CheckProblem
    ) -> None:
        async with connection(server.port) as client:
            for path, kind, code in [
                (PREDICT, "text/plain", "unsupported_content_type"),
                ("/nothing", "image/png", "not_found"),
                ("/models", "image/png", "method_not_allowed"),
                (PREDICT + "&top_k=0", "image/png", "bad_parameter"),
                (PREDICT, "image/gif", "bad_image"),
            ]:
                await client.send(request(path, b"x" * 10_000, content_type=kind))
                answer = await client.response()
                check_problem(answer, code)
                assert "connection" not in answer.headers
            await client.send(request(PREDICT, png()))
            assert (await client.response()).status_code == 200

    @pytest.mark.parametrize(
        "head",
        [
            request("/nothing", content_length="3000", connection="close"),
            request("/nothing", content_length="3000").replace(b"HTTP/1.1", b"HTTP/1.0"),
        ],
    )
    async def test_a_client_that_wants_the_connection_closed_may_finish_its_body(
        self, server: ServerProcess, head: bytes
    ) -> None:
        received = await asyncio.to_thread(answer_to, server.port, head, [bytes(1000)] * 3)
        assert received.startswith(b"HTTP/1.1 404 ")

    async def test_a_client_whose_headers_were_refused_may_send_on_for_a_little(self, server: ServerProcess) -> None:
        head = b"GET / HTTP/1.1\r\nhost: x\r\nx-much: " + b"x" * 70_000
        received = await asyncio.to_thread(answer_to, server.port, head, [b"x" * 10_000] * 3 + [b"\r\n\r\n"])
        assert received.startswith(b"HTTP/1.1 431 ")


class TestExpect:
    async def test_a_client_that_waits_is_told_to_go_on(self, server: ServerProcess) -> None:
        async with connection(server.port) as client:
            body = png()
            await client.send(
                request(PREDICT, content_type="image/png", content_length=str(len(body)), expect="100-continue")
            )
            assert (await client.response()).status_code == 100
            await client.send(body)
            assert (await client.response()).status_code == 200

    @pytest.mark.parametrize("size", ["100", "5000000"])
    async def test_one_that_is_refused_is_told_so_instead_and_that_the_connection_ends(
        self, server: ServerProcess, check_problem: CheckProblem, size: str
    ) -> None:
        async with connection(server.port) as client:
            await client.send(request(PREDICT, content_encoding="gzip", content_length=size, expect="100-continue"))
            answer = await client.response()
            check_problem(answer, "unsupported_content_encoding")
            assert answer.headers["connection"] == "close"


@pytest.mark.slow
async def test_a_request_leaves_no_garbage_that_has_to_be_looked_for() -> None:
    """Looking for it takes tens of milliseconds once there is much, while everybody waits."""
    requests = 100
    async with http_side(ScriptedEngine()) as side, side.connection() as client:

        async def ask() -> None:
            await client.send(request(body=png()))
            assert (await client.response()).status_code == 200

        await ask()
        gc.collect()
        gc.disable()
        try:
            for _ in range(requests):
                await ask()
            assert gc.collect() < requests
        finally:
            gc.enable()


class TestHangUps:
    async def test_a_client_that_leaves_while_it_waits_cancels_its_submit(self) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine, max_requests=1) as side:
            async with side.connection() as client:
                await client.send(request(body=png()))
                submitted = await engine.submitted.get()
                client.hang_up()
                async with asyncio.timeout(PATIENCE):
                    assert await engine.cancelled.get() is submitted
            engine.gate.set()
            async with side.connection() as client:  # the place it had is free again
                await client.send(request(body=png()))
                assert (await client.response()).status_code == 200

    async def test_one_that_stays_beside_it_gets_its_answer(self) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine) as side, side.connection() as stays, side.connection() as leaves:
            await stays.send(request(body=png()))
            await engine.submitted.get()
            await leaves.send(request(body=png()))
            await engine.submitted.get()
            leaves.hang_up()
            async with asyncio.timeout(PATIENCE):
                await engine.cancelled.get()
            engine.gate.set()
            assert (await stays.response()).status_code == 200
            assert engine.cancelled.empty()

    async def test_one_that_has_asked_for_more_meanwhile_leaves_nothing_behind(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine) as side, side.connection() as client:
            await client.send(request(body=png()) + request(body=png()) + request("/health/live", method="GET"))
            submitted = await engine.submitted.get()
            client.hang_up()
            async with asyncio.timeout(PATIENCE):
                assert await engine.cancelled.get() is submitted
        assert engine.submitted.empty()
        assert caplog.text == ""

    async def test_a_client_that_leaves_in_the_middle_of_its_upload_costs_nothing(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = ScriptedEngine()
        async with http_side(engine, max_requests=1) as side:
            for head in (
                request(content_type="image/png", content_length="1000"),
                request(content_type="image/png", transfer_encoding="chunked"),
            ):
                async with side.connection() as client:
                    await client.send(head)
                    client.hang_up()
                async with side.connection() as client:
                    answer = None
                    while answer is None or answer.status_code == 503:  # until the server has noticed
                        await client.send(request(body=png()))
                        answer = await client.response()
                    assert answer.status_code == 200
        assert caplog.text == ""

    async def test_when_the_grace_period_is_over_who_waits_is_told(self, check_problem: CheckProblem) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with AsyncExitStack() as stack:
            side = await stack.enter_async_context(http_side(engine, grace_seconds=0.01))
            async with side.connection() as client:
                await client.send(request(body=png()))
                await engine.submitted.get()
                stopping = asyncio.create_task(stack.aclose())
                answer = await client.response()
                check_problem(answer, "draining")
                assert "retry-after" in answer.headers
                await stopping
            assert engine.closed


BY_ASGI = request(content_type="image/png", transfer_encoding="chunked") + chunked(png(), b"")
EITHER_WAY = pytest.mark.parametrize("asked", [request(body=png()), BY_ASGI], ids=["fast", "by ASGI"])


class TestHalfClosed:
    """A client that sends no more after its request may wait for its answer, or may have gone: both send a FIN."""

    @pytest.mark.parametrize(
        "asked",
        [
            pytest.param([request(PREDICT, png())], id="small"),
            pytest.param([request(PREDICT, png(size=(900, 900)))], id="decoded in a thread"),
            pytest.param([BY_ASGI.replace(b"/predict", PREDICT.encode())], id="chunked"),
            pytest.param([request(PREDICT, png()).replace(b"HTTP/1.1", b"HTTP/1.0")], id="HTTP/1.0"),
            pytest.param([request(PREDICT, png(), method="PUT", content_type="")], id="PUT"),
            pytest.param([request(PREDICT, png(), connection="close")], id="close"),
            pytest.param([request(PREDICT, png()) + b"\r\n"], id="a line end more"),
            pytest.param([request("/models/letters/reload")], id="reload"),
            pytest.param([request("/models", method="GET")], id="models"),
            pytest.param([request(PREDICT, png())] * 5, id="several"),
        ],
    )
    async def test_one_whose_requests_came_whole_is_answered_then_closed(
        self, server: ServerProcess, asked: list[bytes]
    ) -> None:
        for _ in range(5):
            async with connection(server.port) as client:
                await client.send(b"".join(asked))
                client.send_no_more()
                answers = [await client.response() for _ in asked]
                assert [answer.status_code for answer in answers] == [200] * len(asked)
                assert await client.rest() == b""

    async def test_a_problem_is_an_answer_too(self, server: ServerProcess, check_problem: CheckProblem) -> None:
        for asked, code in [
            (request(PREDICT, b"no image"), "bad_image"),
            (request("/predict?model=none", png()), "model_not_found"),
            (request("/nothing"), "not_found"),
        ]:
            async with connection(server.port) as client:
                await client.send(asked)
                client.send_no_more()
                check_problem(await client.response(), code)
                assert await client.rest() == b""

    @EITHER_WAY
    async def test_one_that_waits_long_gets_the_same_answer_byte_for_byte(self, asked: bytes) -> None:
        engine = ScriptedEngine()
        async with http_side(engine) as side:
            async with side.connection() as client:
                await client.send(asked)
                whole = (await client.response()).content
            engine.gate.clear()
            async with side.connection() as client:
                await client.send(asked + request(body=png()))
                client.send_no_more()
                start = await client.exactly(3)
                assert start == b"HTT"  # the rest of the answer comes later
                engine.gate.set()
                answers = [await client.response(begun=start), await client.response()]
                assert [answer.content for answer in answers] == [whole] * 2
                assert await client.rest() == b""

    @EITHER_WAY
    async def test_one_that_has_gone_is_noticed_while_it_is_worked_for(self, asked: bytes) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine, max_requests=1, max_connections=1) as side:
            async with side.connection() as client:
                await client.send(asked)
                submitted = await engine.submitted.get()
                client.close()
                async with asyncio.timeout(PATIENCE):
                    assert await engine.cancelled.get() is submitted
            engine.gate.set()
            async with side.connection() as client:  # its connection is counted out, and its place is free
                await client.send(asked)
                assert (await client.response()).status_code == 200

    @EITHER_WAY
    async def test_one_that_resets_the_connection_after_its_fin_is_noticed_too(self, asked: bytes) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine) as side, side.connection() as client:
            await client.send(asked)
            submitted = await engine.submitted.get()
            client.send_no_more()
            assert await client.exactly(1) == b"H"
            client.hang_up()
            async with asyncio.timeout(PATIENCE):
                assert await engine.cancelled.get() is submitted

    @pytest.mark.parametrize(
        "asked",
        [
            request(body=png())[:-1],
            request(content_type="image/png", content_length="5000000") + png(),
            request(content_type="image/png", transfer_encoding="chunked") + chunked(png()),
            request(body=png())[:40],
            b"",
        ],
    )
    async def test_a_fin_within_a_request_ends_it_without_an_answer(
        self, asked: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with http_side(ScriptedEngine(), max_requests=1, max_connections=1) as side:
            async with side.connection() as client:
                await client.send(asked)
                client.send_no_more()
                assert await client.rest() == b""
            async with side.connection() as client:
                await client.send(request(body=png()))
                assert (await client.response()).status_code == 200
        assert caplog.text == ""

    async def test_a_fin_within_the_request_behind_it_cancels_what_is_worked_on(self) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine) as side, side.connection() as client:
            await client.send(request(body=png()) + request(body=png())[:-1])
            submitted = await engine.submitted.get()
            client.send_no_more()
            async with asyncio.timeout(PATIENCE):
                assert await engine.cancelled.get() is submitted
            assert await client.rest() == b""

    async def test_one_that_waits_for_nothing_is_closed_at_once(self) -> None:
        async with http_side(ScriptedEngine(), keep_alive_seconds=1000, header_seconds=1000) as side:
            async with side.connection() as client:
                await client.send(request(body=png()))
                assert (await client.response()).status_code == 200
                client.send_no_more()
                assert await client.rest() == b""
            async with side.connection() as client:
                client.send_no_more()
                assert await client.rest() == b""

    async def test_one_whose_headers_were_refused_is_closed_and_not_waited_for(self) -> None:
        async with http_side(ScriptedEngine(), max_connections=1) as side:
            async with side.connection() as client:
                await client.send(b"G\r\n\r\n")
                client.send_no_more()
                assert (await client.rest()).count(b"HTTP/1.1 ") == 1
            async with side.connection() as client:
                await client.send(request(body=png()))
                assert (await client.response()).status_code == 200

    @EITHER_WAY
    @pytest.mark.slow
    async def test_one_is_told_when_its_deadline_has_passed(self, asked: bytes, check_problem: CheckProblem) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine, deadline_seconds=0.2) as side, side.connection() as client:
            await client.send(asked)
            client.send_no_more()
            check_problem(await client.response(), "deadline_exceeded")
            assert await client.rest() == b""

    @EITHER_WAY
    async def test_one_is_answered_while_the_server_stops(self, asked: bytes) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine) as side, side.connection() as client:
            await client.send(asked)
            await engine.submitted.get()
            client.send_no_more()
            assert await client.exactly(1) == b"H"
            side.stop()
            engine.gate.set()
            assert (await client.response(begun=b"H")).status_code == 200
            assert await client.rest() == b""

    @pytest.mark.slow
    async def test_of_many_those_that_wait_get_their_answers_and_those_that_have_gone_are_noticed_at_once(self) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine) as side, AsyncExitStack() as several:
            clients = [await several.enter_async_context(side.connection()) for _ in range(40)]
            for client in clients:
                await client.send(request(body=png()))
                await engine.submitted.get()
            for client in clients:
                client.send_no_more()
            starts = [await client.exactly(2) for client in clients]
            assert starts == [b"HT"] * len(clients)
            for client in clients[::2]:
                client.close()
            for _ in clients[::2]:
                async with asyncio.timeout(PATIENCE):
                    await engine.cancelled.get()
            engine.gate.set()
            for client in clients[1::2]:
                assert (await client.response(begun=b"HT")).status_code == 200
                assert await client.rest() == b""

    @pytest.mark.slow
    async def test_very_many_that_have_gone_leave_nothing_behind(self) -> None:
        engine, number = ScriptedEngine(), 200
        engine.gate.clear()
        async with http_side(engine, max_requests=number, max_connections=number) as side:
            for _ in range(number):
                async with side.connection() as client:
                    await client.send(request(body=png()))
                    await engine.submitted.get()
            for _ in range(number):
                async with asyncio.timeout(PATIENCE):
                    await engine.cancelled.get()
            engine.gate.set()
            async with side.connection() as client:
                await client.send(request(body=png()))
                assert (await client.response()).status_code == 200


class TestPipelines:
    async def test_requests_sent_at_once_are_answered_in_their_order(self, server: ServerProcess) -> None:
        async with connection(server.port) as client:
            paths = ["/health/live", PREDICT, "/nothing", "/models/letters", PREDICT]
            pieces = [request(path, png()) if path == PREDICT else request(path, method="GET") for path in paths]
            await client.send(b"".join(pieces))
            answers = [await client.response() for _ in paths]
        assert [answer.status_code for answer in answers] == [200, 200, 404, 200, 200]
        assert answers[0].json() == {"status": "live"}
        assert answers[3].json()["name"] == "letters"

    @pytest.mark.parametrize(
        "after",
        [
            b"garbage\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
            b"G",
        ],
    )
    async def test_what_comes_behind_a_request_does_not_take_its_answer(self, after: bytes) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine, header_seconds=0.05) as side, side.connection() as client:
            await client.send(request(body=png()))
            await engine.submitted.get()
            await client.send(after)
            async with side.connection() as another:  # by its end, what came before it has been read, and is late
                await another.send(b"G")
                assert (await another.response()).status_code == 408
            engine.gate.set()
            assert (await client.response()).status_code == 200
            assert await client.rest() == b""

    @pytest.mark.slow
    async def test_headers_without_an_end_behind_a_request_end_the_connection(self) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine) as side, side.connection() as client:
            await client.send(request(body=png()))
            await engine.submitted.get()
            with pytest.raises(ConnectionError):
                await client.send(b"GET / HTTP/1.1\r\nx: " + b"x" * 50 * MEGABYTE)
            async with asyncio.timeout(PATIENCE):
                await engine.cancelled.get()

    async def test_a_broken_body_in_a_queue_does_not_take_the_answer_of_the_first(self) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine) as side, side.connection() as client:
            broken = request(content_type="image/png", transfer_encoding="chunked") + b"no length\r\n"
            await client.send(request(body=png()) + broken)
            assert await client.rest() == b""
            engine.gate.set()

    async def test_a_broken_chunk_is_a_bad_request_at_once(self, check_problem: CheckProblem) -> None:
        engine = ScriptedEngine()
        async with http_side(engine, max_requests=1) as side, side.connection() as broken, side.connection() as sound:
            await broken.send(request(content_type="image/png", transfer_encoding="chunked"))
            await broken.send(chunked(png()[:100]) + b"no length\r\n")
            check_problem(await broken.response(), "bad_request")
            await sound.send(request(body=png()))  # the broken one, still open, holds nothing any longer
            assert (await sound.response()).status_code == 200
            assert engine.submitted.qsize() == 1

    async def test_a_broken_chunk_behind_an_early_answer_gets_no_second_one(
        self, server: ServerProcess, check_problem: CheckProblem
    ) -> None:
        async with connection(server.port) as client:
            await client.send(request(PREDICT, content_encoding="gzip", transfer_encoding="chunked"))
            check_problem(await client.response(), "unsupported_content_encoding")
            await client.send(b"no length\r\n")
            assert await client.rest() == b""


class TestIdleConnections:
    """Each of them is closed by a timer of the server; that it is closed at all is what is tested."""

    @pytest.mark.slow
    @pytest.mark.parametrize("data", [b"", b"\r\n"])
    async def test_one_on_which_no_request_begins_is_closed_without_an_answer(self, data: bytes) -> None:
        async with http_side(ScriptedEngine(), header_seconds=0.05) as side, side.connection() as client:
            await client.send(data)
            assert await client.rest() == b""

    @pytest.mark.slow
    async def test_one_that_was_used_is_closed_too(self) -> None:
        async with http_side(ScriptedEngine(), keep_alive_seconds=1) as side, side.connection() as client:
            await client.send(request("/health/live", method="GET"))
            assert (await client.response()).status_code == 200
            assert await client.rest() == b""

    async def test_line_ends_between_requests_do_not_keep_it_open(self) -> None:
        async with http_side(ScriptedEngine(), header_seconds=0.05) as side, side.connection() as client:
            await client.send(request("/health/live", method="GET"))
            assert (await client.response()).status_code == 200
            await client.send(b"\r\n")
            assert await client.rest() == b""

    async def test_the_rest_of_a_body_that_nobody_wanted_does_not_keep_it_open(self) -> None:
        async with http_side(ScriptedEngine(), header_seconds=0.05) as side, side.connection() as client:
            await client.send(request("/nothing", content_length="10000"))
            assert (await client.response()).status_code == 404
            await client.send(b"one byte of ten thousand"[:1])
            assert await client.rest() == b""

    async def test_a_request_may_wait_longer_than_its_headers_may_take(self) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine, header_seconds=0.05) as side, side.connection() as client:
            await client.send(request(body=png()))
            await engine.submitted.get()
            async with side.connection() as another:
                assert await another.rest() == b""  # its time is over, and it had come later
            engine.gate.set()
            assert (await client.response()).status_code == 200


class TestATimerThatIsDueBeforeTheLoopHasReadWhatHasCome:
    """The loop was held up: it runs the timers that are due, and only then it reads."""

    async def test_a_request_on_a_new_connection_is_answered(self) -> None:
        async with http_side(ScriptedEngine()) as side, side.connection() as client:
            accepted = await side.accepted()
            client.send_now(request(body=png()))
            accepted._on_late()
            assert (await client.response()).status_code == 200

    async def test_headers_that_are_still_not_whole_are_too_slow(self, check_problem: CheckProblem) -> None:
        async with http_side(ScriptedEngine()) as side, side.connection() as client:
            accepted = await side.accepted()
            client.send_now(b"GET /health/live HTTP/1.1\r\n")
            accepted._on_late()
            check_problem(await client.response(), "upload_too_slow")

    async def test_a_request_on_a_connection_that_was_used_is_answered(self) -> None:
        async with http_side(ScriptedEngine()) as side, side.connection() as client:
            await client.send(request("/health/live", method="GET"))
            assert (await client.response()).status_code == 200
            accepted = await side.accepted()
            client.send_now(request(body=png()))
            accepted.timeout_keep_alive_handler()
            assert (await client.response()).status_code == 200

    async def test_the_first_request_on_a_connection_is_answered_though_the_port_is_closed(self) -> None:
        async with http_side(ScriptedEngine()) as side, side.connection() as client:
            accepted = await side.accepted()
            client.send_now(request(body=png()))
            accepted._close_if_idle()
            assert (await client.response()).status_code == 200


class TestTooMany:
    async def test_one_more_than_may_be_open_is_told_so_and_counted(self, check_problem: CheckProblem) -> None:
        async with http_side(ScriptedEngine(), max_connections=1) as side, side.connection() as first:
            await first.send(request(body=png()))
            assert (await first.response()).status_code == 200
            async with side.connection() as second:
                await second.send(request(body=png()))
                answer = await second.response()
                assert "(1)" in check_problem(answer, "overloaded")
                assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
                assert await second.rest() == b""
            await first.send(request(body=png()))
            assert (await first.response()).status_code == 200
            figures = side.metrics.exposition().decode()
        assert 'flambeau_errors_total{code="overloaded"} 1.0' in figures

    async def test_where_one_was_closed_there_is_room_again(self) -> None:
        async with http_side(ScriptedEngine(), max_connections=1) as side:
            for _ in range(3):
                async with side.connection() as client:
                    await client.send(request(body=png(), connection="close"))
                    assert (await client.response()).status_code == 200
                    assert await client.rest() == b""

    async def test_one_that_is_told_so_takes_no_place(self) -> None:
        async with http_side(ScriptedEngine(), max_connections=1) as side, AsyncExitStack() as several:
            first, second = [await several.enter_async_context(side.connection()) for _ in range(2)]
            assert b"overloaded" in await second.rest()
            await first.send(request(body=png(), connection="close"))
            assert (await first.response()).status_code == 200
            assert await first.rest() == b""
            third = await several.enter_async_context(side.connection())  # while the second is still open
            await third.send(request(body=png()))
            assert (await third.response()).status_code == 200

    async def test_one_that_was_told_so_and_left_makes_no_room_for_another(self) -> None:
        async with http_side(ScriptedEngine(), max_connections=1) as side, side.connection() as first:
            for _ in range(2):
                async with side.connection() as another:
                    await another.send(request(body=png()))
                    assert (await another.response()).status_code == 503
                for _ in range(3):  # time enough for the server to see that it left
                    await first.send(request(body=png()))
                    assert (await first.response()).status_code == 200

    async def test_when_as_many_were_told_so_others_are_closed_at_once(self) -> None:
        async with http_side(ScriptedEngine(), max_connections=1) as side, AsyncExitStack() as several:
            first, second, third = [await several.enter_async_context(side.connection()) for _ in range(3)]
            assert b"overloaded" in await second.rest()
            assert await third.rest() == b""
            await first.send(request(body=png()))
            assert (await first.response()).status_code == 200


class TestRequestIds:
    @pytest.mark.parametrize("given", ["abc", "6f1d0c9b-2a3e_4f58.1", "x" * 64])
    async def test_a_clients_own_is_repeated(self, server: ServerProcess, given: str) -> None:
        for path in ("/health/live", "/nothing"):
            async with httpx2.AsyncClient() as client:
                answer = await client.get(server.url + path, headers={"x-request-id": given})
                assert answer.headers["x-request-id"] == given

    @pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a;b", "<script>", "a\tb", "\xe4", '"', "a,b"])
    async def test_one_that_is_not_fit_for_that_is_replaced(self, server: ServerProcess, given: str) -> None:
        async with connection(server.port) as client:
            await client.send(request("/health/live", method="GET", x_request_id=given))
            replaced = (await client.response()).headers["x-request-id"]
            assert len(replaced) == 16
            assert int(replaced, 16) >= 0

    async def test_no_line_end_gets_through(self, server: ServerProcess) -> None:
        for line_end in ("\r", "\n", "\x00", "\r\n set-cookie: a"):
            async with connection(server.port) as client:
                await client.send(request("/health/live", method="GET", x_request_id=f"a{line_end}set-cookie: b"))
                assert "set-cookie" not in (await client.response()).headers

    async def test_two_requests_have_two(self, server: ServerProcess) -> None:
        async with httpx2.AsyncClient(base_url=server.url) as client:
            ids = {(await client.get("/health/live")).headers["x-request-id"] for _ in range(20)}
        assert len(ids) == 20


class TestOddRequests:
    async def test_an_upgrade_that_is_not_offered_is_answered_as_it_stands(self, server: ServerProcess) -> None:
        async with connection(server.port) as client:
            upgrade = {"connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "http2_settings": "AAMAAABk"}
            for _ in range(2):
                await client.send(request(PREDICT, png(), more=upgrade))
                assert (await client.response()).status_code == 200
            await client.send(request(PREDICT, content_type="image/png", transfer_encoding="chunked", more=upgrade))
            await client.send(chunked(png(), b""))
            assert (await client.response()).status_code == 200
            loud = {"CONNECTION": "UPGRADE", "UPGRADE": "h2c"}
            await client.send(request(PREDICT, png(), more=loud))
            assert (await client.response()).status_code == 200
            websocket = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_version": "13"}
        async with connection(server.port) as client:
            await client.send(request("/health/live", method="GET", more=websocket))
            assert (await client.response()).status_code == 200

    async def test_http_1_0_is_answered_and_closed(self, server: ServerProcess) -> None:
        async with connection(server.port) as client:
            await client.send(request(PREDICT, png()).replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert (await client.response()).status_code == 200
            assert await client.rest() == b""

    async def test_a_body_in_very_many_chunks_is_one_body(self, server: ServerProcess) -> None:
        async with connection(server.port) as client:
            body = png()
            await client.send(request(PREDICT, content_type="image/png", transfer_encoding="chunked"))
            for i in range(0, len(body), 7):
                await client.send(chunked(body[i : i + 7]))
            await client.send(chunked(b""))
            assert (await client.response()).status_code == 200

    async def test_a_body_with_a_get_is_skipped(self, server: ServerProcess) -> None:
        async with connection(server.port) as client:
            for _ in range(2):
                await client.send(request("/health/live", b"x" * 1000, method="GET"))
                assert (await client.response()).status_code == 200
