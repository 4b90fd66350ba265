"""MNIST, Fashion-MNIST and CIFAR-10 by torchvision's own classes: found in a folder, or downloaded to it."""

from pathlib import Path

import numpy as np

from classifier.torchvision_parts import torchvision_part
from training.data.raw_dataset import LabelledImages, RawDataset
from training.errors import TrainingError
from training.recipes.recipe import TorchvisionSource

_CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}
_FILES = (
    "its four files (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
    "t10k-labels-idx1-ubyte; unpacked)"
)
_WHERE = {
    "mnist": (_FILES, "MNIST/raw"),
    "fashion-mnist": (_FILES, "FashionMNIST/raw"),
    "cifar10": ("data_batch_1 to 5, test_batch and batches.meta of its Python version", "cifar-10-batches-py"),
}
_SHAPES = {"mnist": (28, 28), "fashion-mnist": (28, 28), "cifar10": (32, 32, 3)}
_STREAM = 2  # of the seed's random numbers; the others are in training.data.dataset


def load(source: TorchvisionSource, folder: Path, *, seed: int) -> RawDataset:
    """The training and test images of the source's classes, and so many of each for training as it says.

    Args:
        folder: above the one that torchvision makes, e.g. MNIST/.

    Raises: TrainingError if `folder` does not hold them and they cannot be downloaded to it, they are damaged, or there
        are fewer than wanted.
    """
    (train, labels), (test, _) = (_part(source.kind, folder, train=train) for train in (True, False))
    if source.classes is not None:
        if len(set(source.classes)) < len(source.classes):
            raise TrainingError(f"source.classes {list(source.classes)}: a class is named twice")
        train, test = (_only(part, source.classes) for part in (train, test))
        labels = tuple(labels[target] for target in source.classes)
    if source.per_class is not None:
        train = _few(train, source.per_class, labels, seed=seed)
    return RawDataset.of_arrays(train, test, labels)


def _only(labelled: LabelledImages, classes: tuple[int, ...]) -> LabelledImages:
    numbers = np.full(10, -1)
    numbers[list(classes)] = np.arange(len(classes))
    targets = numbers[labelled.targets]
    return LabelledImages(labelled.images[targets >= 0], targets[targets >= 0])


def _few(labelled: LabelledImages, per_class: int, labels: tuple[str, ...], *, seed: int) -> LabelledImages:
    counts = np.bincount(labelled.targets, minlength=len(labels))
    if counts.min() < per_class:
        label = labels[int(counts.argmin())]
        raise TrainingError(f"source.per_class {per_class:,}: there are only {counts.min():,} of {label!r}")
    random = np.random.default_rng([seed, _STREAM])
    rows = np.sort(
        np.concatenate(
            [
                random.choice(np.flatnonzero(labelled.targets == target), per_class, replace=False)
                for target in range(len(labels))
            ]
        )
    )
    return LabelledImages(labelled.images[rows], labelled.targets[rows])


def _part(kind: str, folder: Path, *, train: bool) -> tuple[LabelledImages, tuple[str, ...]]:
    dataset = getattr(torchvision_part("datasets"), _CLASSES[kind])
    try:
        try:
            part = dataset(folder, train=train)
        except RuntimeError:  # not there
            part = dataset(folder, train=train, download=True)
        labelled = LabelledImages(np.asarray(part.data), np.asarray(part.targets, np.int64))
    # What torchvision raises for no network, a damaged file, a folder that cannot be written to.
    except (RuntimeError, OSError, ValueError, AssertionError, EOFError) as error:
        raise _not_there(kind, folder, " ".join(str(error).split()) or type(error).__name__) from error
    if labelled.images.shape != (len(labelled.targets), *_SHAPES[kind]):
        raise _not_there(kind, folder, "its files do not fit together")
    return labelled, tuple("0123456789") if kind == "mnist" else tuple(part.classes)


def _not_there(kind: str, folder: Path, reason: str) -> TrainingError:
    files, below = _WHERE[kind]
    return TrainingError(
        f"{_CLASSES[kind]} cannot be had: {reason[:300]}. Put {files} into {folder / below}, or name the folder above "
        f"{below.partition('/')[0]}/ with --data, or run this where it can be downloaded. "
        "`python -m training strokes` needs no data"
    )
