"""Dataset: images and targets in memory, split for training, and the ways to get one."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from classifier.checkpoint import MAX_REFERENCES
from classifier.preprocess import Preprocess
from training import drawings, mnist
from training.errors import TrainingError
from training.labelled import Labelled
from training.progress import Progress
from training.recipes import Recipe, StrokesSource


@dataclass(frozen=True, slots=True)
class Split:
    """Images, uint8 [n, height, width, channels], after `Preprocess.to_pixels`, and targets, int64 [n]."""

    images: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.targets.to(device))


@dataclass(frozen=True, slots=True)
class Dataset:
    """What a network is trained on, chosen by, and measured on.

    Args:
        labels: by class index.
        fingerprint: `Labelled.fingerprint` of the training set, held-out samples included.
        examples: a few test images as PNG files, of as many classes as there are, as a user would send them.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    held_out: Split
    test: Split
    fingerprint: str
    examples: tuple[bytes, ...]


def load(recipe: Recipe, *, folder: Path, scratch: Path, progress: Progress) -> Dataset:
    """The recipe's data set, split by the recipe's seed.

    Args:
        folder: where data sets that are not drawn are looked for, or downloaded to.
        scratch: where drawn ones are kept for the next time.

    Raises: TrainingError if there is none; OSError.
    """
    match recipe.source:
        case StrokesSource() as source:
            train = drawings.load(source.samples, seed=recipe.seed, stream=0, scratch=scratch, progress=progress)
            test = drawings.load(source.test_samples, seed=recipe.seed, stream=1, scratch=scratch, progress=progress)
        case _:
            train, test = mnist.load(folder)
    return _split(recipe, train, test)


def _split(recipe: Recipe, train: Labelled, test: Labelled) -> Dataset:
    count = recipe.held_out if recipe.held_out >= 1 else round(recipe.held_out * len(train.targets))
    if not 0 < count < len(train.targets):
        raise TrainingError(f"{len(train.targets):,} samples are too few to hold {count:,} of them out")
    order = torch.randperm(len(train.targets), generator=torch.Generator().manual_seed(recipe.seed))
    # In the order they came, so that the choice alone, not the order, depends on the seed here.
    held_out, kept = order[:count].sort().values, order[count:].sort().values
    everything = as_pixels(recipe.preprocess, train)
    return Dataset(
        name=recipe.source.kind,
        labels=tuple("0123456789"),
        train=Split(everything.images[kept], everything.targets[kept]),
        held_out=Split(everything.images[held_out], everything.targets[held_out]),
        test=as_pixels(recipe.preprocess, test),
        fingerprint=train.fingerprint,
        examples=_examples(test),
    )


def as_pixels(preprocess: Preprocess, labelled: Labelled) -> Split:
    images = labelled.images
    if images.shape[1:] == preprocess.shape[:2] and preprocess.mode == "L" and preprocess.crop is None:
        pixels = images[..., None]  # what `to_pixels` would give, without 60,000 calls
    else:
        pixels = np.stack([preprocess.to_pixels(Image.fromarray(image)) for image in images])
    return Split(torch.from_numpy(pixels), torch.from_numpy(labelled.targets))


def _examples(labelled: Labelled) -> tuple[bytes, ...]:
    firsts = np.unique(labelled.targets, return_index=True)[1]
    others = np.setdiff1d(np.arange(len(labelled.targets)), firsts)
    chosen = np.concatenate([firsts, others])[:MAX_REFERENCES]
    return tuple(png(labelled.images[i]) for i in chosen)


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """uint8 [height, width] (grey) or [height, width, 3] (RGB) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
