"""RemoteEngine: the engine that lives in another process, as a front-end sees it. Imports no torch.

What is served is known from what the engine last said. Images go to it, and rows come back, over one unix stream. While
there is no engine process, or while it is silent, a front-end says so at once; who asked may ask again.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Sequence

from app.engine.background import BackgroundTasks
from app.engine.catalogue import Catalogue, ResolvedModel
from app.engine.errors import DeadlineExceeded, Draining, NotReady, Overloaded, Starting
from app.engine.interface import Cancelable, ControlledEngine
from app.engine.model_info import ModelInfo, PassedOver, ReloadReport, Status
from app.engine.predictions import OnDone
from app.ipc import wire
from app.ipc.connection import ABSENT, NOTHING, SILENT_SECONDS, EngineConnection
from app.ipc.rendezvous import connect
from app.telemetry.log import event
from classifier.preprocess import Pixels

logger = logging.getLogger(__name__)

_RECONNECT_SECONDS = 0.05


class RemoteEngine(ControlledEngine):
    """The engine process that is met at a rendezvous; see `app.engine.interface`.

    Args:
        rendezvous: the side of front-ends; see `app.ipc.rendezvous`.
        max_waiting: how many images may wait for an answer.
        silent_seconds: how long an engine process may say nothing until nothing more is asked of it.
    """

    def __init__(self, rendezvous: socket.socket, *, max_waiting: int, silent_seconds: float = SILENT_SECONDS) -> None:
        self._rendezvous = rendezvous
        self._max_waiting = max_waiting
        self._silent_seconds = silent_seconds
        self._connection: EngineConnection | None = None
        self._knows_all = asyncio.Event()
        self._closing = False
        self._tasks = BackgroundTasks()

    async def start(self) -> None:
        self._tasks.start("engine", self._stay_connected())

    async def close(self) -> None:
        self._closing = True
        if self._connection is not None:
            await self._connection.wait_until_none_pending()
        await self._tasks.close(cancel=["engine"])

    async def started(self) -> Status:
        await self._knows_all.wait()
        return await self.status()

    async def failed(self) -> BaseException:
        """Waits for a bug of this process. That the engine process dies is its parent's business."""
        return await self._tasks.failure()

    def resolve(self, model: str | None, version: int | None) -> ResolvedModel:
        return self._catalogue.resolve(model, version)

    def submit_nowait(
        self, resolved: ResolvedModel, items: Sequence[Pixels], *, top_k: int, deadline: float, on_done: OnDone
    ) -> Cancelable:
        remaining = deadline - time.monotonic()
        if self._closing:
            raise Draining("the server is shutting down")
        if remaining <= 0:
            raise DeadlineExceeded("the deadline passed before the images could be queued")
        connection = self._live_connection()  # what is written to one that is silent would only take memory
        if connection.waiting + len(items) > self._max_waiting:
            raise Overloaded(f"{connection.waiting} images are waiting already")
        return connection.submit(resolved.entry, items, top_k=top_k, seconds=remaining, on_done=on_done)

    async def models(self) -> list[ModelInfo]:
        connection = self._live_connection()
        if not connection.informed:
            raise Starting(ABSENT)
        return [wire.MODEL_INFO.validate_json(connection.infos[name]) for name in sorted(connection.infos)]

    async def passed_over(self) -> tuple[PassedOver, ...]:
        return self._live_connection().catalogue.passed_over

    async def reload(self, model: str, *, deadline: float) -> ReloadReport:
        if self._closing:
            raise Draining("the server is shutting down")
        return await self._live_connection().reload(model, deadline - time.monotonic())

    async def status(self) -> Status:
        connection, catalogue = self._connection, self._catalogue
        missing = catalogue.why_not_ready
        try:
            self._live_connection()
        except NotReady as error:
            missing = str(error)
        return Status(
            ready=missing is None,
            detail=missing or "ready",
            device=catalogue.device,
            served=catalogue.served,
            waiting_items=0 if connection is None else connection.waiting,
        )

    @property
    def _catalogue(self) -> Catalogue:
        return NOTHING if self._connection is None else self._connection.catalogue

    def _live_connection(self) -> EngineConnection:
        """Gives the connection to an engine process that lives. Raises: NotReady."""
        if self._connection is None or self._connection.lost.is_set():
            raise Starting(ABSENT)
        if self._connection.seconds_since_heartbeat > self._silent_seconds:
            raise NotReady(f"the engine process has said nothing for {self._silent_seconds:g} seconds")
        return self._connection

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, connection = await loop.create_unix_connection(
                    lambda: EngineConnection(self._knows_all, check_seconds=self._silent_seconds / 10),
                    sock=connect(self._rendezvous),
                )
            except OSError:
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            self._connection = connection
            try:
                await connection.lost.wait()
            finally:
                self._connection = None
                connection.close()
            event(logger, "the engine process is gone", level=logging.WARNING)
            await asyncio.sleep(_RECONNECT_SECONDS)  # one that ends each time it is asked would take all of a core
