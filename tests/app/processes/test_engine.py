"""The engine's side of the socket that outlives it."""

import asyncio
import socket
from pathlib import Path

import pytest

from app.inference.local_engine import LocalEngine
from app.ipc.engine_server import EngineServer
from app.settings import Settings
from app.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio


async def test_the_sockets_file_is_left_for_the_engine_process_that_comes_next(tmp_path: Path) -> None:
    """The socket is the supervisor's. From Python 3.13 on, a server that ends would remove it."""
    metrics = Metrics()
    server = EngineServer(LocalEngine(Settings(store=tmp_path, device="cpu"), metrics), metrics)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "engine"))
        serving = asyncio.create_task(server.serve(listener))
        await asyncio.sleep(0)
        serving.cancel()
        await asyncio.wait([serving])
    assert (tmp_path / "engine").exists()
