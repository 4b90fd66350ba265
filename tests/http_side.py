"""The HTTP side in this process, over an engine that a test decides on, with uvicorn and its protocol as they serve."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
import uvicorn

from app.engine import Engine
from app.main import create_app
from app.metrics import Metrics
from app.protocol import bounded_head
from app.settings import Settings
from tests.raw import PATIENCE, Connection, connection


class HttpSide:
    """A server on a free loopback port, on this event loop."""

    def __init__(self, port: int, metrics: Metrics) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.metrics = metrics

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, timeout=PATIENCE)

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        return connection(self.port)


@asynccontextmanager
async def http_side(engine: Engine, **settings: Any) -> AsyncIterator[HttpSide]:
    given, metrics = Settings(**settings), Metrics()
    server = _Server(
        uvicorn.Config(
            create_app(engine, given, metrics),
            http=bounded_head(given.header_seconds),
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=given.keep_alive_seconds,
            timeout_graceful_shutdown=given.grace_seconds,  # type: ignore[arg-type]  # handed to asyncio as it is
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        listening = asyncio.create_task(server.listening.wait())
        await asyncio.wait([serving, listening], return_when=asyncio.FIRST_COMPLETED)
        assert not serving.done()
        try:
            yield HttpSide(listener.getsockname()[1], metrics)
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """Says when it listens, and leaves the signals to pytest."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
