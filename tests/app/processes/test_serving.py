"""One engine behind HTTP, in this process."""

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from app.engine.model_info import Status
from app.processes.serving import serve
from app.settings import Settings
from app.telemetry.metrics import Metrics
from tests.support.engines import ScriptedEngine
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def collector_as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


class LoadingEngine(ScriptedEngine):
    """One whose start takes as long as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded = asyncio.Event()

    async def started(self) -> Status:
        await self.loaded.wait()
        return await super().started()


def apps() -> set[int]:
    """Those that the garbage collector looks through."""
    return {id(each) for each in gc.get_objects() if type(each) is FastAPI}


async def test_the_garbage_collector_is_tuned_once_all_is_loaded_and_never_looks_through_it(
    collector_as_it_was: None,
) -> None:
    engine = LoadingEngine()
    others, frozen, listening = apps(), gc.get_freeze_count(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(serve(engine, Settings(), Metrics(), listener, listening, stop=(signal.SIGUSR1,)))
        try:
            await listening.wait()
            (app,) = apps() - others
            assert gc.get_freeze_count() == frozen
            engine.loaded.set()
            await until(lambda: gc.get_freeze_count() > frozen)
            assert app not in apps()
        finally:
            os.kill(os.getpid(), signal.SIGUSR1)
            code = await serving
        assert code == 0
