"""RemoteEngine: the engine that lives in another process, as a front-end sees it. Imports no torch.

What is served is known from the engine's last catalogue; images go to it, and rows come back, over one unix stream.
While there is no engine process, or while it is silent, a front-end says so at once: nothing hangs on it.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import wire
from app.catalogue import Catalogue, Entry
from app.corked import Corked
from app.engine import (
    Answer,
    Draining,
    EngineError,
    Expired,
    ModelInfo,
    NotReady,
    Overloaded,
    ReloadReport,
    Stale,
    Status,
    Target,
)
from app.log import event
from classifier.preprocess import Pixels

logger = logging.getLogger(__name__)

_RECONNECT_SECONDS = 0.05
_SILENT_SECONDS = 10.0  # an engine that lives says something every second
_ABSENT = "the engine process is not there; it is being started"
_NOTHING = Catalogue(why_not_ready=_ABSENT)


@dataclass(slots=True, eq=False)
class _Question:
    """What waits for an answer of the engine process."""

    answered: "asyncio.Future[Any]"
    top_k: int = 0


class RemoteEngine:
    """The engine behind the unix socket at `path`; see `app.engine.Engine`.

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

    async def submit(self, target: Target, items: Sequence[Pixels], *, top_k: int, deadline: float) -> Answer:
        while True:
            entry = self._catalogue.bound(target)
            remaining = deadline - time.monotonic()
            if self._closing:
                raise Draining("the server is shutting down")
            if remaining <= 0:
                raise Expired("the deadline passed before the images could be queued")
            if not items:
                return Answer(entry.version, ())
            link = self._heard_of()  # what is written to one that is silent would only take memory
            if link.waiting + len(items) > self._max_waiting:
                raise Overloaded(f"{link.waiting} images are waiting already")
            try:
                return await link.submit(entry, items, top_k, remaining)
            except Stale:  # replaced while the images were on their way: what replaced it is in the catalogue by now
                continue

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
        self._number = 0
        self._cutter = wire.Cutter()

    async def submit(self, entry: Entry, items: Sequence[Pixels], top_k: int, seconds: float) -> Answer:
        count = len(items)
        top_k = min(top_k, len(entry.reader.labels))
        pixels = [image.data.cast("B") for image in items]
        length = wire.SUBMIT_HEAD.size - wire.HEAD.size + sum(map(len, pixels))
        number = self._next_number()
        head = wire.SUBMIT_HEAD.pack(length, wire.SUBMIT, number, entry.number, count, top_k, seconds)
        self._transport.write(head, *pixels)
        self.waiting += count
        try:
            answer: Answer = await self._answered(number, _Question(self._loop.create_future(), top_k), seconds)
        finally:
            self.waiting -= count
        return answer

    async def reload(self, model: str, seconds: float) -> ReloadReport:
        number = self._next_number()
        self._transport.write(wire.frame(wire.RELOAD, number, wire.RELOADS.dump_json((model, seconds))))
        # The engine keeps the deadline, and says what goes on behind it; this one is for when it cannot.
        report: ReloadReport = await self._answered(
            number, _Question(self._loop.create_future()), max(seconds, 0) + _SILENT_SECONDS
        )
        return report

    async def answer_all(self) -> None:
        """Waits until nothing waits for an answer any more."""
        if self._questions:
            await asyncio.wait([question.answered for question in self._questions.values()])

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
        for question in self._questions.values():
            _fail(question, NotReady("the engine process ended before it had answered"))

    def _hear_nothing(self) -> None:
        self.silent += self._look_seconds
        self._listening = self._loop.call_later(self._look_seconds, self._hear_nothing)

    def _next_number(self) -> int:
        self._number = (self._number + 1) & 0xFFFFFFFF
        return self._number

    async def _answered(self, number: int, question: _Question, seconds: float) -> Any:
        self._questions[number] = question
        timer = self._loop.call_later(
            seconds, _fail, question, Expired("the deadline passed before there was an answer")
        )
        try:
            return await question.answered
        except (asyncio.CancelledError, Expired):
            self._transport.write(wire.frame(wire.CANCEL, number))
            raise
        finally:
            timer.cancel()
            del self._questions[number]

    def _rows(self, number: int, body: bytes, start: int) -> None:
        question = self._questions.get(number)
        if question is None or question.answered.done():
            return
        _, _, _, entry_number, count, columns = wire.ROWS_HEAD.unpack_from(body, start - wire.HEAD.size)
        entry = self._entries[entry_number]
        start += wire.ROWS_HEAD.size - wire.HEAD.size
        values: Sequence[float] = memoryview(body)[start : start + 4 * count * columns].cast("f").tolist()
        rows = (values[i : i + columns] for i in range(0, len(values), columns))
        answer = entry.reader.answer
        question.answered.set_result(Answer(entry.version, tuple(answer(row, question.top_k) for row in rows)))

    def _told(self, kind: int, number: int, body: bytes) -> None:
        """Everything but rows."""
        if kind == wire.CATALOGUE:
            self._take_catalogue(wire.CATALOGUES.validate_json(body))
            return
        if kind == wire.MODELS:
            self.models = body
            return
        question = self._questions.get(number)
        if question is None or question.answered.done():
            return
        if kind == wire.ERROR:
            question.answered.set_exception(wire.error_of(body))
        elif kind == wire.REPORT:
            question.answered.set_result(wire.REPORTS.validate_json(body))

    def _take_catalogue(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._entries = {entry.number: entry for entry in (*catalogue.served.values(), *catalogue.replaced)}
        if catalogue.complete and not self._looked.is_set():
            self._looked.set()
        if catalogue.complete:
            self._transport.write(wire.frame(wire.READY))


def _fail(question: _Question, error: EngineError) -> None:
    if not question.answered.done():
        question.answered.set_exception(error)
