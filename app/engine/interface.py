"""The seam between HTTP and models: the protocol.

HTTP and decoding can live in processes of their own; models, batches and devices belong to exactly one engine.
Nothing is leased across the seam. Imports no torch.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol, TypeVar

from app.engine.errors import EngineError, Expired
from app.engine.model_info import ModelInfo, ReloadReport, Status
from app.engine.predictions import Answer, Answered, Target
from classifier.preprocess import Pixels

T = TypeVar("T")

NO_ANSWER_IN_TIME = "the deadline passed before there was an answer"


class Engine(Protocol):
    """What the HTTP side may ask of the models. Every method is called on the event loop."""

    async def start(self) -> None:
        """Returns at once; the first look at the store goes on behind it, and `status` says when it is over."""

    async def close(self) -> None:
        """Refuses what is new, answers what was accepted, then ends."""

    async def started(self) -> Status:
        """Waits until the first look at the store is over, or can be no more, and says what came of it."""

    async def failed(self) -> BaseException:
        """Waits until a background task has died; the process should then end. May wait for ever."""

    def target(self, model: str | None, version: int | None) -> Target:
        """What a decoder needs, from a local catalogue, without I/O. None: the default model, the served version.

        Raises: NotFound, NotReady, Ambiguous.
        """

    def put(
        self, target: Target, items: Sequence[Pixels], *, top_k: int, deadline: float, answered: Answered
    ) -> "Submitted":
        """Asks for the predictions for at least one item, all from the version that is bound now.

        Args:
            top_k: how many predictions an item gets, at the most; from 1.
            deadline: of `time.monotonic()`; nothing is computed after it.
            answered: is told once, later: the answer, or why there is none. That may be some time after the deadline,
                or never, where a device hangs: who cannot wait drops the items.

        Raises: NotFound, NotReady, Stale, Overloaded, Expired; `answered` is not told, then.
        """

    async def submit(self, target: Target, items: Sequence[Pixels], *, top_k: int, deadline: float) -> Answer:
        """As `put`, for a caller that waits, until the deadline at the latest; cancelling drops the items.

        Raises: as `put` does, and whatever it would tell.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        told = partial(settle, answer)
        submitted = self.put(target, items, top_k=top_k, deadline=deadline, answered=told)
        timer = loop.call_later(deadline - time.monotonic(), told, Expired(NO_ANSWER_IN_TIME))
        try:
            return await answer
        finally:
            timer.cancel()
            submitted.drop()

    async def models(self) -> list[ModelInfo]:
        """Everything the store holds, by name."""

    async def reload(self, model: str, *, deadline: float) -> ReloadReport:
        """Looks at the store now. The look goes on past its deadline, of `time.monotonic()`, and when it is cancelled.

        Raises: NotFound, Draining, Expired.
        """

    async def status(self) -> Status:
        """What readiness and metrics show."""


class Submitted(Protocol):
    """What was put."""

    def drop(self) -> None:
        """Nobody waits for it any more, or it was answered."""


def settle(answer: "asyncio.Future[T]", outcome: "T | EngineError") -> None:
    """Whoever waits for `answer` gets the outcome, if nobody was quicker."""
    if answer.done():
        return
    if isinstance(outcome, EngineError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
