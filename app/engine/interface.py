"""The seam between HTTP and models: what one may ask of the other.

HTTP and decoding can live in processes of their own. Models, batches and devices belong to exactly one engine. Plain
data crosses the seam, and nothing is leased across it. Imports no torch.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

from app.engine.awaited import Awaited
from app.engine.catalogue import ResolvedModel
from app.engine.errors import DeadlineExceeded
from app.engine.model_info import ModelInfo, PassedOver, ReloadReport, Status
from app.engine.predictions import Answer, OnDone
from classifier.preprocess import Pixels

NO_ANSWER_IN_TIME = "the deadline passed before there was an answer"


class Cancelable(Protocol):
    """Work that goes on for a caller."""

    def cancel(self) -> None:
        """Ends the work because nobody waits for it. Does nothing where it has ended."""


class Engine(Protocol):
    """The data plane: what a prediction needs of the models. Every method is called on the event loop."""

    async def start(self) -> None:
        """Returns at once. The first look at the store goes on behind it, and `status` says when it is over."""

    async def close(self) -> None:
        """Refuses what is new, answers what was accepted, then ends."""

    async def started(self) -> Status:
        """Waits until the first look at the store is over, or can be no more, and says what came of it."""

    async def failed(self) -> BaseException:
        """Waits until a background task has died; the process should then end. May wait for ever."""

    def resolve(self, model: str | None, version: int | None) -> ResolvedModel:
        """Chooses the version that answers, from a local catalogue, without I/O.

        Args:
            model: None or an empty name stand for the default model.
            version: None stands for the version that is served.

        Raises: NotFound, NotReady, Ambiguous.
        """

    def submit_nowait(
        self, resolved: ResolvedModel, items: Sequence[Pixels], *, top_k: int, deadline: float, on_done: OnDone
    ) -> Cancelable:
        """Asks the resolved version for the predictions for at least one item.

        Args:
            top_k: how many predictions an item gets, at the most; from 1.
            deadline: a time of `time.monotonic()`. Nothing is computed after it.
            on_done: is called once, later, with the answer, or with the reason why there is none. Where a device hangs,
                that may be long after the deadline, or never: a caller that cannot wait cancels.

        Raises: NotReady, Overloaded, DeadlineExceeded; Stale, if the version has been replaced. `on_done` is not called
            then.
        """

    async def submit(self, resolved: ResolvedModel, items: Sequence[Pixels], *, top_k: int, deadline: float) -> Answer:
        """Submits for a caller that waits, until the deadline at the latest. Cancelling it cancels the work.

        Raises: what `submit_nowait` raises, and what it would call `on_done` with.
        """
        answer: Awaited[Answer] = Awaited()
        work = self.submit_nowait(resolved, items, top_k=top_k, deadline=deadline, on_done=answer.tell)
        too_late = DeadlineExceeded(NO_ANSWER_IN_TIME)
        timer = asyncio.get_running_loop().call_later(deadline - time.monotonic(), answer.tell, too_late)
        try:
            return await answer.wait()
        finally:
            timer.cancel()
            work.cancel()

    async def status(self) -> Status:
        """Says what readiness and metrics show."""


class ModelControl(Protocol):
    """The control plane: what may be asked about the models, and done to them."""

    async def models(self) -> list[ModelInfo]:
        """Lists everything that the store holds, by name. Raises: NotReady."""

    async def passed_over(self) -> tuple[PassedOver, ...]:
        """Lists what lies in the store's own folder and is no model. Raises: NotReady."""

    async def reload(self, model: str, *, deadline: float) -> ReloadReport:
        """Looks at the model's folder now, and swaps if something better is there.

        It looks into every file, also where nothing seems to have changed, and reads what is served whole.

        The look goes on past its deadline, a time of `time.monotonic()`, and when it is cancelled.

        Raises: NotFound, Draining, DeadlineExceeded.
        """


class ControlledEngine(Engine, ModelControl, Protocol):
    """An engine with both planes, as a server has it."""
