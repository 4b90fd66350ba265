"""EngineServer: the models, on an event loop of their own, for front-ends that ask over a unix socket.

While a batch is computed nothing else runs here: what the front-ends send meanwhile waits in the kernel's buffers, is
read once the batch's rows are on their way, and is the next batch. No lock, and no thread to hand over to.
"""

import asyncio
import logging
import socket
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import uvloop

from app.batching.batcher import Submission
from app.engine.interface import EngineError, Stale
from app.engine.rows import Row, table
from app.inference.local_engine import Loaded, LocalEngine
from app.inference.predictor import Item
from app.ipc import wire
from app.ipc.corked import Corked
from app.processes.announce import announce
from app.processes.child import STOP, ChildConfig
from app.processes.gc_tuning import tune_gc, untune_gc
from app.telemetry.metrics import Metrics

logger = logging.getLogger("app")

_BEAT_SECONDS = 1.0
# The socket outlives this process. From Python 3.13 on, who stops listening would remove its file.
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}


class EngineServer:
    """Answers front-ends for a LocalEngine, on the loop of both."""

    def __init__(self, engine: LocalEngine, metrics: Metrics) -> None:
        self.engine = engine
        self._metrics = metrics
        self._front_ends: dict[_FrontEnd, None] = {}
        self._ready = 0
        self._news = asyncio.Event()
        self._untold = False
        engine.on_change = self._changed

    async def serve(self, listener: socket.socket) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: _FrontEnd(self), sock=listener, **_KEEP_FILE)
        try:
            while True:
                await asyncio.sleep(_BEAT_SECONDS)
                self._metrics.note_waiting()
                for each in self._front_ends:
                    each.write(wire.frame(wire.BEAT))
        finally:
            server.close()
            for each in self._front_ends:
                each.close()

    async def ready(self, count: int) -> None:
        """Waits until so many front-ends have known what the whole store holds."""
        while self._ready < count:
            self._news.clear()
            await self._news.wait()

    def count_ready(self) -> None:
        self._ready += 1
        self._news.set()

    def welcome(self, front_end: "_FrontEnd") -> None:
        self._front_ends[front_end] = None
        for each in self._state():
            front_end.write(each)

    def forget(self, front_end: "_FrontEnd") -> None:
        self._front_ends.pop(front_end, None)

    def tell(self) -> None:
        """Whoever is answered after this knows of all versions before it sees an answer of theirs."""
        if self._untold:
            self._untold = False
            for each in self._state():
                for front_end in self._front_ends:
                    front_end.write(each)

    def _changed(self) -> None:
        if not self._untold:
            self._untold = True
            asyncio.get_running_loop().call_soon(self.tell)

    def _state(self) -> tuple[bytes, bytes]:
        return (
            wire.frame(wire.CATALOGUE, body=wire.CATALOGUES.dump_json(self.engine.catalogue)),
            wire.frame(wire.MODELS, body=wire.MODEL_LISTS.dump_json(self.engine.models_now())),
        )


class _FrontEnd(asyncio.Protocol):
    """The connection to one front-end."""

    def __init__(self, server: EngineServer) -> None:
        self._server = server
        self._cutter = wire.Cutter()
        self._submissions: dict[int, tuple[Submission[Item, Row], Loaded]] = {}
        self._looks: set[asyncio.Task[None]] = set()
        self._is_ready = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        corked = Corked(transport)
        self.write = corked.write
        self.close = corked.close
        self._server.welcome(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  whatever it was, it is gone
        self._server.forget(self)
        for number in list(self._submissions):
            self._drop(number)

    def data_received(self, data: bytes) -> None:
        for kind, number, body, start, end in self._cutter.feed(data):
            if kind == wire.SUBMIT:
                self._submit(number, body, start)
            elif kind == wire.CANCEL:
                self._drop(number)
            elif kind == wire.RELOAD:
                look = asyncio.create_task(self._reload(number, body[start:end]))
                self._looks.add(look)
                look.add_done_callback(self._looks.discard)
            elif kind == wire.READY and not self._is_ready:
                self._is_ready = True
                self._server.count_ready()

    def _submit(self, number: int, body: bytes, start: int) -> None:
        head = wire.SUBMIT_HEAD.unpack_from(body, start - wire.HEAD.size)
        entry, count, top_k, seconds = head[3:]
        loaded = self._server.engine.served(entry)
        try:
            if loaded is None:
                raise Stale("the version has been replaced")
            shape = loaded.entry.preprocess.shape
            size = count * shape[0] * shape[1] * shape[2]
            pixels = np.frombuffer(body, np.uint8, size, start + wire.SUBMIT_HEAD.size - wire.HEAD.size)
            submission = loaded.lane.put(
                [Item(image, top_k) for image in pixels.reshape(count, *shape)],
                deadline=time.monotonic() + seconds,
                answered=partial(self._answered, number, loaded, top_k),
            )
        except EngineError as error:
            self._refuse(number, error)
            return
        loaded.need()
        self._submissions[number] = submission, loaded

    def _answered(
        self, number: int, loaded: Loaded, top_k: int, outcome: "list[Row | Exception] | EngineError"
    ) -> None:
        del self._submissions[number]
        if isinstance(outcome, EngineError):
            self._refuse(number, outcome)
        else:
            self._server.tell()
            rows = table(outcome, top_k)
            count, columns = rows.shape
            length = wire.ROWS_HEAD.size - wire.HEAD.size + rows.nbytes
            head = wire.ROWS_HEAD.pack(length, wire.ROWS, number, loaded.entry.number, count, columns)
            self.write(head, rows.tobytes())
        loaded.let_go()

    def _drop(self, number: int) -> None:
        """It may have been answered already: the two crossed."""
        submission, loaded = self._submissions.pop(number, (None, None))
        if submission is not None and loaded is not None:
            loaded.lane.drop(submission)
            loaded.let_go()

    async def _reload(self, number: int, body: bytes) -> None:
        model, seconds = wire.RELOADS.validate_json(body)
        try:
            report = await self._server.engine.reload(model, deadline=time.monotonic() + seconds)
        except EngineError as error:
            self._refuse(number, error)
        else:
            self._server.tell()
            self.write(wire.frame(wire.REPORT, number, wire.REPORTS.dump_json(report)))

    def _refuse(self, number: int, error: EngineError) -> None:
        self._server.tell()
        self.write(wire.error_frame(number, error))


def main() -> int:
    """As a child of the supervisor. The exit code: 0 after a signal, 1 after a failure, 2 for what to put right."""
    config = ChildConfig.read()
    metrics = Metrics(config.counters, config.process)
    try:
        engine = LocalEngine(config.settings, metrics, alone=True)
    except (ImportError, ValueError) as error:
        print(f"flambeau: {error}", file=sys.stderr)
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(EngineServer(engine, metrics), config))


async def _run(server: EngineServer, config: ChildConfig) -> int:
    engine = server.engine
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(STOP, stopped.set)
    await engine.start()
    tasks = {
        "serving": asyncio.create_task(server.serve(socket.socket(fileno=config.listener))),
        "announcing": asyncio.create_task(_announce(server, config)),
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


async def _announce(server: EngineServer, config: ChildConfig) -> None:
    await server.engine.started()
    await server.ready(config.front_ends)
    tune_gc()
    announce(await server.engine.status(), config.address)


if __name__ == "__main__":
    sys.exit(main())
