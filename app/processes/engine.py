"""The engine process: the models and the device, on an event loop of their own, for front-ends in other processes."""

from app.processes.early_signals import ignore_signals

if __name__ == "__main__":
    ignore_signals()  # before the imports below, which take their time

import asyncio
import logging
import socket
import sys

import uvloop

from app.inference.local_engine import LocalEngine
from app.ipc.engine_server import EngineServer
from app.processes.announce import announce
from app.processes.child import STOP, ChildConfig
from app.processes.gc_tuning import tune_gc, untune_gc
from app.telemetry.metrics import Metrics

logger = logging.getLogger("app")


def main() -> int:
    """Runs as a child of the supervisor.

    Returns the exit code: 0 after a signal, 1 after a failure, 2 for what a person has to put right.
    """
    config = ChildConfig.read()
    metrics = Metrics(config.counters, config.process)
    try:
        engine = LocalEngine(config.settings, metrics, owns_loop=True)
    except (ImportError, ValueError) as error:
        print(f"flambeau: {error}", file=sys.stderr)
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(engine, EngineServer(engine, metrics), config))


async def _run(engine: LocalEngine, server: EngineServer, config: ChildConfig) -> int:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(STOP, stopped.set)
    await engine.start()
    tasks = {
        "serving": asyncio.create_task(server.serve(socket.socket(fileno=config.rendezvous))),
        "announcing": asyncio.create_task(_announce(engine, server, config)),
        "stopped": asyncio.create_task(stopped.wait()),
        "failed": asyncio.create_task(engine.failed()),
    }
    await asyncio.wait([tasks[name] for name in ("serving", "stopped", "failed")], return_when=asyncio.FIRST_COMPLETED)
    code = 0
    if not stopped.is_set():
        code = 1
        error = tasks["failed"].result() if tasks["failed"].done() else tasks["serving"].exception()
        logger.error("the engine has failed", exc_info=error)
    await engine.close()
    for task in tasks.values():
        task.cancel()
    await asyncio.wait(tasks.values())
    untune_gc()
    return code


async def _announce(engine: LocalEngine, server: EngineServer, config: ChildConfig) -> None:
    await engine.started()
    await server.ready(config.front_ends)
    tune_gc()
    announce(await engine.status(), config.address)


if __name__ == "__main__":
    sys.exit(main())
