"""RemoteEngine: the engine that lives in another process, as a front-end sees it. Imports no torch.

What is served is known from the engine's last catalogue; images go to it, and rows come back, over one unix stream.
While there is no engine process, or while it is silent, a front-end says so at once: nothing hangs on it.
"""

import asyncio
import logging
import struct
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from app.engine.catalogue import Catalogue, Entry
from app.engine.errors import Draining, EngineError, Expired, NotReady, Overloaded, Stale
from app.engine.interface import NO_ANSWER_IN_TIME, Engine, settle
from app.engine.model_info import ModelInfo, ReloadReport, Status
from app.engine.predictions import Answer, Answered, Target
from app.ipc import wire
from app.ipc.corked import Corked
from app.telemetry.log import event
from classifier.preprocess import Pixels

logger = logging.getLogger(__name__)

_RECONNECT_SECONDS = 0.05
_SILENT_SECONDS = 10.0  # an engine that lives says something every second
_ABSENT = "the engine process is not there; it is being started"
_NOTHING = Catalogue(why_not_ready=_ABSENT)


class _Question(Protocol):
    """What waits for an answer of the engine process."""

    images: int

    def tell(self, outcome: Any) -> None:
        """Once: of images an Answer, of a reload a ReloadReport, or why there is none."""


class RemoteEngine(Engine):
    """The engine behind the unix socket at `path`; see `app.engine.interface.Engine`.

    Args:
        max_waiting: images that may wait for an answer.
        silent_seconds: how long an engine process may say nothing until nothing more is asked of it.
    """

    def __init__(self, path: Path, *, max_waiting: int, silent_seconds: float = _SILENT_SECONDS) -> None:
        self._path = path
        self._max_waiting = max_waiting
        self._silent_seconds = silent_seconds
        self._link: _Link | None = None
        self._looked = asyncio.Event()
        self._closing = False
        self._connecting: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._dead = asyncio.Event()

    async def start(self) -> None:
        self._connecting = asyncio.create_task(self._stay_connected(), name="engine")
        self._connecting.add_done_callback(self._ended)

    async def close(self) -> None:
        self._closing = True
        if self._link is not None:
            await self._link.answer_all()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])

    async def started(self) -> Status:
        await self._looked.wait()
        return await self.status()

    async def failed(self) -> BaseException:
        """Only if this process has a bug: that the engine process dies is its parent's business."""
        await self._dead.wait()
        return self._error or RuntimeError("a background task has ended")

    def target(self, model: str | None, version: int | None) -> Target:
        return self._catalogue.target(model, version)

    def put(
        self, target: Target, items: Sequence[Pixels], *, top_k: int, deadline: float, answered: Answered
    ) -> "_Submitted":
        return _Submitted(self, target, items, top_k, deadline, answered)

    def send(self, submitted: "_Submitted") -> "tuple[_Link, int]":
        """By which link it went, and its number there. Raises: as `put`."""
        entry = self._catalogue.bound(submitted.target)
        remaining = submitted.deadline - time.monotonic()
        if self._closing:
            raise Draining("the server is shutting down")
        if remaining <= 0:
            raise Expired("the deadline passed before the images could be queued")
        link = self._heard_of()  # what is written to one that is silent would only take memory
        if link.waiting + len(submitted.items) > self._max_waiting:
            raise Overloaded(f"{link.waiting} images are waiting already")
        return link, link.submit(entry, submitted, remaining)

    async def models(self) -> list[ModelInfo]:
        link = self._heard_of()
        if not link.models:
            raise NotReady(_ABSENT)
        return wire.MODEL_LISTS.validate_json(link.models)

    async def reload(self, model: str, *, deadline: float) -> ReloadReport:
        if self._closing:
            raise Draining("the server is shutting down")
        return await self._heard_of().reload(model, deadline - time.monotonic())

    async def status(self) -> Status:
        link, catalogue = self._link, self._catalogue
        missing = catalogue.why_not_ready
        try:
            self._heard_of()
        except NotReady as error:
            missing = str(error)
        return Status(
            ready=missing is None,
            detail=missing or "ready",
            device=catalogue.device,
            served={name: entry.version for name, entry in catalogue.served.items()},
            waiting_items=0 if link is None else link.waiting,
        )

    @property
    def _catalogue(self) -> Catalogue:
        return _NOTHING if self._link is None else self._link.catalogue

    def _heard_of(self) -> "_Link":
        """The link to an engine process that lives. Raises: NotReady."""
        if self._link is None or self._link.lost.is_set():
            raise NotReady(_ABSENT)
        if self._link.silent > self._silent_seconds:
            raise NotReady(f"the engine process has said nothing for {self._silent_seconds:g} seconds")
        return self._link

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._closing:
            self._error = None if task.cancelled() else task.exception()
            self._dead.set()

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, link = await loop.create_unix_connection(
                    lambda: _Link(self._looked, look_seconds=self._silent_seconds / 10), str(self._path)
                )
            except OSError:
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            self._link = link
            try:
                await link.lost.wait()
            finally:
                self._link = None
                link.close()
            event(logger, "the engine process is gone", level=logging.WARNING)


class _Submitted:
    """Some images on their way, until they are answered or dropped."""

    __slots__ = ("answered", "deadline", "engine", "images", "items", "link", "number", "target", "top_k")

    def __init__(
        self,
        engine: RemoteEngine,
        target: Target,
        items: Sequence[Pixels],
        top_k: int,
        deadline: float,
        answered: Answered,
    ) -> None:
        self.engine = engine
        self.target = target
        self.items = items
        self.images = len(items)
        self.top_k = top_k
        self.deadline = deadline
        self.answered = answered
        self.send()

    def send(self) -> None:
        self.link, self.number = self.engine.send(self)

    def tell(self, outcome: Answer | EngineError) -> None:
        if isinstance(outcome, Stale):  # replaced meanwhile: what replaced it is in the catalogue by now
            try:
                self.send()
            except EngineError as error:
                outcome = error
            else:
                return
        self.answered(outcome)

    def drop(self) -> None:
        self.link.drop(self.number)


class _Reload:
    """A look at the store that somebody waits for."""

    images = 0

    def __init__(self, answer: "asyncio.Future[ReloadReport]") -> None:
        self.tell = partial(settle, answer)


class _Link(asyncio.Protocol):
    """One connection to an engine process, as long as both live."""

    def __init__(self, looked: asyncio.Event, *, look_seconds: float) -> None:
        self.catalogue = _NOTHING
        self.models = b""  # until it has said which there are
        self.waiting = 0  # images
        # Seconds, by the turns of this process's own loop: time in which it was held still itself does not count.
        self.silent = 0.0
        self.lost = asyncio.Event()
        self._looked = looked
        self._look_seconds = look_seconds
        self._entries: dict[int, Entry] = {}
        self._questions: dict[int, _Question] = {}
        self._answered = asyncio.Event()  # all of them
        self._number = 0
        self._cutter = wire.Cutter()

    def submit(self, entry: Entry, submitted: _Submitted, seconds: float) -> int:
        """Its number."""
        count = submitted.images
        top_k = submitted.top_k = min(submitted.top_k, len(entry.reader.labels))
        pixels = [image.data.cast("B") for image in submitted.items]
        length = wire.SUBMIT_HEAD.size - wire.HEAD.size + sum(map(len, pixels))
        number = self._ask(submitted)
        head = wire.SUBMIT_HEAD.pack(length, wire.SUBMIT, number, entry.number, count, top_k, seconds)
        self._transport.write(head, *pixels)
        self.waiting += count
        return number

    def drop(self, number: int) -> None:
        """Nobody waits for it any more, or it was answered."""
        if self._taken(number) is not None:
            self._transport.write(wire.frame(wire.CANCEL, number))

    async def reload(self, model: str, seconds: float) -> ReloadReport:
        answer: asyncio.Future[ReloadReport] = self._loop.create_future()
        question = _Reload(answer)
        number = self._ask(question)
        self._transport.write(wire.frame(wire.RELOAD, number, wire.RELOADS.dump_json((model, seconds))))
        # The engine keeps the deadline, and says what goes on behind it; this one is for when it cannot.
        timer = self._loop.call_later(max(seconds, 0) + _SILENT_SECONDS, question.tell, Expired(NO_ANSWER_IN_TIME))
        try:
            return await answer
        finally:
            timer.cancel()
            self._taken(number)

    async def answer_all(self) -> None:
        """Waits until nothing waits for an answer any more."""
        while self._questions:
            self._answered.clear()
            await self._answered.wait()

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = Corked(transport)
        self._loop = asyncio.get_running_loop()
        self._listening = self._loop.call_later(self._look_seconds, self._hear_nothing)

    def data_received(self, data: bytes) -> None:
        self.silent = 0.0
        for kind, number, body, start, end in self._cutter.feed(data):
            if kind == wire.ROWS:
                self._rows(number, body, start)
            elif kind != wire.BEAT:
                self._told(kind, number, body[start:end])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  whatever it was, it is gone
        self.lost.set()
        self._listening.cancel()
        for number in list(self._questions):
            self._tell(number, NotReady("the engine process ended before it had answered"))

    def _hear_nothing(self) -> None:
        self.silent += self._look_seconds
        self._listening = self._loop.call_later(self._look_seconds, self._hear_nothing)

    def _next_number(self) -> int:
        self._number = (self._number + 1) & 0xFFFFFFFF
        return self._number

    def _ask(self, question: _Question) -> int:
        number = self._next_number()
        self._questions[number] = question
        return number

    def _taken(self, number: int) -> _Question | None:
        """The question, which waits no longer; None where it has been answered, or nobody waits for it."""
        question = self._questions.pop(number, None)
        if question is not None:
            self.waiting -= question.images
            if not self._questions:
                self._answered.set()
        return question

    def _tell(self, number: int, outcome: EngineError | ReloadReport) -> None:
        question = self._taken(number)
        if question is not None:
            question.tell(outcome)

    def _rows(self, number: int, body: bytes, start: int) -> None:
        submitted = self._taken(number)
        if not isinstance(submitted, _Submitted):
            return
        _, _, _, entry_number, count, columns = wire.ROWS_HEAD.unpack_from(body, start - wire.HEAD.size)
        entry = self._entries[entry_number]
        values = struct.unpack_from(f"<{count * columns}f", body, start + wire.ROWS_HEAD.size - wire.HEAD.size)
        answer, top_k = entry.reader.answer, submitted.top_k
        rows = [answer(values[i : i + columns], top_k) for i in range(0, len(values), columns)]
        submitted.tell(Answer(entry.version, tuple(rows)))

    def _told(self, kind: int, number: int, body: bytes) -> None:
        """Everything but rows."""
        if kind == wire.CATALOGUE:
            self._take_catalogue(wire.CATALOGUES.validate_json(body))
        elif kind == wire.MODELS:
            self.models = body
        elif kind == wire.ERROR:
            self._tell(number, wire.error_of(body))
        elif kind == wire.REPORT:
            self._tell(number, wire.REPORTS.validate_json(body))

    def _take_catalogue(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._entries = {entry.number: entry for entry in (*catalogue.served.values(), *catalogue.replaced)}
        if catalogue.complete and not self._looked.is_set():
            self._looked.set()
        if catalogue.complete:
            self._transport.write(wire.frame(wire.READY))
