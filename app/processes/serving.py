"""An engine behind HTTP, until a signal, or until the engine has failed. Imports no torch."""

import asyncio
import logging
import signal
import socket
from collections.abc import Iterable

from app.api.application import create_app
from app.engine.interface import ControlledEngine
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
) -> int:
    """Answers HTTP on the listener until one of the signals `stop`, or until the engine has failed.

    Args:
        listening: is set once connections are accepted.

    Returns: The exit code: 0 after a signal, 1 after a failure.
    """
    app = create_app(engine, settings, metrics)
    server = Server(app.asgi, settings, metrics, fast_routes=app.fast_routes, listening=listening)
    loop = asyncio.get_running_loop()
    for number in stop:
        loop.add_signal_handler(number, server.stop)
    watching = asyncio.create_task(_watch(engine, server))
    tuning = asyncio.create_task(_tune_gc_when_started(engine, server))
    await server.serve(sockets=[listener])
    tuning.cancel()
    return watching.result() if watching.done() else 0


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
