"""Takes a part of the samples out: of each class its share, chosen by a seed."""

import numpy as np
import numpy.typing as npt

from training.data.raw_dataset import Rows
from training.errors import TrainingError


def split(
    targets: npt.NDArray[np.int64], rows: Rows, amount: int | float, *, seed: int, stream: int, what: str
) -> tuple[Rows, Rows]:
    """Returns (the rows that remain, the rows that are taken), both in the order in which they came.

    Each class keeps at least one sample.

    Args:
        amount: how many samples are taken. Below 1 it is a share of each class; a class of two or more gives at least
            one.
        stream: keeps choices with the same seed apart.
        what: what the samples are taken for, in words for the error.

    Raises: TrainingError if so many cannot be taken.
    """
    classes, counts = np.unique(targets[rows], return_counts=True)
    spare = counts - 1
    if amount < 1:
        takes = np.clip(np.rint(amount * counts).astype(np.int64), np.minimum(1, spare), spare)
    elif amount <= spare.sum():
        takes = _in_proportion(int(amount), counts, spare)
    else:
        takes = np.zeros_like(counts)
    if takes.sum() == 0:
        wanted = f"{amount:,}" if amount >= 1 else "a share"
        raise TrainingError(
            f"{len(rows):,} samples of {len(classes):,} classes are too few to take {wanted} of them {what}: "
            "each class must keep one to train on"
        )
    random = np.random.default_rng([seed, stream])
    taken = np.concatenate(
        [
            random.choice(rows[targets[rows] == target], take, replace=False)
            for target, take in zip(classes, takes, strict=True)
        ]
    )
    return np.setdiff1d(rows, taken, assume_unique=True), np.sort(taken)


def _in_proportion(amount: int, counts: Rows, spare: Rows) -> Rows:
    """Divides `amount` among the classes, as close to their shares as whole numbers and `spare` allow."""
    wishes = amount * counts / counts.sum()
    takes: Rows = np.minimum(np.floor(wishes).astype(np.int64), spare)
    while takes.sum() < amount:
        takes[np.argmax(np.where(takes < spare, wishes - takes, -np.inf))] += 1
    return takes
