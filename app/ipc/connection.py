"""A front-end's connection to an engine process: what it knows by it, and what waits for an answer."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from app.engine.awaited import Awaited
from app.engine.catalogue import Catalogue, Entry
from app.engine.errors import DeadlineExceeded, EngineError, NotReady, Stale
from app.engine.interface import NO_ANSWER_IN_TIME
from app.engine.model_info import ReloadReport
from app.engine.predictions import Answer, OnDone
from app.ipc import wire
from app.ipc.corked import Corked
from classifier.preprocess import Pixels

T = TypeVar("T")

SILENT_SECONDS = 10.0  # an engine that lives says something every second
ABSENT = "the engine process is not there; it is being started"
NOTHING = Catalogue(why_not_ready=ABSENT)


class _PendingCall(Protocol):
    """What waits for an answer of the engine process."""

    images: int

    def complete(self, outcome: Any) -> None:
        """Takes the outcome, once: what the engine answered, or why there is no answer."""


class PendingImages:
    """Some images on their way, until they are answered or cancelled."""

    __slots__ = ("_connection", "complete", "entry", "images", "number", "top_k")

    def __init__(
        self, connection: "EngineConnection", entry: Entry, *, images: int, top_k: int, on_done: OnDone
    ) -> None:
        self.entry = entry
        self.images = images
        self.top_k = top_k
        self.complete = on_done
        self.number = connection.register(self)
        self._connection = connection

    def cancel(self) -> None:
        self._connection.cancel(self.number)


class _PendingReload:
    """A look at the store that somebody waits for."""

    images = 0

    def __init__(self) -> None:
        self.report: Awaited[ReloadReport] = Awaited()

    def complete(self, outcome: ReloadReport | EngineError) -> None:
        self.report.tell(outcome)


class EngineConnection(asyncio.Protocol):
    """One connection to an engine process, as long as both live.

    Args:
        knows_all: is set once the engine has said what its whole store holds.
        check_seconds: how often the time is counted in which the engine said nothing.
    """

    def __init__(self, knows_all: asyncio.Event, *, check_seconds: float) -> None:
        self.catalogue = NOTHING
        self.infos: dict[str, str] = {}  # a ModelInfo each, as JSON
        self.informed = False  # whether the engine has said which models there are
        self.waiting = 0  # images
        # By the turns of this process's own loop: time in which it was held still itself does not count.
        self.seconds_since_heartbeat = 0.0
        self.lost = asyncio.Event()
        self._knows_all = knows_all
        self._check_seconds = check_seconds
        self._pending: dict[int, _PendingCall] = {}
        self._none_pending = asyncio.Event()
        self._last_number = 0
        self._frames = wire.FrameDecoder()

    def submit(
        self, entry: Entry, items: Sequence[Pixels], *, top_k: int, seconds: float, on_done: OnDone
    ) -> PendingImages:
        """Sends images to be predicted by a version that answers.

        Args:
            entry: one of this connection's catalogue.
            seconds: how long somebody waits for the answer.

        Raises: Stale, if the version has been replaced, or was another engine process's.
        """
        if self.catalogue.entries.get(entry.id) is not entry:
            raise Stale("the version has been replaced")
        top_k = min(top_k, len(entry.row_decoder.labels))
        pending = PendingImages(self, entry, images=len(items), top_k=top_k, on_done=on_done)
        self._transport.write(*wire.submit_frame(pending.number, entry.id, items, top_k=top_k, seconds=seconds))
        return pending

    def cancel(self, number: int) -> None:
        """Notes that nobody waits for the answer any more. Does nothing where it has come."""
        if self._pop(number) is not None:
            self._transport.write(wire.frame(wire.CANCEL, number))

    async def reload(self, model: str, seconds: float) -> ReloadReport:
        """Asks for a look at the model's folder. Raises: what `Engine.reload` raises."""
        pending = _PendingReload()
        number = self.register(pending)
        # The engine keeps the deadline, and says what goes on behind it; this one is for when it cannot.
        timer = self._loop.call_later(
            max(seconds, 0) + SILENT_SECONDS, pending.complete, DeadlineExceeded(NO_ANSWER_IN_TIME)
        )
        try:
            self._control(wire.Reload(model, seconds), number)
            return await pending.report.wait()
        finally:
            timer.cancel()
            self._pop(number)

    async def wait_until_none_pending(self) -> None:
        """Waits until nothing waits for an answer any more."""
        while self._pending:
            self._none_pending.clear()
            await self._none_pending.wait()

    def register(self, pending: _PendingCall) -> int:
        """Gives a call its number, by which its answer finds it."""
        number = self._last_number = (self._last_number + 1) & 0xFFFFFFFF
        self._pending[number] = pending
        self.waiting += pending.images
        return number

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = Corked(transport)
        self._loop = asyncio.get_running_loop()
        self._check = self._loop.call_later(self._check_seconds, self._heard_nothing)

    def data_received(self, data: bytes) -> None:
        self.seconds_since_heartbeat = 0.0
        for kind, number, received, start, end in self._frames.feed(data):
            if kind == wire.ROWS:
                self._rows(number, received, start)
            elif kind == wire.ERROR:
                self._complete(number, wire.read_error(received[start:end]))
            elif kind == wire.CONTROL:
                self._told(number, wire.FROM_ENGINE.validate_json(received[start:end]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  whatever it was, it is gone
        self.lost.set()
        self._check.cancel()
        for number in list(self._pending):
            self._complete(number, NotReady("the engine process ended before it had answered"))

    def _heard_nothing(self) -> None:
        self.seconds_since_heartbeat += self._check_seconds
        self._check = self._loop.call_later(self._check_seconds, self._heard_nothing)

    def _pop(self, number: int) -> _PendingCall | None:
        """Takes a call out of those that wait; None where it was answered, or nobody waits for it."""
        pending = self._pending.pop(number, None)
        if pending is not None:
            self.waiting -= pending.images
            if not self._pending:
                self._none_pending.set()
        return pending

    def _complete(self, number: int, outcome: EngineError | ReloadReport) -> None:
        pending = self._pop(number)
        if pending is not None:
            pending.complete(outcome)

    def _rows(self, number: int, data: bytes, start: int) -> None:
        pending = self._pop(number)
        if not isinstance(pending, PendingImages):
            return
        columns, values = wire.read_rows(data, start)
        decode, top_k = pending.entry.row_decoder.decode, pending.top_k
        rows = [decode(values[i : i + columns], top_k) for i in range(0, len(values), columns)]
        pending.complete(Answer(pending.entry.version, tuple(rows)))

    def _told(self, number: int, message: wire.FromEngine) -> None:
        if isinstance(message, wire.Reloaded):
            self._complete(number, message.report)
        elif isinstance(message, wire.ModelUpdate):
            self._update_model(message)
        else:
            self._update_state(message)

    def _update_state(self, update: wire.StateUpdate) -> None:
        if update.complete and not self.catalogue.complete:
            self._knows_all.set()
            self._control(wire.Ready())
        self.informed = True
        self.catalogue = replace(
            self.catalogue,
            default_model=update.default_model,
            complete=update.complete,
            device=update.device,
            why_not_ready=update.why_not_ready,
            passed_over=update.passed_over,
        )

    def _update_model(self, update: wire.ModelUpdate) -> None:
        name, before = update.model, self.catalogue
        # An entry that is known stays the object that it is: who has resolved a request holds it.
        entries = {number: entry for number, entry in before.entries.items() if entry.model != name}
        entries |= {entry.id: before.entries.get(entry.id, entry) for entry in update.entries}
        self.catalogue = replace(
            before,
            entries=entries,
            routes=_with(before.routes, name, update.route),
            stored=_with(before.stored, name, update.stored),
        )
        self.infos = _with(self.infos, name, update.info)

    def _control(self, message: wire.ToEngine, number: int = 0) -> None:
        self._transport.write(wire.frame(wire.CONTROL, number, wire.TO_ENGINE.dump_json(message)))


def _with(known: Mapping[str, T], name: str, value: T | None) -> dict[str, T]:
    """Copies what is known, with another value for one name; None takes the name out."""
    others = {each: known[each] for each in known if each != name}
    return others if value is None else {**others, name: value}
