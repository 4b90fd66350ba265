"""An engine behind HTTP, until a signal, or until the engine has failed. Imports no torch."""

import asyncio
import logging
import signal
import socket
from collections.abc import Iterable

from app.api.application import create_app
from app.engine.interface import ControlledEngine
from app.http.draining import Draining, drained
from app.http.server import Server
from app.processes.gc_tuning import tune_gc
from app.settings import Settings
from app.telemetry.metrics import Metrics

logger = logging.getLogger("app")


async def serve(
    engine: ControlledEngine,
    settings: Settings,
    metrics: Metrics,
    listener: socket.socket,
    listening: asyncio.Event | None = None,
    *,
    stop: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    drain: signal.Signals | None = None,
) -> int:
    """Answers HTTP on the listener until one of the signals `stop`, or until the engine has failed.

    Args:
        listening: is set once connections are accepted.
        stop: a second one of them ends what is going on.
        drain: a parent sends it before `stop`, and decides how long the drain takes. None: `stop` begins the drain.

    Returns: The exit code: 0 after a signal, 1 after a failure.
    """
    draining = Draining()
    app = create_app(engine, settings, metrics, draining)
    server = Server(app.asgi, settings, metrics, fast_routes=app.fast_routes, listening=listening, draining=draining)
    loop = asyncio.get_running_loop()
    ending = _Ending(server, settings, metrics, listener)
    for number in stop:
        loop.add_signal_handler(number, ending.begin if drain is None else server.stop)
    if drain is not None:
        loop.add_signal_handler(drain, server.drain)
    watching = asyncio.create_task(_watch(engine, server))
    tuning = asyncio.create_task(_tune_gc_when_started(engine, server))
    await server.serve(sockets=[listener])
    tuning.cancel()
    return watching.result() if watching.done() else 0


class _Ending:
    """Drains a server that has no parent, and stops it then."""

    def __init__(self, server: Server, settings: Settings, metrics: Metrics, listener: socket.socket) -> None:
        self._server = server
        self._settings = settings
        self._metrics = metrics
        self._listener = listener
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begins to drain. The second time, it waits for nothing any more."""
        if self._task is None:
            self._server.drain()
            self._task = asyncio.get_running_loop().create_task(self._drain_and_stop())
        else:
            self._hurry.set()
            self._server.stop()
            self._server.stop()

    async def _drain_and_stop(self) -> None:
        settings = self._settings
        await drained(
            self._metrics.connections,
            self._listener,
            seconds=settings.drain_seconds,
            min_seconds=settings.drain_min_seconds,
            hurry=self._hurry,
        )
        if not self._server.should_exit:  # meanwhile, by a second signal or because the engine has failed
            self._server.stop()


async def _watch(engine: ControlledEngine, server: Server) -> int:
    """Waits for the engine to fail: a server that cannot predict does not go on."""
    await server.listening.wait()
    error = await engine.failed()
    logger.error("the engine has failed", exc_info=error)
    server.stop()
    return 1


async def _tune_gc_when_started(engine: ControlledEngine, server: Server) -> None:
    """Only then all is loaded that lives as long as the process."""
    await server.listening.wait()
    await engine.started()
    tune_gc()
