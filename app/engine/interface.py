"""The seam between HTTP and models: the protocol, the plain data that crosses it, and its errors.

HTTP and decoding can live in processes of their own; models, batches and devices belong to exactly one engine.
Nothing is leased across the seam. Imports no torch.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal, NamedTuple, Protocol, TypeVar

from classifier.manifest import (
    Calibration,
    ClassMetrics,
    EpochPoint,
    Imported,
    Metrics,
    OutOfDistribution,
    Provenance,
)
from classifier.preprocess import Pixels, Preprocess

T = TypeVar("T")

NO_ANSWER_IN_TIME = "the deadline passed before there was an answer"


class Engine(Protocol):
    """What the HTTP side may ask of the models. Every method is called on the event loop."""

    async def start(self) -> None:
        """Returns at once; the first look at the store goes on behind it, and `status` says when it is over."""

    async def close(self) -> None:
        """Refuses what is new, answers what was accepted, then ends."""

    async def started(self) -> "Status":
        """Waits until the first look at the store is over, or can be no more, and says what came of it."""

    async def failed(self) -> BaseException:
        """Waits until a background task has died; the process should then end. May wait for ever."""

    def target(self, model: str | None, version: int | None) -> "Target":
        """What a decoder needs, from a local catalogue, without I/O. None: the default model, the served version.

        Raises: NotFound, NotReady, Ambiguous.
        """

    def put(
        self, target: "Target", items: Sequence[Pixels], *, top_k: int, deadline: float, answered: "Answered"
    ) -> "Submitted":
        """Asks for the predictions for at least one item, all from the version that is bound now.

        Args:
            top_k: how many predictions an item gets, at the most; from 1.
            deadline: of `time.monotonic()`; nothing is computed after it.
            answered: is told once, later: the answer, or why there is none. That may be some time after the deadline,
                or never, where a device hangs: who cannot wait drops the items.

        Raises: NotFound, NotReady, Stale, Overloaded, Expired; `answered` is not told, then.
        """

    async def submit(self, target: "Target", items: Sequence[Pixels], *, top_k: int, deadline: float) -> "Answer":
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

    async def models(self) -> list["ModelInfo"]:
        """Everything the store holds, by name."""

    async def reload(self, model: str, *, deadline: float) -> "ReloadReport":
        """Looks at the store now. The look goes on past its deadline, of `time.monotonic()`, and when it is cancelled.

        Raises: NotFound, Draining, Expired.
        """

    async def status(self) -> "Status":
        """What readiness and metrics show."""


class Submitted(Protocol):
    """What was put."""

    def drop(self) -> None:
        """Nobody waits for it any more, or it was answered."""


class Target(NamedTuple):
    """Which model a request means, and how its images become pixels. `digest` is the preprocess's."""

    model: str
    version: int | None
    preprocess: Preprocess
    digest: str


class Prediction(NamedTuple):
    label: str
    class_index: int
    probability: float


class ItemAnswer(NamedTuple):
    """One item's predictions, the likeliest first, and whether it is like what the model was trained on.

    `score` is of the logits, by the method that the manifest names, and `in_distribution` says whether it reaches the
    manifest's threshold. Both are None where the manifest has none.
    """

    predictions: tuple[Prediction, ...]
    score: float | None = None
    in_distribution: bool | None = None


class ItemError(NamedTuple):
    """One item that could not be computed, while its neighbours could."""

    code: str
    detail: str


class Answer(NamedTuple):
    """One version for all items of a submit."""

    version: int
    items: tuple[ItemAnswer | ItemError, ...]


Answered = Callable[["Answer | EngineError"], None]


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One file of the store and all that its manifest says; what is not known is None.

    `reason` says why it was refused.
    """

    version: int
    state: Literal["loading", "ready", "available", "refused"]
    reason: str | None
    architecture: str | None
    labels: tuple[str, ...] | None
    input: Preprocess | None
    metrics: Metrics | None
    per_class: tuple[ClassMetrics, ...] | None
    curve: tuple[EpochPoint, ...] | None
    calibration: Calibration | None
    out_of_distribution: OutOfDistribution | None
    provenance: Provenance | None
    imported: Imported | None
    file_size: int | None
    sha256: str | None
    device: str | None
    loaded_at: datetime | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    name: str
    served_version: int | None
    versions: tuple[VersionInfo, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What a look at the store led to. `refused` lists every file that is there and cannot be served."""

    model: str
    served_version: int | None
    changed: bool
    refused: tuple[Refusal, ...]
    newest_refused: bool


@dataclass(frozen=True, slots=True)
class Status:
    """`detail` says what is missing while `ready` is False, in words that say what to do."""

    ready: bool
    detail: str
    device: str
    served: dict[str, int]
    waiting_items: int


class EngineError(Exception):
    """Why an engine did not answer. The message is for the client.

    EngineError
    ├── NotFound      the model or the version is not there
    ├── NotReady      nothing to serve yet, or no longer
    ├── Ambiguous     several models, and none was named
    ├── Stale         the version swapped in meanwhile wants other pixels: decode again
    ├── Overloaded    as much is waiting as may wait
    └── Expired       the deadline has passed
    """

    code: str = "internal_error"


class NotFound(EngineError):
    def __init__(self, code: Literal["model_not_found", "version_not_found", "version_not_loaded"], detail: str):
        super().__init__(detail)
        self.code = code


class NotReady(EngineError):
    code = "not_ready"


class Draining(NotReady):
    code = "draining"


class Ambiguous(EngineError):
    code = "ambiguous_model"


class Stale(EngineError):
    code = "stale"


class Overloaded(EngineError):
    code = "overloaded"


class Expired(EngineError):
    code = "deadline_exceeded"


def settle(answer: "asyncio.Future[T]", outcome: "T | EngineError") -> None:
    """Whoever waits for `answer` gets the outcome, if nobody was quicker."""
    if answer.done():
        return
    if isinstance(outcome, EngineError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
