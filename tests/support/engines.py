"""An engine whose every answer a test decides on: what the HTTP side does is then no matter of timing."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from app.engine.errors import EngineError, NotFound
from app.engine.interface import Engine
from app.engine.model_info import ModelInfo, ReloadReport, Status
from app.engine.predictions import Answer, Answered, ItemAnswer, ItemError, Prediction, Target
from classifier.preprocess import Pixels, Preprocess
from tests.support.checkpoints import DIGITS


@dataclass(frozen=True, slots=True)
class Submitted:
    """One call of `submit`."""

    target: Target
    items: Sequence[Pixels]
    top_k: int
    deadline: float


class Put:
    """One that waits before the gate."""

    def __init__(self, engine: "ScriptedEngine", submitted: Submitted, answered: Answered) -> None:
        self._engine = engine
        self._submitted = submitted
        self._waiting = asyncio.create_task(self._answer(answered))

    def drop(self) -> None:
        if not self._waiting.done():
            self._waiting.cancel()
            self._engine.cancelled.put_nowait(self._submitted)

    async def _answer(self, answered: Answered) -> None:
        await self._engine.gate.wait()
        told, self._engine.told = self._engine.told, None
        outcomes = (self._engine.outcome,) * len(self._submitted.items)
        asyncio.get_running_loop().call_soon(answered, told or Answer(self._engine.version, outcomes))


class ScriptedEngine(Engine):
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

    def target(self, model: str | None, version: int | None) -> Target:
        if self.error is not None:
            raise self.error
        if model not in (None, "digits"):
            raise NotFound("model_not_found", f"there is no model {model!r}")
        return Target("digits", version, self.preprocess, self.preprocess.digest)

    def put(self, target: Target, items: Sequence[Pixels], *, top_k: int, deadline: float, answered: Answered) -> "Put":
        submitted = Submitted(target, items, top_k, deadline)
        self.submitted.put_nowait(submitted)
        error, self.submit_error = self.submit_error, None
        if error is not None:
            raise error
        return Put(self, submitted, answered)

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo("digits", self.version, ())]

    async def reload(self, model: str, *, deadline: float) -> ReloadReport:  # noqa: ARG002  it looks at nothing
        if self.error is not None:
            raise self.error
        return ReloadReport(model, self.version, False, (), False)

    async def status(self) -> Status:
        detail = "ready" if self.ready else "the store is empty"
        return Status(self.ready, detail, "cpu", {"digits": self.version} if self.ready else {}, 0)
