"""The HTTP side in this process, over an engine that a test decides on. uvicorn and our protocol serve it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
from starlette.types import Receive, Scope, Send

from app.api.application import create_app
from app.engine.interface import ControlledEngine
from app.http.draining import Draining
from app.http.protocol import LimitedProtocol
from app.http.server import Server
from app.settings import Settings
from app.telemetry.metrics import Metrics
from tests.support.raw import PATIENCE, Connection, connection


class HttpSide:
    """A server on a free loopback port, on this event loop."""

    def __init__(self, port: int, metrics: Metrics, by_asgi: list[str], server: Server) -> None:
        self.port = port
        self.stop: Callable[[], None] = server.stop
        self.server = server
        self.by_asgi = by_asgi  # the paths that were asked for by ASGI
        self.url = f"http://127.0.0.1:{port}"
        self.metrics = metrics

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, timeout=PATIENCE)

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        return connection(self.port)

    async def accepted(self) -> LimitedProtocol:
        """Waits for the server to accept the only connection that is open, and returns its side of it."""
        while not self.server.server_state.connections:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0)  # one turn of the loop
        (protocol,) = self.server.server_state.connections
        assert isinstance(protocol, LimitedProtocol)
        return protocol


@asynccontextmanager
async def http_side(engine: ControlledEngine, **settings: Any) -> AsyncIterator[HttpSide]:
    given, metrics = Settings(**settings), Metrics()
    draining = Draining()
    app = create_app(engine, given, metrics, draining)
    by_asgi: list[str] = []

    async def noted(scope: Scope, receive: Receive, send: Send) -> None:
        by_asgi.append(scope.get("path", ""))
        await app.asgi(scope, receive, send)

    server = Server(noted, given, metrics, fast_routes=app.fast_routes, draining=draining)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        listening = asyncio.create_task(server.listening.wait())
        await asyncio.wait([serving, listening], return_when=asyncio.FIRST_COMPLETED)
        assert not serving.done()
        try:
            by_asgi.clear()  # the lifespan
            yield HttpSide(listener.getsockname()[1], metrics, by_asgi, server)
        finally:
            server.stop()
            await serving
