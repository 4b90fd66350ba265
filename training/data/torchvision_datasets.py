"""The data sets of `recipes.dataset_table` by torchvision's own classes: found in a folder, or downloaded to it."""

from pathlib import Path

import numpy as np

from classifier.torchvision_parts import torchvision_part
from training.data.raw_dataset import LabelledImages, RawDataset
from training.errors import TrainingError, one_line
from training.recipes.dataset_table import TORCHVISION_DATASETS, TorchvisionDataset
from training.recipes.recipe import TorchvisionSource

_STREAM = 2  # of the seed's random numbers; the others are in training.data.dataset


def load(source: TorchvisionSource, folder: Path, *, seed: int) -> RawDataset:
    """Returns the training and test images of the source's classes, and as many for training as the source says.

    Args:
        folder: the folder above the one that torchvision makes, such as MNIST/.
        seed: of the choice of samples, where the source wants only some of each class.

    Raises:
        TrainingError: the data set is neither in `folder` nor to be downloaded, it is damaged, or it has fewer samples
            or classes than the source wants.
        TorchvisionError: torchvision cannot be imported.
    """
    row = TORCHVISION_DATASETS[source.kind]
    (train, labels), (test, _) = (_part(row, folder, train=train) for train in (True, False))
    if source.classes is not None:
        if len(set(source.classes)) < len(source.classes):
            raise TrainingError(f"source.classes {list(source.classes)}: a class is named twice")
        if max(source.classes) >= len(labels):
            raise TrainingError(f"source.classes {list(source.classes)}: the classes are 0 to {len(labels) - 1}")
        train, test = (_only(part, source.classes) for part in (train, test))
        labels = tuple(labels[target] for target in source.classes)
    if source.per_class is not None:
        train = _few(train, source.per_class, labels, seed=seed)
    return RawDataset.of_arrays(train, test, labels)


def _only(labelled: LabelledImages, classes: tuple[int, ...]) -> LabelledImages:
    numbers = np.full(max(*classes, labelled.targets.max()) + 1, -1)
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


def _part(row: TorchvisionDataset, folder: Path, *, train: bool) -> tuple[LabelledImages, tuple[str, ...]]:
    dataset = getattr(torchvision_part("datasets"), row.torchvision)
    try:
        try:
            part = dataset(folder, train=train)
        except RuntimeError:  # not there
            part = dataset(folder, train=train, download=True)
        labelled = LabelledImages(np.asarray(part.data), np.asarray(part.targets, np.int64))
    # What torchvision raises for no network, a damaged file, a folder that cannot be written to.
    except (RuntimeError, OSError, ValueError, AssertionError, EOFError) as error:
        raise _not_there(row, folder, one_line(error)) from error
    if labelled.images.shape != (len(labelled.targets), *row.shape):
        raise _not_there(row, folder, "its files do not fit together")
    return labelled, row.labels or tuple(part.classes)


def _not_there(row: TorchvisionDataset, folder: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"{row.torchvision} is not available: {reason[:300]}. Put {row.files} into {folder / row.below}, "
        f"or name the folder above {row.below.partition('/')[0]}/ with --data, or run this where it can be downloaded. "
        "`python -m training strokes` needs no data"
    )
