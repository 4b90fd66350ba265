"""Every error that a client can meet, through HTTP: a problem document with its status and its code."""

import asyncio
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import FastAPI, Query
from PIL import Image
from starlette.exceptions import HTTPException

from app.engine.errors import DeadlineExceeded, Draining, NotReady, Overloaded, Stale
from app.engine.predictions import ItemError
from app.http.middleware import ProblemDocuments, RequestIdAndMetrics
from app.http.problems import HANDLERS, PROBLEMS, Problem
from app.telemetry.metrics import Metrics
from tests.support.answers import MAX_FILES, CheckProblem
from tests.support.checkpoints import PHOTOS, png
from tests.support.engines import ScriptedEngine
from tests.support.gates import gated
from tests.support.http_side import http_side
from tests.support.images import encoded
from tests.support.raw import chunked, connection, request
from tests.support.server import ServerProcess, serving

PREDICT = "/predict?model=digits"


def form(*contents: bytes) -> Any:
    return [("file", (f"{i}.png", content)) for i, content in enumerate(contents)]


class TestBadRequest:
    def test_a_form_that_is_cut_short(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + png()
        answer = client.post(PREDICT, content=body, headers={"content-type": "multipart/form-data; boundary=b"})
        check_problem(answer, "bad_multipart")

    def test_a_form_without_a_boundary(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        answer = client.post(PREDICT, content=b"x", headers={"content-type": "multipart/form-data"})
        assert "boundary" in check_problem(answer, "bad_multipart")

    def test_a_form_without_a_file(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        answer = client.post(PREDICT, files={"picture": (None, b"seven")})
        assert "'file'" in check_problem(answer, "no_file")

    def test_a_form_whose_files_have_different_names(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        answer = client.post(PREDICT, files={"left": png(), "right": png()})
        assert "'left', 'right'" in check_problem(answer, "no_file")

    def test_an_empty_body(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        answer = client.post(PREDICT, content=b"", headers={"content-type": "image/png"})
        assert "empty" in check_problem(answer, "no_file")


class TestNotFound:
    @pytest.mark.anyio
    @pytest.mark.parametrize(
        "path",
        [
            "/nothing",
            "/predict/more",
            "/predict/",
            "//predict",
            "/Predict",
            "/models/digits/1",
            "/models/",
            "/%00",
            "/a/../models",
        ],
    )
    async def test_an_address(self, server: ServerProcess, check_problem: CheckProblem, path: str) -> None:
        async with connection(server.port) as client:
            await client.send(request(path, body=b""))
            check_problem(await client.response(), "not_found")

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        "name", ["none.js", "..", ".", "index.html", "x" * 300 + ".js", "%00.js", "..%2fmain.py", "%E2%98%83.css"]
    )
    async def test_a_file_of_the_pages(self, server: ServerProcess, check_problem: CheckProblem, name: str) -> None:
        async with connection(server.port) as client:
            await client.send(request(f"/web/{name}", method="GET"))
            check_problem(await client.response(), "not_found")

    @pytest.mark.parametrize("name", ["numbers", "Digits", "..", "digits/../letters", "ä", "\x00", "x" * 300, "a\nb"])
    def test_a_model(self, client: httpx2.Client, check_problem: CheckProblem, name: str) -> None:
        quoted = httpx2.QueryParams({"model": name})
        check_problem(client.post(f"/predict?{quoted}", files={"file": png()}), "model_not_found")

    @pytest.mark.anyio
    @pytest.mark.parametrize("name", ["numbers", "..", "%2e%2e", "digits%00", "x" * 300, "%E2%98%83", "Digits", "."])
    @pytest.mark.parametrize(("method", "after"), [("GET", ""), ("POST", "/reload")])
    async def test_a_model_in_the_path(
        self, server: ServerProcess, check_problem: CheckProblem, name: str, method: str, after: str
    ) -> None:
        async with connection(server.port) as client:
            await client.send(request(f"/models/{name}{after}", method=method))
            check_problem(await client.response(), "model_not_found")

    def test_what_was_asked_for_in_vain_is_no_model_afterwards(self, client: httpx2.Client) -> None:
        assert [model["name"] for model in client.get("/models").json()["models"]] == ["digits", "letters"]

    @pytest.mark.parametrize("version", [4, 10**17])
    def test_a_version(self, client: httpx2.Client, check_problem: CheckProblem, version: int) -> None:
        check_problem(client.post(f"{PREDICT}&version={version}", files={"file": png()}), "version_not_found")

    @pytest.mark.parametrize("version", [1, 3])
    def test_a_version_that_is_on_disk_and_not_served(
        self, client: httpx2.Client, check_problem: CheckProblem, version: int
    ) -> None:
        check_problem(client.post(f"{PREDICT}&version={version}", files={"file": png()}), "version_not_loaded")


class TestMethodNotAllowed:
    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("GET", "/predict", "POST, PUT"),
            ("HEAD", "/predict", "POST, PUT"),
            ("PATCH", "/predict", "POST, PUT"),
            ("OPTIONS", "/predict", "POST, PUT"),
            ("PUT", "/models/digits/reload", "POST"),
            ("POST", "/models", "GET, HEAD"),
            ("DELETE", "/models/digits", "GET, HEAD"),
            ("GET", "/models/digits/reload", "POST"),
            ("POST", "/health/ready", "GET, HEAD"),
            ("OPTIONS", "/health/live", "GET, HEAD"),
            ("POST", "/", "GET, HEAD"),
            ("POST", "/openapi.json", "GET, HEAD"),
        ],
    )
    def test_the_answer_says_which_are(
        self, client: httpx2.Client, check_problem: CheckProblem, method: str, path: str, allowed: str
    ) -> None:
        answer = client.request(method, path)
        assert answer.headers["allow"] == allowed
        assert answer.status_code == 405
        if method != "HEAD":
            check_problem(answer, "method_not_allowed")

    @pytest.mark.parametrize(
        "path",
        ["/", "/docs", "/models", "/models/digits", "/health/live", "/health/ready", "/metrics", "/openapi.json"],
    )
    def test_whatever_can_be_got_can_be_asked_for_its_head(self, client: httpx2.Client, path: str) -> None:
        head, got = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == got.headers["content-type"]


class TestTooLarge:
    def test_a_body_by_its_announced_length(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        answer = client.post(PREDICT, content=bytes(1_000_001), headers={"content-type": "image/png"})
        assert "1,000,000" in check_problem(answer, "upload_too_large")

    @pytest.mark.anyio
    async def test_before_any_of_it_has_come(self, server: ServerProcess, check_problem: CheckProblem) -> None:
        async with connection(server.port) as client:
            await client.send(request(content_type="image/png", content_length="10000000"))
            check_problem(await client.response(), "upload_too_large")

    @pytest.mark.anyio
    async def test_while_it_streams(self, server: ServerProcess, check_problem: CheckProblem) -> None:
        async with connection(server.port) as client:
            await client.send(request(content_type="image/png", transfer_encoding="chunked"))
            await client.send(chunked(bytes(600_000)))
            await client.send(chunked(bytes(600_000)))
            check_problem(await client.response(), "upload_too_large")

    def test_too_many_files(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        assert client.post(PREDICT, files=form(*[png()] * MAX_FILES)).status_code == 200
        answer = client.post(PREDICT, files=form(*[png()] * (MAX_FILES + 1)))
        assert str(MAX_FILES) in check_problem(answer, "too_many_files")

    def test_too_many_pixels(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        image = encoded(Image.new("L", (1001, 1000)))
        assert "1001x1000" in check_problem(client.post(PREDICT, files={"file": image}), "too_many_pixels")


class TestUnsupported:
    @pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded", "x"])
    def test_a_content_type_of_what_is_no_image(
        self, client: httpx2.Client, check_problem: CheckProblem, kind: str
    ) -> None:
        answer = client.post(PREDICT, content=b64encode(png()), headers={"content-type": kind})
        said = check_problem(answer, "unsupported_content_type")
        assert kind in said
        assert "base64" in said
        assert "multipart/form-data" in said

    def test_no_image_without_a_content_type(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        assert "JSON" in check_problem(client.post(PREDICT, content=b'{"image": [1, 2]}'), "bad_image")

    @pytest.mark.parametrize("encoding", [b"gzip", b"br", b"identity, gzip", b"\xff"])
    def test_a_content_encoding(self, client: httpx2.Client, check_problem: CheckProblem, encoding: bytes) -> None:
        headers = {b"content-type": b"image/png", b"content-encoding": encoding}
        check_problem(client.post(PREDICT, content=png(), headers=headers), "unsupported_content_encoding")

    def test_an_image_format(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        answer = client.post(PREDICT, files={"file": b"%PDF-1.7 ..."})
        assert check_problem(answer, "unsupported_format").startswith("PDF is not accepted")


class TestUnprocessable:
    @pytest.mark.parametrize("content", [b"no image", png()[:100], b"\x89PNG\r\n\x1a\n", b"GIF89a"])
    def test_an_image(self, client: httpx2.Client, check_problem: CheckProblem, content: bytes) -> None:
        check_problem(client.post(PREDICT, files={"file": content}), "bad_image")

    @pytest.mark.parametrize("name", ["top_k", "version"])
    @pytest.mark.parametrize("value", ["0", "-1", "x", "1.0", "+1", "1e3", "٣", "9" * 1000, " 1", "1\n", "²"])
    def test_a_parameter(self, client: httpx2.Client, check_problem: CheckProblem, name: str, value: str) -> None:
        query = httpx2.QueryParams({"model": "digits", name: value})
        assert name in check_problem(client.post(f"/predict?{query}", files={"file": png()}), "bad_parameter")

    def test_a_parameter_with_very_many_digits(self, client: httpx2.Client, check_problem: CheckProblem) -> None:
        answer = client.post(f"{PREDICT}&top_k={'9' * 50_000}", files={"file": png()})
        assert len(check_problem(answer, "bad_parameter")) < 200

    @pytest.mark.parametrize("query", ["", "?model=", "?top_k=1"])
    def test_no_model_where_there_are_several(
        self, client: httpx2.Client, check_problem: CheckProblem, query: str
    ) -> None:
        detail = check_problem(client.post(f"/predict{query}", files={"file": png()}), "ambiguous_model")
        assert "digits, letters" in detail


@pytest.mark.slow
@pytest.mark.anyio
async def test_headers_or_a_body_that_come_too_slowly(tmp_path: Path, check_problem: CheckProblem) -> None:
    with serving(tmp_path, "--header-seconds", "0.5", "--upload-seconds", "0.5") as server:
        port = server.port
        async with connection(port) as headers, connection(port) as body, connection(port) as chunks:
            await headers.send(b"POST /predict HTTP/1.1\r\nHost: ")
            await body.send(request(content_type="image/png", content_length="1000") + b"first bytes")
            await chunks.send(request(content_type="image/png", transfer_encoding="chunked") + chunked(b"first"))
            for slow, what in ((headers, "headers"), (body, "body"), (chunks, "body")):
                answer = await slow.response()
                assert f"the {what} did not come within 0.5 seconds" in check_problem(answer, "upload_too_slow")
                assert answer.headers["connection"] == "close"
                assert await slow.rest() == b""


@pytest.mark.anyio
class TestHeaders:
    """What is wrong with a request before there is a request."""

    @pytest.mark.parametrize("data", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n"])
    async def test_bytes_that_are_no_http(
        self, server: ServerProcess, check_problem: CheckProblem, data: bytes
    ) -> None:
        async with connection(server.port) as client:
            await client.send(data)
            check_problem(await client.response(), "bad_request")
            assert await client.rest() == b""

    @pytest.mark.parametrize("length", ["-1", "x", "1e3", "9" * 30, "1, 1", "0x10"])
    async def test_a_length_that_is_none(self, server: ServerProcess, check_problem: CheckProblem, length: str) -> None:
        async with connection(server.port) as client:
            await client.send(request(content_type="image/png", content_length=length))
            check_problem(await client.response(), "bad_request")

    async def test_two_lengths_or_a_length_and_chunks(self, server: ServerProcess, check_problem: CheckProblem) -> None:
        for second in ("content-length: 4", "transfer-encoding: chunked"):
            async with connection(server.port) as client:
                head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n{second}\r\n\r\n"
                await client.send(head.encode() + b"0\r\n\r\n")
                check_problem(await client.response(), "bad_request")
                assert await client.rest() == b""

    @pytest.mark.parametrize("target", ["/pr\xe4dict", "/models/\xff\xfe", "/\x80"])
    async def test_an_address_that_is_not_ascii(
        self, server: ServerProcess, check_problem: CheckProblem, target: str
    ) -> None:
        async with connection(server.port) as client:
            await client.send(request(target, method="GET"))
            check_problem(await client.response(), "bad_request")

    @pytest.mark.parametrize("target", ["*", "host:443", "http://", "", "http://[::1"])
    async def test_an_address_that_is_none(
        self, server: ServerProcess, check_problem: CheckProblem, target: str
    ) -> None:
        for method in ("GET", "OPTIONS", "CONNECT"):
            async with connection(server.port) as client:
                await client.send(request(target, method=method))
                answer = await client.response()
                assert answer.status_code < 500
                check_problem(answer, answer.json()["code"])

    async def test_those_that_are_too_large(self, server: ServerProcess, check_problem: CheckProblem) -> None:
        async with connection(server.port) as client:
            await client.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-much: " + b"x" * 70_000)
            check_problem(await client.response(), "header_too_large")
            assert await client.rest() == b""

    async def test_very_many_of_them(self, server: ServerProcess, check_problem: CheckProblem) -> None:
        async with connection(server.port) as client:
            await client.send(b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 20_000)
            check_problem(await client.response(), "header_too_large")


@pytest.mark.anyio
class TestUnavailable:
    """With an engine of which the test says when it answers."""

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"max_requests": 1}, "requests"),
            ({"max_pending_mb": 0.0005}, "bytes"),
            ({"max_queue": 1}, "images"),
        ],
    )
    async def test_while_one_holds_all_there_is_another_is_refused_and_then_let_in(
        self, check_problem: CheckProblem, settings: dict[str, Any], named: str
    ) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine, **settings) as side, side.connection() as first, side.client() as client:
            await first.send(request(body=png()))
            await engine.submitted.get()
            answer = await client.post("/predict", files={"file": png()})
            assert named in check_problem(answer, "overloaded")
            assert int(answer.headers["retry-after"]) > 0
            engine.gate.set()
            assert (await first.response()).status_code == 200
            assert (await client.post("/predict", files={"file": png()})).status_code == 200

    async def test_a_full_server_says_so_before_the_body_is_sent(self, check_problem: CheckProblem) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine, max_requests=1) as side, side.connection() as first, side.connection() as second:
            await first.send(request(body=png()))
            await engine.submitted.get()
            await second.send(request(content_type="image/png", content_length="1000000"))
            check_problem(await second.response(), "overloaded")

    @pytest.mark.parametrize("headers", [{"content_length": "1000000"}, {"transfer_encoding": "chunked"}])
    async def test_while_there_is_no_room_for_pixels_a_large_image_is_refused_before_it_comes_and_a_small_one_is_not(
        self, check_problem: CheckProblem, headers: dict[str, str]
    ) -> None:
        preprocess, gate, begun = gated()
        large = request(body=png(size=(300, 300)))
        engine = ScriptedEngine(preprocess=preprocess)
        async with (
            http_side(engine, max_pending_megapixels=0.1) as side,
            side.connection() as first,
            side.connection() as second,
            side.connection() as third,
        ):
            await first.send(large)
            assert await asyncio.to_thread(begun.acquire, timeout=30)
            await second.send(large)
            assert "pixels" in check_problem(await second.response(), "overloaded")
            await third.send(request(content_type="image/png", more=headers))
            assert "pixels" in check_problem(await third.response(), "overloaded")
            gate.set()
            assert (await first.response()).status_code == 200
            await second.send(request(body=png()))
            assert (await second.response()).status_code == 200
            await second.send(large)
            assert (await second.response()).status_code == 200

    async def test_several_images_are_admitted_whole_or_refused_whole(self, check_problem: CheckProblem) -> None:
        engine = ScriptedEngine()
        engine.gate.clear()
        async with http_side(engine, max_queue=3) as side, side.connection() as first, side.client() as client:
            await first.send(request(body=png()))
            await engine.submitted.get()
            check_problem(await client.post("/predict", files=form(png(), png(), png())), "overloaded")
            assert engine.submitted.empty()
            engine.gate.set()
            answer = await client.post("/predict", files=form(png(), png(), png()))
            assert len(answer.json()["results"]) == 3
            assert len((await engine.submitted.get()).items) == 3

    async def test_more_files_than_may_ever_wait_are_too_many_not_an_overload(
        self, check_problem: CheckProblem
    ) -> None:
        async with http_side(ScriptedEngine(), max_queue=2, max_files=8) as side, side.client() as client:
            check_problem(await client.post("/predict", files=form(png(), png(), png())), "too_many_files")

    async def test_what_was_refused_or_failed_holds_nothing(self) -> None:
        limits = {"max_requests": 1, "max_pending_mb": 0.001, "max_queue": 1, "max_files": 2}
        async with http_side(ScriptedEngine(), **limits) as side, side.client() as client:
            for content in (b"no image", png()[:50], b"%PDF"):
                assert (await client.post("/predict", files={"file": content})).status_code in (415, 422)
            assert (await client.post("/predict?model=none", files={"file": png()})).status_code == 404
            assert (await client.post("/predict", data={"no": "file"})).status_code == 415
            assert (await client.post("/predict", files={"file": png()})).status_code == 200

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (Overloaded("1024 images are waiting already"), "overloaded"),
            (NotReady("nothing is served"), "not_ready"),
            (Draining("the server is shutting down"), "draining"),
            (DeadlineExceeded("the deadline passed"), "deadline_exceeded"),
        ],
    )
    async def test_what_the_engine_says_is_what_the_client_is_told(
        self, check_problem: CheckProblem, error: Exception, code: str
    ) -> None:
        engine = ScriptedEngine()
        async with http_side(engine) as side, side.client() as client:
            engine.submit_error = error
            answer = await client.post("/predict", files={"file": png()})
            assert check_problem(answer, code) == str(error)
            assert ("retry-after" in answer.headers) == (answer.status_code == 503)
            engine.error = error
            check_problem(await client.post("/predict", files={"file": png()}), code)
            check_problem(await client.post("/models/digits/reload"), code)

    async def test_a_server_that_is_not_ready_says_what_is_missing(self, check_problem: CheckProblem) -> None:
        engine = ScriptedEngine()
        engine.ready = False
        async with http_side(engine) as side, side.client() as client:
            answer = await client.get("/health/ready")
            assert check_problem(answer, "not_ready") == "the store is empty"
            assert int(answer.headers["retry-after"]) > 0
            assert (await client.get("/health/live")).status_code == 200

    async def test_an_answer_that_takes_longer_than_the_deadline(self, check_problem: CheckProblem) -> None:
        async with http_side(ScriptedEngine(), deadline_seconds=1e-6) as side, side.client() as client:
            large = png(size=(300, 300))
            check_problem(await client.post("/predict", files={"file": large}), "deadline_exceeded")

    async def test_a_model_that_is_exchanged_meanwhile_costs_another_decoding(self) -> None:
        engine = ScriptedEngine()
        async with http_side(engine) as side, side.client() as client:
            engine.submit_error = Stale("version 2 wants its images prepared differently")
            posting = client.post("/predict", files={"file": png()})
            engine.preprocess = PHOTOS
            assert (await posting).status_code == 200
            assert [(await engine.submitted.get()).items[0].shape for _ in range(2)] == [(64, 64, 3)] * 2

    async def test_a_model_that_is_exchanged_until_the_deadline(self, check_problem: CheckProblem) -> None:
        engine = ScriptedEngine()
        async with http_side(engine, deadline_seconds=1e-6) as side, side.client() as client:
            engine.submit_error = Stale("version 2 wants its images prepared differently")
            check_problem(await client.post("/predict", files={"file": png()}), "deadline_exceeded")


@pytest.mark.anyio
class TestServerErrors:
    async def test_a_model_that_fails_on_one_image(self, check_problem: CheckProblem) -> None:
        engine = ScriptedEngine()
        engine.outcome = ItemError("prediction_failed", "the scores are not finite")
        async with http_side(engine) as side, side.client() as client:
            answer = await client.post("/predict", files={"file": png()})
            assert check_problem(answer, "prediction_failed") == "the scores are not finite"

    @pytest.mark.parametrize(("method", "path"), [("POST", "/predict"), ("POST", "/models/digits/reload")])
    async def test_what_nobody_foresaw_is_a_problem_document_too_and_is_logged(
        self, check_problem: CheckProblem, caplog: pytest.LogCaptureFixture, method: str, path: str
    ) -> None:
        engine = ScriptedEngine()
        engine.error = RuntimeError("secret detail")
        async with http_side(engine) as side, side.client() as client:
            answer = await client.request(method, path, files={"file": png()})
            assert "secret detail" not in check_problem(answer, "internal_error")
            assert (await client.get("/health/live")).status_code == 200
        assert caplog.text.count("Traceback") >= 1
        assert "secret detail" in caplog.text
        assert 'flambeau_errors_total{code="internal_error"} 1.0' in side.metrics.exposition().decode()


def test_every_code_has_a_status_of_an_error_and_a_title() -> None:
    for code, (status, title) in PROBLEMS.items():
        assert 400 <= status < 600, code
        assert title[0].isupper(), code


def test_a_problem_can_be_raised_wherever_an_exception_can() -> None:
    """Python keeps exceptions in sets in some places, such as where it prints a chain of them."""
    first, second = Problem("overloaded", "full"), Problem("overloaded", "full")
    assert len({first, second, first}) == 2


@pytest.mark.anyio
async def test_what_fastapi_itself_refuses_is_a_problem_document(check_problem: CheckProblem) -> None:
    api = FastAPI(exception_handlers=HANDLERS)

    @api.get("/double")
    async def double(number: Annotated[int, Query(le=10)], name: str) -> int:
        return number * 2

    @api.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout")

    app = RequestIdAndMetrics(ProblemDocuments(api), Metrics())
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
        detail = check_problem(await client.get("/double?number=x"), "bad_parameter")
        assert "number: " in detail
        assert "name: " in detail
        check_problem(await client.get("/double?number=11&name=a"), "bad_parameter")
        check_problem(await client.post("/double"), "method_not_allowed")
        check_problem(await client.get("/nothing"), "not_found")
        check_problem(await client.get("/teapot"), "bad_request")
