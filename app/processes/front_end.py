"""A front-end: a process that answers HTTP and decodes, for an engine in another process. Imports no torch."""

from app.processes.early_signals import ignore_signals

if __name__ == "__main__":
    ignore_signals()  # before the imports below, which take their time

import asyncio
import socket
import sys

import uvloop

from app.ipc.remote_engine import RemoteEngine
from app.processes.child import DRAIN, STOP, ChildConfig
from app.processes.serving import serve
from app.telemetry.metrics import Metrics


def main() -> int:
    """Runs as a child of the supervisor. Returns the exit code: 0 after a signal, 1 after a failure."""
    config = ChildConfig.read()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: ChildConfig) -> int:
    settings = config.settings.share_of(config.front_ends)
    metrics = Metrics(config.counters, config.process)
    engine = RemoteEngine(socket.socket(fileno=config.rendezvous), max_waiting=settings.max_queue)
    return await serve(engine, settings, metrics, socket.socket(fileno=config.listener), stop=(STOP,), drain=DRAIN)


if __name__ == "__main__":
    sys.exit(main())
