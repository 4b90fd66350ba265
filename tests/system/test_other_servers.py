"""The application under ASGI servers that are not ours: the same answers, and nothing is computed for nobody."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

import httpx2
import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from app.api.application import create_app
from app.settings import Settings
from app.telemetry.metrics import Metrics
from tests.support.answers import CheckProblem
from tests.support.checkpoints import png
from tests.support.engines import ScriptedEngine
from tests.support.http_side import http_side
from tests.support.raw import PATIENCE, connection, request

pytestmark = pytest.mark.anyio


def asgi(engine: ScriptedEngine) -> ASGIApp:
    return create_app(engine, Settings(), Metrics()).asgi


@asynccontextmanager
async def under_uvicorn(app: ASGIApp, *, http: Literal["httptools", "h11"]) -> AsyncIterator[int]:
    config = uvicorn.Config(app, http=http, ws="none", lifespan="on", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await serving


@asynccontextmanager
async def under_httptools(app: ASGIApp) -> AsyncIterator[int]:
    async with under_uvicorn(app, http="httptools") as port:
        yield port


@asynccontextmanager
async def under_h11(app: ASGIApp) -> AsyncIterator[int]:
    async with under_uvicorn(app, http="h11") as port:
        yield port


@asynccontextmanager
async def under_hypercorn(app: ASGIApp) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config, stop = hypercorn.config.Config(), asyncio.Event()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    async with asyncio.TaskGroup() as group:
        group.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
        yield port
        stop.set()


Under = Callable[[ASGIApp], AbstractAsyncContextManager[int]]
each_server = pytest.mark.parametrize("under", [under_httptools, under_h11, under_hypercorn])


@pytest.mark.slow
@each_server
async def test_a_prediction_is_answered_as_by_our_own(under: Under) -> None:
    async with http_side(ScriptedEngine()) as side, side.client() as client:
        ours = await client.post("/predict", files={"file": png()})
    async with under(asgi(ScriptedEngine())) as port, connection(port) as client:
        for _ in range(2):
            await client.send(request(body=png()))
            answer = await client.response()
            assert (answer.status_code, answer.content) == (200, ours.content)


@each_server
async def test_what_is_wrong_is_a_problem_document(under: Under, check_problem: CheckProblem) -> None:
    async with under(asgi(ScriptedEngine())) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        check_problem(await client.post("/predict", files={"file": b"no image"}), "bad_image")
        check_problem(
            await client.post("/predict", content=b"x", headers={"content-type": "a/b"}), "unsupported_content_type"
        )
        check_problem(await client.get("/nothing"), "not_found")


@each_server
async def test_a_client_that_leaves_while_it_waits_cancels_its_submit(under: Under) -> None:
    engine = ScriptedEngine()
    engine.gate.clear()
    async with under(asgi(engine)) as port:
        async with connection(port) as client:
            await client.send(request(body=png()))
            submitted = await engine.submitted.get()
        async with asyncio.timeout(PATIENCE):
            assert await engine.cancelled.get() is submitted


async def test_http_2_is_answered_as_http_1_is(check_problem: CheckProblem) -> None:
    async with (
        under_hypercorn(asgi(ScriptedEngine())) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", http1=False, http2=True) as client,
    ):
        assert (await client.post("/predict", files={"file": png()})).http_version == "HTTP/2"
        unwanted = await client.post("/predict", content=bytes(100_000), headers={"content-type": "text/plain"})
        check_problem(unwanted, "unsupported_content_type")


def test_starlettes_test_client_is_answered_too(check_problem: CheckProblem) -> None:
    with TestClient(asgi(ScriptedEngine())) as client:
        answer = client.post("/predict", files={"file": png()})
        assert answer.status_code == 200
        assert answer.json()["predictions"][0]["label"] == "7"
        check_problem(client.post("/predict", files={"file": b"no image"}), "bad_image")
