"""An engine whose every answer a test decides on: what the HTTP side does is then no matter of timing."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from app.engine.catalogue import Entry, ResolvedModel
from app.engine.errors import EngineError, NotFound
from app.engine.interface import ControlledEngine
from app.engine.model_info import ModelInfo, PassedOver, ReloadReport, Status
from app.engine.predictions import Answer, ItemAnswer, ItemError, OnDone, Prediction
from app.engine.rows import RowDecoder
from classifier.preprocess import Pixels, Preprocess
from tests.support.checkpoints import DIGITS


@dataclass(frozen=True, slots=True)
class Submitted:
    """One call of `submit`."""

    resolved: ResolvedModel
    items: Sequence[Pixels]
    top_k: int
    deadline: float


class Gated:
    """One that waits before the gate."""

    def __init__(self, engine: "ScriptedEngine", submitted: Submitted, on_done: OnDone) -> None:
        self._engine = engine
        self._submitted = submitted
        self._waiting = asyncio.create_task(self._answer(on_done))

    def cancel(self) -> None:
        if not self._waiting.done():
            self._waiting.cancel()
            self._engine.cancelled.put_nowait(self._submitted)

    async def _answer(self, on_done: OnDone) -> None:
        await self._engine.gate.wait()
        told, self._engine.told = self._engine.told, None
        outcomes = (self._engine.outcome,) * len(self._submitted.items)
        asyncio.get_running_loop().call_soon(on_done, told or Answer(self._engine.version, outcomes))


class ScriptedEngine(ControlledEngine):
    """Serves one model, `digits`, in version 1; see `app.engine.interface.Engine`.

    What a test sets: `gate` (shut it, and submits wait before it), `error` (raised by whatever is asked),
    `submit_error` (raised by the next submit alone), `told` (what the next one is told later, instead of an answer),
    `outcome` (of each item), `ready`.
    """

    def __init__(self, *, preprocess: Preprocess = DIGITS) -> None:
        self.preprocess = preprocess
        self.version = 1
        self.ready = True
        self.error: Exception | None = None
        self.submit_error: Exception | None = None
        self.told: EngineError | None = None
        self.outcome: ItemAnswer | ItemError = ItemAnswer((Prediction("7", 7, 0.9), Prediction("1", 1, 0.1)))
        self.gate = asyncio.Event()
        self.gate.set()
        self.submitted: asyncio.Queue[Submitted] = asyncio.Queue()
        self.cancelled: asyncio.Queue[Submitted] = asyncio.Queue()
        self.closed = False

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True

    async def started(self) -> Status:
        return await self.status()

    async def failed(self) -> BaseException:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody sets it")

    def resolve(self, model: str | None, version: int | None) -> ResolvedModel:
        if self.error is not None:
            raise self.error
        if model not in (None, "digits"):
            raise NotFound("model_not_found", f"there is no model {model!r}")
        entry = Entry(0, "digits", self.version, self.preprocess, self.preprocess.digest, RowDecoder(("1", "7"), None))
        return ResolvedModel(entry, version)

    def submit_nowait(
        self, resolved: ResolvedModel, items: Sequence[Pixels], *, top_k: int, deadline: float, on_done: OnDone
    ) -> Gated:
        submitted = Submitted(resolved, items, top_k, deadline)
        self.submitted.put_nowait(submitted)
        error, self.submit_error = self.submit_error, None
        if error is not None:
            raise error
        return Gated(self, submitted, on_done)

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo("digits", self.version, ())]

    async def passed_over(self) -> tuple[PassedOver, ...]:
        return ()

    async def reload(self, model: str, *, deadline: float) -> ReloadReport:  # noqa: ARG002  it looks at nothing
        if self.error is not None:
            raise self.error
        return ReloadReport(model, self.version, False, (), False)

    async def status(self) -> Status:
        detail = "ready" if self.ready else "the store is empty"
        return Status(self.ready, detail, "cpu", {"digits": self.version} if self.ready else {}, 0)
