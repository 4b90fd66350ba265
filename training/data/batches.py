"""Gives images and targets in batches on a device, whether they lie in memory or are decoded on the way."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from classifier.preprocess import Preprocess
from training.data.decode import Job, pixels_of
from training.data.raw_dataset import File, Rows
from training.data.workers import Workers
from training.recipes.recipe import Augment

_AT_ONCE = 32  # images, by one worker: a larger batch is made by several
_HERE = 4  # so few are quicker made here than handed over


class Split(Protocol):
    """Is a part of a data set: what is trained on, what is held out, or what is tested on."""

    @property
    def targets(self) -> torch.Tensor:
        """int64 [n], the class of each sample, on the CPU."""

    def __len__(self) -> int: ...

    def batches(
        self, chosen: Sequence[torch.Tensor], *, device: torch.device, draw: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Gives (images, targets) on `device` for each int64 index tensor of `chosen`, in their order.

        Images are uint8 [n, height, width, channels], as `Preprocess.to_pixels` gives them.

        Args:
            draw: the seed of what is done at random to each image while it is decoded; None: nothing is.

        Raises: TrainingError if an image can no longer be read, or if a worker process ends.
        """


class InMemorySplit:
    """Holds its images in memory, and moves all of them to a device when they are first wanted there."""

    def __init__(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        """Takes images that need no more work.

        Args:
            images: uint8 [n, height, width, channels], on the CPU.
            targets: int64 [n], on the CPU.
        """
        self.images = images
        self.targets = targets
        self._moved = images, targets

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, chosen: Sequence[torch.Tensor], *, device: torch.device, draw: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        del draw  # a split whose images are augmented one by one is not held in memory
        if self._moved[0].device != device:
            self._moved = self.images.to(device), self.targets.to(device)
        images, targets = self._moved
        for indices in chosen:
            rows = indices.to(device)
            yield images[rows], targets[rows]


@dataclass(frozen=True, slots=True, eq=False)
class OnDemandSplit:
    """Opens its images only when they are wanted: worker processes decode and augment them.

    Args:
        pictures: the images of the whole data set.
        rows: which of these belong to this split.
        targets: int64 [n], on the CPU.
    """

    pictures: npt.NDArray[np.uint8] | Sequence[File]
    rows: Rows
    targets: torch.Tensor
    preprocess: Preprocess
    augment: Augment
    workers: Workers

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, chosen: Sequence[torch.Tensor], *, device: torch.device, draw: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        few = sum(map(len, chosen)) <= _HERE
        jobs = (self._job(part, draw) for indices in chosen for part in torch.split(indices, _AT_ONCE))
        made = map(pixels_of, jobs) if few else self.workers.map(pixels_of, jobs)
        for indices in chosen:
            parts = list(itertools.islice(made, -(-len(indices) // _AT_ONCE)))
            images = parts[0] if len(parts) == 1 else torch.cat(parts)
            yield images.to(device), self.targets[indices].to(device)

    def _job(self, indices: torch.Tensor, draw: int | None) -> Job:
        rows = self.rows[indices.numpy()]
        seeds = None if draw is None else tuple(_seed(draw, row) for row in rows.tolist())
        return Job(tuple(self.pictures[row] for row in rows), self.preprocess, self.augment, seeds)


def _seed(draw: int, row: int) -> int:
    """Returns a seed that no other pair has, and that shows no pattern."""
    return int(np.random.SeedSequence([draw, row]).generate_state(1, np.uint64)[0])
