"""One process that does it all: the models, on a thread of their own, and HTTP beside them. Imports torch."""

import asyncio
import socket

import uvloop

from app.inference.local_engine import LocalEngine
from app.processes.announce import announce_when_started
from app.processes.errors import CannotStart
from app.processes.gc_tuning import untune_gc
from app.processes.serving import serve
from app.settings import Settings
from app.telemetry.metrics import Metrics


def run(settings: Settings, listener: socket.socket, address: str) -> int:
    """Serves until a signal or a failure.

    Returns: The exit code: 0 after a signal, 1 after a failure of the engine.
    Raises: CannotStart, where the device is not there, or a package that the settings ask for.
    """
    metrics = Metrics()
    try:
        engine = LocalEngine(settings, metrics)
    except (ImportError, ValueError) as error:
        raise CannotStart(str(error)) from error

    async def until_it_ends() -> int:
        listening = asyncio.Event()
        announcing = asyncio.create_task(announce_when_started(engine, listening, address))
        code = await serve(engine, settings, metrics, listener, listening)
        announcing.cancel()
        untune_gc()
        return code

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(until_it_ends())
