"""EngineServer: the models, on an event loop of their own, for front-ends that ask over a unix socket.

While a batch is computed nothing else runs here. What the front-ends send meanwhile waits in the kernel's buffers, is
read once the batch's rows are on their way, and is the next batch. No lock, and no thread to hand over to.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from app.engine.catalogue import Catalogue
from app.engine.errors import EngineError
from app.engine.interface import Cancelable
from app.engine.model_info import ModelInfo, ReloadReport
from app.engine.rows import Table
from app.ipc import wire
from app.ipc.corked import Corked
from app.ipc.rendezvous import accept
from app.lifecycle.loaded import LoadedVersions
from app.telemetry.metrics import Metrics

_HEARTBEAT_SECONDS = 1.0


class ServedModels(Protocol):
    """What an EngineServer needs of the engine whose models it serves.

    Attributes:
        on_change: is called with the name of a model when something about it has changed; with None for what concerns
            all of them.
    """

    on_change: Callable[[str | None], None]

    @property
    def catalogue(self) -> Catalogue: ...
    @property
    def versions(self) -> LoadedVersions: ...
    def model_info(self, name: str) -> ModelInfo | None: ...
    async def reload(self, model: str, *, deadline: float) -> ReloadReport: ...


class EngineServer:
    """Answers front-ends for an engine, on the loop of both."""

    def __init__(self, engine: ServedModels, metrics: Metrics) -> None:
        self.engine = engine
        self._metrics = metrics
        self._front_ends: dict[_FrontEnd, None] = {}
        self._accepting: set[asyncio.Task[Any]] = set()
        self._ready = 0
        self._one_more_ready = asyncio.Event()
        self._dirty: dict[str | None, None] = {}  # the models of which the front-ends do not know the latest
        engine.on_change = self._changed

    async def serve(self, rendezvous: socket.socket) -> None:
        """Serves until it is cancelled.

        Args:
            rendezvous: the engine process's side; see `app.ipc.rendezvous`.
        """
        loop = asyncio.get_running_loop()
        loop.add_reader(rendezvous.fileno(), self._accept, rendezvous)
        try:
            while True:
                await asyncio.sleep(_HEARTBEAT_SECONDS)
                self._metrics.note_waiting()
                for each in self._front_ends:
                    each.write(wire.frame(wire.HEARTBEAT))
        finally:
            loop.remove_reader(rendezvous.fileno())
            for each in self._front_ends:
                each.close()

    async def ready(self, count: int) -> None:
        """Waits until so many front-ends have known what the whole store holds."""
        while self._ready < count:
            self._one_more_ready.clear()
            await self._one_more_ready.wait()

    def count_ready(self) -> None:
        """Counts one more front-end that knows what the whole store holds."""
        self._ready += 1
        self._one_more_ready.set()

    def add(self, front_end: "_FrontEnd") -> None:
        """Tells a new front-end everything, and from now on what changes."""
        self._front_ends[front_end] = None
        for model in self.engine.catalogue.stored:
            front_end.write(self._update(model))
        front_end.write(self._state())

    def remove(self, front_end: "_FrontEnd") -> None:
        """Forgets a front-end that is gone."""
        self._front_ends.pop(front_end, None)

    def broadcast_state(self) -> None:
        """Tells the front-ends what has changed: who is answered after this knows the version that answers."""
        if self._dirty:
            frames = [*(self._update(model) for model in self._dirty if model is not None), self._state()]
            self._dirty = {}
            for front_end in self._front_ends:
                front_end.write(*frames)

    def _accept(self, rendezvous: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            front_end = accept(rendezvous)
            if front_end is not None:
                loop = asyncio.get_running_loop()
                accepting = loop.create_task(loop.connect_accepted_socket(lambda: _FrontEnd(self), front_end))
                self._accepting.add(accepting)
                accepting.add_done_callback(self._accepting.discard)

    def _changed(self, model: str | None) -> None:
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self.broadcast_state)
        self._dirty[model] = None

    def _update(self, model: str) -> bytes:
        catalogue, info = self.engine.catalogue, self.engine.model_info(model)
        return _control(
            wire.ModelUpdate(
                model=model,
                info=None if info is None else wire.MODEL_INFO.dump_json(info).decode(),
                stored=catalogue.stored.get(model),
                route=catalogue.routes.get(model),
                entries=tuple(entry for entry in catalogue.entries.values() if entry.model == model),
            )
        )

    def _state(self) -> bytes:
        catalogue = self.engine.catalogue
        return _control(
            wire.StateUpdate(
                default_model=catalogue.default_model,
                complete=catalogue.complete,
                device=catalogue.device,
                why_not_ready=catalogue.why_not_ready,
                passed_over=catalogue.passed_over,
            )
        )


class _FrontEnd(asyncio.Protocol):
    """The connection to one front-end."""

    def __init__(self, server: EngineServer) -> None:
        self._server = server
        self._frames = wire.FrameDecoder()
        self._submissions: dict[int, Cancelable] = {}
        self._reloads: set[asyncio.Task[None]] = set()
        self._is_ready = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        corked = Corked(transport)
        self.write = corked.write
        self.close = corked.close
        self._server.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  whatever it was, it is gone
        self._server.remove(self)
        for number in list(self._submissions):
            self._cancel(number)

    def data_received(self, data: bytes) -> None:
        for kind, number, received, start, end in self._frames.feed(data):
            if kind == wire.SUBMIT:
                self._submit(number, received, start)
            elif kind == wire.CANCEL:
                self._cancel(number)
            elif kind == wire.CONTROL:
                self._control(number, wire.TO_ENGINE.validate_json(received[start:end]))

    def _submit(self, number: int, data: bytes, start: int) -> None:
        entry, count, top_k, seconds, pixels_start = wire.read_submit(data, start)
        versions = self._server.engine.versions
        try:
            height, width, channels = versions.entry(entry).preprocess.shape
            pixels = np.frombuffer(data, np.uint8, count * height * width * channels, pixels_start)
            self._submissions[number] = versions.submit(
                entry,
                pixels.reshape(count, height, width, channels),  # type: ignore[arg-type]  # a sequence of images
                top_k=top_k,
                deadline=time.monotonic() + seconds,
                on_rows=partial(self._done, number),
            )
        except EngineError as error:
            self._refuse(number, error)

    def _done(self, number: int, rows: Table | EngineError) -> None:
        del self._submissions[number]
        if isinstance(rows, EngineError):
            self._refuse(number, rows)
        else:
            self._server.broadcast_state()
            self.write(*wire.rows_frame(number, rows))

    def _cancel(self, number: int) -> None:
        """Cancels a submission. It may have been answered already: the two crossed."""
        submission = self._submissions.pop(number, None)
        if submission is not None:
            submission.cancel()

    def _control(self, number: int, message: wire.ToEngine) -> None:
        if isinstance(message, wire.Reload):
            reload = asyncio.create_task(self._reload(number, message))
            self._reloads.add(reload)
            reload.add_done_callback(self._reloads.discard)
        elif not self._is_ready:
            self._is_ready = True
            self._server.count_ready()

    async def _reload(self, number: int, message: wire.Reload) -> None:
        try:
            report = await self._server.engine.reload(message.model, deadline=time.monotonic() + message.seconds)
        except EngineError as error:
            self._refuse(number, error)
        else:
            self._server.broadcast_state()
            self.write(_control(wire.Reloaded(report), number))

    def _refuse(self, number: int, error: EngineError) -> None:
        self._server.broadcast_state()
        self.write(wire.error_frame(number, error))


def _control(message: wire.FromEngine, number: int = 0) -> bytes:
    return wire.frame(wire.CONTROL, number, wire.FROM_ENGINE.dump_json(message))
