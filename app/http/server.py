"""uvicorn as this service needs it: its settings, no signal handlers of its own, and an event when it listens."""

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Iterator

import uvicorn
from starlette.types import ASGIApp

from app.http.draining import Draining, accept_all
from app.http.exchange import FastRoute, FastRoutes
from app.http.protocol import LimitedProtocol, limited_protocol
from app.settings import Settings
from app.telemetry.metrics import Metrics


class Server(uvicorn.Server):
    """A server that stops when `stop` is called.

    It handles no signals: uvicorn would raise a signal again after stopping, and the process would not end with 0.

    Args:
        app: answers by ASGI what no fast route answers.
        fast_routes: see `app.http.exchange`.
        listening: is set once connections are accepted.
        draining: is told when the drain begins.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        *,
        fast_routes: Iterable[FastRoute] = (),
        listening: asyncio.Event | None = None,
        draining: Draining | None = None,
    ) -> None:
        self._draining = draining or Draining()
        self._fast_routes = FastRoutes(fast_routes, metrics, upload_seconds=settings.upload_seconds)
        self._protocol = limited_protocol(
            header_seconds=settings.header_seconds,
            max_connections=settings.max_connections,
            metrics=metrics,
            fast_routes=self._fast_routes,
        )
        super().__init__(
            uvicorn.Config(
                app,
                http=self._protocol,
                ws="none",
                lifespan="on",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,  # nothing here asks for the client's address
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=settings.grace_seconds,  # type: ignore[arg-type]  # asyncio takes fractions
            )
        )
        self.listening = listening or asyncio.Event()
        self._stopped = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen, and says so."""
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Runs as uvicorn's does, but ends as soon as the server is stopped."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), 0.1)

    def drain(self) -> None:
        """Lets each answer from now on say that its connection ends with it. New connections are still accepted."""
        self._draining.begun = True
        self._protocol.draining = True
        self._fast_routes.close()
        for connection in self.server_state.connections:
            if isinstance(connection, LimitedProtocol):
                connection.drain()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the port, and then each connection as soon as nothing is lost by that."""
        loop = asyncio.get_running_loop()
        for waiting in [each for listener in sockets or () for each in accept_all(listener)]:
            with contextlib.suppress(OSError):  # it is gone already
                await loop.connect_accepted_socket(self._new_protocol, waiting)
        await super().shutdown(sockets)

    def _new_protocol(self) -> LimitedProtocol:
        return self._protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def stop(self) -> None:
        """Stops the server. If it is called again, open connections are not waited for any longer."""
        self.drain()
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
        self._stopped.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield
