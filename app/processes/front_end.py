"""A front-end: a process that answers HTTP and decodes, for an engine in another process. Imports no torch."""

import asyncio
import socket
import sys

import uvloop

from app.ipc.remote_engine import RemoteEngine
from app.processes.child import STOP, Orders
from app.processes.gc_tuning import settle
from app.processes.serving import serve
from app.telemetry.metrics import Metrics


def main() -> int:
    """As a child of the supervisor. The exit code."""
    orders = Orders.read()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(orders))


async def _serve(orders: Orders) -> int:
    settings = orders.settings.share_of(orders.front_ends)
    metrics = Metrics(orders.counts, orders.process)
    engine = RemoteEngine(orders.engine_socket, max_waiting=settings.max_queue)
    settle()
    return await serve(engine, settings, metrics, socket.socket(fileno=orders.listener), stop=(STOP,))


if __name__ == "__main__":
    sys.exit(main())
