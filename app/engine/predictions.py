"""What is asked of an engine and what it answers, as plain data."""

from collections.abc import Callable
from typing import NamedTuple

from app.engine.errors import EngineError


class Prediction(NamedTuple):
    """One class and how likely it is, from 0 to 1. `class_index` is its place among the manifest's labels."""

    label: str
    class_index: int
    probability: float


class ItemAnswer(NamedTuple):
    """One item's predictions, the likeliest first, and whether it is like what the model was trained on.

    Args:
        score: is of the logits, by the method that the manifest names; None where the manifest has no threshold.
        in_distribution: says whether the score reaches the threshold; None where there is none.
    """

    predictions: tuple[Prediction, ...]
    score: float | None = None
    in_distribution: bool | None = None


class ItemError(NamedTuple):
    """Says why one item could not be computed, while its neighbours could. `code` is that of a problem."""

    code: str
    detail: str


class Answer(NamedTuple):
    """Answers all items of a submission, in their order, by one version."""

    version: int
    items: tuple[ItemAnswer | ItemError, ...]


# Is called once with what came of a submission.
OnDone = Callable[[Answer | EngineError], None]
