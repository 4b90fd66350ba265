"""MNIST by torchvision's own class: found in a folder, or downloaded to it."""

from pathlib import Path
from typing import Any

import numpy as np

from classifier.architectures import TORCHVISION_BROKEN
from training.errors import TrainingError
from training.labelled import Labelled


def load(folder: Path) -> tuple[Labelled, Labelled]:
    """The training and test images.

    Raises: TrainingError if `folder` does not hold them and they cannot be downloaded to it, or they are damaged.
    """
    train, test = (_part(folder, train=train) for train in (True, False))
    for part in (train, test):
        if part.images.shape != (len(part.targets), 28, 28):
            raise TrainingError(_ADVICE.format(raw=folder / "MNIST" / "raw", reason="its files do not fit together"))
    return train, test


_ADVICE = (
    "MNIST cannot be had: {reason}. Put its four files (train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte; unpacked) into {raw}, or name the folder above MNIST/ "
    "with --data, or run this where it can be downloaded. `python -m training strokes` needs no data"
)


def _part(folder: Path, *, train: bool) -> Labelled:
    dataset = _dataset_class()
    try:
        try:
            part = dataset(folder, train=train)
        except RuntimeError:  # not there
            part = dataset(folder, train=train, download=True)
        return Labelled(np.asarray(part.data), np.asarray(part.targets))
    # What torchvision raises for no network, a damaged file, a folder that cannot be written to.
    except (RuntimeError, OSError, ValueError, AssertionError, EOFError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise TrainingError(_ADVICE.format(raw=folder / "MNIST" / "raw", reason=reason[:300])) from error


def _dataset_class() -> Any:
    # Here, not above: torchvision takes a second to import.
    try:
        from torchvision.datasets import MNIST
    except (RuntimeError, ImportError) as error:
        raise TrainingError(TORCHVISION_BROKEN.format(reason=error)) from error
    return MNIST
