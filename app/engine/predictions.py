"""What is asked of an engine and what it answers, as plain data."""

from collections.abc import Callable
from typing import NamedTuple

from app.engine.errors import EngineError


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


# Is called once with what came of a submission.
OnDone = Callable[[Answer | EngineError], None]
