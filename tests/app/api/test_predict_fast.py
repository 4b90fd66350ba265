"""The shorter way to an answer: what takes it, and that it says and does the same as the way through ASGI."""

import asyncio
from typing import Any

import pytest
from PIL import Image
from starlette.types import Receive, Scope, Send

from app.api.application import create_app
from app.api.predict_fast import PredictFastPath
from app.engine.errors import Overloaded, Stale
from app.engine.predictions import ItemError
from app.http.server import Server
from app.settings import Settings
from app.telemetry.metrics import Metrics
from tests.app.telemetry.test_metrics import samples
from tests.support.answers import MAX_FILES, CheckProblem
from tests.support.checkpoints import PHOTOS, png
from tests.support.engines import ScriptedEngine
from tests.support.http_side import HttpSide, http_side
from tests.support.images import encoded
from tests.support.raw import PATIENCE, Response, chunked, connection, request
from tests.support.server import ServerProcess
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

PREDICT = "/predict?model=digits"
FORM = "multipart/form-data; boundary=x"


def form(*images: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return b"".join(head + image + b"\r\n" for image in images) + b"--x--\r\n"


async def answer(side: HttpSide, *pieces: bytes) -> Response:
    async with side.connection() as client:
        for piece in pieces:
            await client.send(piece)
        return await client.response()


def in_flight(side: HttpSide) -> float:
    return samples(side.metrics.exposition().decode())["flambeau_requests_in_flight", frozenset()]


async def refuses(port: int) -> bool:
    """Whether no connection is accepted any more."""
    try:
        async with connection(port):
            return False
    except ConnectionError:
        return True


class TestWhoTakesIt:
    @pytest.mark.parametrize(
        "asked",
        [
            request(body=png()),
            request("/predict?top_k=2", form(png()), content_type=FORM),
            request(body=form(png(), png(1)), content_type=FORM),
            request(body=png(size=(300, 300))),
            request(body=b""),
            request(body=b"no image"),
            request(body=png(), origin="https://page.example"),
            request(method="PUT", body=png(), content_type=""),
        ],
    )
    async def test_a_prediction_that_comes_whole(self, asked: bytes) -> None:
        async with http_side(ScriptedEngine()) as side:
            assert (await answer(side, asked)).status_code in (200, 400, 422)
            assert side.by_asgi == []

    async def test_a_small_one_in_pieces(self) -> None:
        asked = request(body=png())
        async with http_side(ScriptedEngine()) as side, side.connection() as client:
            for end in (len(asked) - len(png()), len(asked) - 30):
                await client.send(asked[:end])
                await until(lambda: in_flight(side) == 1)
                await client.send(asked[end:])
                assert (await client.response()).status_code == 200
            assert side.by_asgi == []

    @pytest.mark.parametrize(
        "asked",
        [
            request(method="GET"),
            request(method="PATCH", body=png()),
            request("/predict/", png()),
            request("/predictions", png()),
            request("/%70redict", png()),
            request("http://127.0.0.1/predict", png()),
            request(transfer_encoding="chunked", content_type="image/png") + chunked(png(), b""),
            request(body=png()).replace(b"HTTP/1.1", b"HTTP/1.0"),
        ],
    )
    async def test_everything_else_goes_by_asgi(self, asked: bytes) -> None:
        async with http_side(ScriptedEngine()) as side:
            await answer(side, asked)
            assert len(side.by_asgi) == 1

    async def test_a_large_one_whose_body_is_on_its_way_goes_by_asgi(self) -> None:
        photo = encoded(Image.effect_noise((300, 300), 100))
        async with http_side(ScriptedEngine()) as side:
            asked = request(body=photo)
            async with side.connection() as client:
                await client.send(asked[:-1])
                await until(lambda: side.by_asgi == ["/predict"])
                await client.send(asked[-1:])
                assert (await client.response()).status_code == 200

    async def test_one_that_asks_whether_it_may_send_its_body_goes_by_asgi(self) -> None:
        async with http_side(ScriptedEngine()) as side, side.connection() as client:
            await client.send(request(content_type="image/png", content_length=str(len(png())), expect="100-continue"))
            assert (await client.response()).status_code == 100
            await client.send(png())
            assert (await client.response()).status_code == 200
            assert side.by_asgi == ["/predict"]

    async def test_a_page_of_another_origin_goes_by_asgi_where_that_is_allowed(self) -> None:
        async with http_side(ScriptedEngine(), cors_origins=("https://page.example",)) as side:
            await answer(side, request(body=png(), origin="https://page.example"))
            await answer(side, request(body=png()))
            assert side.by_asgi == ["/predict"]

    async def test_one_behind_another_goes_by_asgi_and_is_answered_after_it(self) -> None:
        engine = ScriptedEngine()
        async with http_side(engine) as side, side.connection() as client:
            await client.send(
                request(body=png(), x_request_id="first") + request(body=png(), x_request_id="second") + request("/x")
            )
            answers = [await client.response() for _ in range(3)]
            assert [each.status_code for each in answers] == [200, 200, 404]
            assert [each.headers["x-request-id"] for each in answers[:2]] == ["first", "second"]
            assert side.by_asgi == ["/predict", "/x"]


def what_is_said(answer: Response) -> dict[str, Any]:
    document = answer.json()
    headers = {**answer.headers, "date": ""}
    headers.pop("connection", None)  # by ASGI an answer may come before the body was read
    if "code" in document:
        document["request_id"] = ""
    return {"status": answer.status_code, "headers": sorted(headers.items()), "document": document}


@pytest.mark.parametrize(
    ("query", "content_type", "body"),
    [
        ("?model=digits", "image/png", png()),
        ("?model=digits&top_k=3", "application/octet-stream", png(1)),
        ("?model=letters&version=1", FORM, form(png())),
        ("?model=digits", FORM, form(png(), b"no image", png(2))),
        ("?model=digits", FORM, form(*[png()] * (MAX_FILES + 1))),
        ("?model=digits", FORM, form()),
        ("?model=digits", FORM, form(png())[:-10]),
        ("?model=digits", "multipart/form-data", form(png())),
        ("?model=digits", "image/jpeg", encoded(Image.effect_noise((200, 100), 50), "JPEG")),
        ("?model=digits", "image/png", png(size=(1100, 1000))),
        ("?model=digits", "image/png", png()[:-30]),
        ("?model=digits", "image/png", b"%PDF-1.7"),
        ("?model=digits", "image/png", b""),
        ("?model=digits", "text/plain", png()),
        ("?model=digits", "text/plain", b"no image"),
        ("?model=digits", "application/json", b'{"image": ""}'),
        ("?model=digits", FORM, form(png()).replace(b'"file"', b'"image"')),
        ("?model=digits", FORM, form(png()) + form(png()).replace(b'"file"', b'"image"')),
        ("?model=digits&version=&top_k=", "", png()),
        ("?model=nobody", "image/png", png()),
        ("?model=digits&version=9", "image/png", png()),
        ("?model=digits&version=1", "image/png", png()),
        ("?model=digits&top_k=none", "image/png", png()),
        ("", "image/png", png()),
    ],
)
async def test_both_ways_say_the_same(server: ServerProcess, query: str, content_type: str, body: bytes) -> None:
    async with connection(server.port) as fast, connection(server.port) as by_asgi:
        await fast.send(request("/predict" + query, body, content_type=content_type, x_request_id="one"))
        await by_asgi.send(
            request("/predict" + query, content_type=content_type, x_request_id="one", transfer_encoding="chunked")
        )
        await by_asgi.send(chunked(*([body] if body else []), b""))
        assert what_is_said(await fast.response()) == what_is_said(await by_asgi.response())


@pytest.mark.parametrize("asked", [request(body=png(), content_encoding="gzip"), request(body=png(), x_request_id="?")])
async def test_both_ways_read_the_same_headers(server: ServerProcess, asked: bytes) -> None:
    head, _, body = asked.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
    by_chunks = b"\r\n".join([*lines, b"transfer-encoding: chunked", b"", chunked(body, b"")])
    async with connection(server.port) as fast, connection(server.port) as by_asgi:
        await fast.send(asked)
        await by_asgi.send(by_chunks)
        answers = await fast.response(), await by_asgi.response()
        assert answers[0].status_code == answers[1].status_code
        assert len({each.headers["x-request-id"] for each in answers} - {"?"}) == 2


class TestErrors:
    async def test_a_bug_is_told_and_logged_and_the_connection_lives(
        self, check_problem: CheckProblem, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = ScriptedEngine()
        engine.submit_error = ZeroDivisionError("a bug")
        async with http_side(engine) as side, side.connection() as client:
            await client.send(request(body=png()))
            check_problem(await client.response(), "internal_error")
            assert "ZeroDivisionError: a bug" in caplog.text
            await client.send(request(body=png()))
            assert (await client.response()).status_code == 200
            assert side.by_asgi == []

    async def test_what_the_engine_says_later(self, check_problem: CheckProblem) -> None:
        engine = ScriptedEngine()
        engine.told = Overloaded("1024 images are waiting already")
        async with http_side(engine) as side:
            assert "1024" in check_problem(await answer(side, request(body=png())), "overloaded")

    async def test_pixels_that_have_become_the_wrong_ones_on_their_way_are_made_again(self) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        engine.told = Stale("version 2 wants its images prepared differently")
        async with http_side(engine) as side, side.connection() as client:
            await client.send(request(body=png()))
            await engine.submitted.get()
            engine.preprocess = PHOTOS
            engine.gate.set()
            assert (await client.response()).status_code == 200
            assert (await engine.submitted.get()).items[0].shape == (64, 64, 3)

    async def test_an_engine_that_hangs_costs_no_more_than_the_deadline(self, check_problem: CheckProblem) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine, deadline_seconds=0.01) as side:
            check_problem(await answer(side, request(body=png())), "deadline_exceeded")
            assert engine.cancelled.get_nowait() is engine.submitted.get_nowait()

    async def test_a_small_body_that_does_not_come(self, check_problem: CheckProblem) -> None:
        async with http_side(ScriptedEngine(), upload_seconds=0.01) as side, side.connection() as client:
            await client.send(request(content_type="image/png", content_length="100"))
            late = await client.response()
            assert "0.01 seconds" in check_problem(late, "upload_too_slow")
            assert late.headers["connection"] == "close"
            assert await client.rest() == b""
            assert side.by_asgi == []

    async def test_whatever_became_of_it_what_it_held_is_free_again(self) -> None:
        engine = ScriptedEngine()
        limits = {"max_requests": 1, "max_pending_mb": 0.001, "max_queue": 1}
        async with http_side(engine, **limits) as side:
            for body, outcome in [
                (png(), ItemError("prediction_failed", "the scores are not finite")),
                (b"no image", None),
                (png(size=(300, 300)), None),
                (b"", None),
                (png(), Overloaded("full")),
                (png(), ZeroDivisionError("a bug")),
                (png(), None),
            ]:
                if isinstance(outcome, Exception):
                    engine.submit_error = outcome
                elif outcome is not None:
                    engine.outcome = outcome
                await answer(side, request(body=body))
            engine.outcome = ScriptedEngine().outcome
            assert (await answer(side, request(body=png()))).status_code == 200
            assert side.by_asgi == []


class TestEnds:
    async def test_who_wants_the_connection_closed_is_answered_first(self) -> None:
        async with http_side(ScriptedEngine()) as side, side.connection() as client:
            await client.send(request(body=png(), connection="close"))
            last = await client.response()
            assert (last.status_code, last.headers["connection"]) == (200, "close")
            assert await client.rest() == b""

    async def test_a_body_that_is_on_its_way_when_the_server_stops_is_answered(self) -> None:
        asked = request(body=png())
        async with http_side(ScriptedEngine()) as side, side.connection() as client:
            await client.send(asked[:-20])
            await until(lambda: in_flight(side) == 1)
            side.stop()
            await until(lambda: refuses(side.port))
            await client.send(asked[-20:])
            last = await client.response()
            assert (last.status_code, last.headers["connection"]) == (200, "close")

    async def test_one_whose_body_is_on_its_way_is_told_when_the_grace_period_is_over(
        self, check_problem: CheckProblem
    ) -> None:
        async with http_side(ScriptedEngine(), grace_seconds=0.01) as side, side.connection() as client:
            await client.send(request(body=png())[:-20])
            await until(lambda: in_flight(side) == 1)
            side.stop()
            check_problem(await client.response(), "draining")

    @pytest.mark.parametrize("sent", [len(request(body=png())), -20])
    async def test_a_client_that_leaves_is_counted_out(self, sent: int) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine) as side, side.connection() as client:
            await client.send(request(body=png())[:sent])
            if sent > 0:
                await engine.submitted.get()
            await until(lambda: in_flight(side) == 1)
            client.hang_up()
            await until(lambda: in_flight(side) == 0)

    async def test_one_that_leaves_while_several_images_are_computed_drops_them(self) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine) as side, side.connection() as client:
            await client.send(request(body=form(png(), png(1)), content_type=FORM))
            submitted = await engine.submitted.get()
            client.hang_up()
            async with asyncio.timeout(PATIENCE):
                assert await engine.cancelled.get() is submitted

    async def test_what_is_dropped_before_it_is_decoded_goes_no_further(self) -> None:
        engine, ended = ScriptedEngine(), list[object]()
        (route,) = create_app(engine, Settings(), Metrics()).fast_routes
        first, _ = [route.start({b"content-type": b"image/png"}, b"", png(), ended.append) for _ in range(2)]
        first.cancel()
        await until(lambda: len(ended) == 1)
        assert engine.submitted.qsize() == 1
        assert isinstance(route, PredictFastPath)
        assert route.predict.admission.requests.held == 0

    @pytest.mark.parametrize("query", [b"", b"top_k=none", b"model=nobody"])
    async def test_who_cancels_is_told_nothing_whatever_came_of_it(self, query: bytes) -> None:
        cancelled, waits = list[object](), list[object]()
        (route,) = create_app(ScriptedEngine(), Settings(), Metrics()).fast_routes
        for told in (cancelled, waits):
            work = route.start({b"content-type": b"image/png"}, query, png(), told.append)
            if told is cancelled:
                work.cancel()
        await until(lambda: len(waits) == 1)
        assert cancelled == []

    async def test_one_that_does_not_read_its_answers_is_left_to_asgi_which_waits_for_it(self) -> None:
        """Otherwise what it does not read would grow in memory."""
        asked = list[str]()

        async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
            asked.append(scope["path"])

        routes = create_app(ScriptedEngine(), Settings(), Metrics()).fast_routes
        server = Server(asgi, Settings(), Metrics(), fast_routes=routes)
        server.config.load()
        protocol = server.config.http_protocol_class(server.config, server.server_state, {})  # type: ignore[call-arg]
        protocol.connection_made(Nowhere())
        protocol.pause_writing()
        protocol.data_received(request(body=png()))
        await until(lambda: asked == ["/predict"])
        protocol.connection_lost(None)


class Nowhere(asyncio.Transport):
    """A connection that leads nowhere."""

    def get_extra_info(self, name: str, default: object = None) -> object:  # noqa: ARG002
        return default

    def write(self, data: object) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass
