"""The row of an image: what a model says of it, or why it says nothing."""

import math
from typing import TypedDict

from app.engine.predictions import ItemAnswer, ItemError

COLUMNS = ("path", "label", "probability", "top_k", "score", "in_distribution", "version", "error")


class TopK(TypedDict):
    """One of the likeliest classes."""

    label: str
    probability: float


class ScoredRow(TypedDict):
    """A row, as it is written. What does not apply is None.

    `probability` is from 0 to 1. `score` and `in_distribution` are those of the server's answer.
    """

    path: str
    label: str | None
    probability: float | None
    top_k: list[TopK] | None
    score: float | None
    in_distribution: bool | None
    version: int
    error: str | None


def row_of(path: str, version: int, item: ItemAnswer | ItemError) -> ScoredRow:
    """Returns the row of one image."""
    name = path.encode("utf-8", "backslashreplace").decode()  # a name may be no text
    if isinstance(item, ItemError):
        return ScoredRow(
            path=name,
            label=None,
            probability=None,
            top_k=None,
            score=None,
            in_distribution=None,
            version=version,
            error=f"{item.code}: {item.detail}",
        )
    best = item.predictions[0]
    return ScoredRow(
        path=name,
        label=best.label,
        probability=best.probability,
        top_k=[TopK(label=each.label, probability=each.probability) for each in item.predictions],
        score=item.score if item.score is None or math.isfinite(item.score) else None,  # JSON has no infinity
        in_distribution=item.in_distribution,
        version=version,
        error=None,
    )
