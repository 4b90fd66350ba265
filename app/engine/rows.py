"""A row: what a network says of one image, as numbers; and how it becomes an answer. Imports no torch.

A row has the k highest probabilities, then as many class indices, then the score where the manifest has a threshold.
All are float32, which holds every index below 2^24 exactly. Rows are what crosses from process to process.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.engine.predictions import ItemAnswer, ItemError, Prediction
from app.telemetry.log import event
from classifier.preprocess import Pixels

logger = logging.getLogger(__name__)

Row = npt.NDArray[np.float32]
Table = npt.NDArray[np.float32]  # of rows of one length


class Item(NamedTuple):
    """One image that waits for its predictions."""

    pixels: Pixels
    top_k: int


@dataclass(frozen=True, slots=True)
class RowDecoder:
    """Makes answers of one version's rows.

    Args:
        labels: the names of the classes, by index.
        threshold: the manifest's; None where it has none.
    """

    labels: tuple[str, ...]
    threshold: float | None

    def decode(self, row: Sequence[float], top_k: int) -> ItemAnswer | ItemError:
        """Makes an answer of a row: the `top_k` likeliest classes, or as many as the row has."""
        if row[0] != row[0]:  # NaN is unequal to itself
            return ItemError("prediction_failed", "the network failed on this image, or its scores are not finite")
        most = len(row) // 2
        labels = self.labels
        predictions = []
        for i in range(min(top_k, most)):
            index = int(row[most + i])
            predictions.append(Prediction(labels[index], index, row[i]))
        if self.threshold is None:
            return ItemAnswer(tuple(predictions))
        return ItemAnswer(tuple(predictions), row[-1], row[-1] >= self.threshold)


def stack_rows(outcomes: Sequence[Row | Exception], top_k: int) -> Table:
    """Puts the rows of one submission together, which may have come from several batches.

    Where the network raised an error, the row is NaN. The error goes to the log, because what it says of the network's
    inside is nothing for clients.
    """
    first = outcomes[0]
    if len(outcomes) == 1 and not isinstance(first, Exception):
        return first[None]
    rows = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    if len(rows) == len(outcomes) and len({row.size for row in rows}) == 1:
        return np.stack(rows)
    shortest = min((row.size for row in rows), default=2)
    most = min(shortest // 2, top_k)
    whole = np.full((len(outcomes), 2 * most + shortest % 2), np.nan, np.float32)
    for i, outcome in enumerate(outcomes):
        if isinstance(outcome, Exception):
            event(logger, "an image failed", level=logging.WARNING, reason=f"{type(outcome).__name__}: {outcome}")
        else:
            half = outcome.size // 2
            whole[i] = np.concatenate((outcome[:most], outcome[half : half + most], outcome[2 * half :]))
    return whole
