"""Gives images and targets in batches on a device, whether they lie in memory or are decoded on the way."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from classifier.preprocess import Preprocess
from training.data.decode import Job, pixels_of
from training.data.raw_dataset import Archives, File, Member, Rows
from training.data.shard_cache import Window
from training.data.workers import Workers
from training.recipes.recipe import Augment

_AT_ONCE = 32  # images, by one worker: a larger batch is made by several
_HERE = 4  # so few are quicker made here than handed over
_IN_THIS_PROCESS = Workers(0)


class Split(Protocol):
    """Is a part of a data set: what is trained on, what is held out, or what is tested on."""

    @property
    def targets(self) -> torch.Tensor:
        """int64 [n], the class of each sample, on the CPU."""

    @property
    def shards(self) -> torch.Tensor | None:
        """int64 [n], the number of the shard in which each sample lies; None: they lie in none."""

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

    shards = None

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
        archives: brings the archives in which the pictures lie to this machine; None: they are here.
    """

    pictures: npt.NDArray[np.uint8] | Sequence[File]
    rows: Rows
    targets: torch.Tensor
    preprocess: Preprocess
    augment: Augment
    workers: Workers
    archives: Archives | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def shards(self) -> torch.Tensor | None:
        """int64 [n], the number of the shard in which each sample lies; None: they lie in none."""
        pictures = [self.pictures[row] for row in self.rows]
        places = [picture.archive for picture in pictures if isinstance(picture, Member)]
        numbers = {place: number for number, place in enumerate(dict.fromkeys(places))}
        return torch.tensor([numbers[place] for place in places]) if len(places) == len(pictures) else None

    def batches(
        self, chosen: Sequence[torch.Tensor], *, device: torch.device, draw: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        few = sum(map(len, chosen)) <= _HERE
        unanswered = 0
        with self._window(chosen) as window:

            def jobs() -> Iterator[Job | None]:
                nonlocal unanswered
                for turn, indices in enumerate(chosen):
                    if window is not None:
                        while unanswered and not window.is_here(turn):
                            yield None  # what is in use leaves when its results are taken, and makes room
                        window.enter(turn)
                    for part in torch.split(indices, _AT_ONCE):
                        unanswered += 1
                        yield self._job(part, draw)

            workers = _IN_THIS_PROCESS if few else self.workers
            made = workers.map(pixels_of, jobs())
            for turn, indices in enumerate(chosen):
                parts = []
                for _ in range(-(-len(indices) // _AT_ONCE)):
                    parts.append(next(made))
                    unanswered -= 1
                images = parts[0] if len(parts) == 1 else torch.cat(parts)
                if window is not None:
                    window.leave(turn)
                yield images.to(device), self.targets[indices].to(device)

    def _window(self, chosen: Sequence[torch.Tensor]) -> AbstractContextManager[Window | None]:
        """Gives what waits for the archives of each of `chosen`, or None if all are here."""
        if self.archives is None:
            return nullcontext()
        pictures = ([self.pictures[row] for row in self.rows[indices.numpy()]] for indices in chosen)
        return self.archives.window(
            [{picture.archive for picture in each if isinstance(picture, Member)} for each in pictures]
        )

    def _job(self, indices: torch.Tensor, draw: int | None) -> Job:
        rows = self.rows[indices.numpy()]
        seeds = None if draw is None else tuple(_seed(draw, row) for row in rows.tolist())
        return Job(tuple(self.pictures[row] for row in rows), self.preprocess, self.augment, seeds)


def _seed(draw: int, row: int) -> int:
    """Returns a seed that no other pair has, and that shows no pattern."""
    return int(np.random.SeedSequence([draw, row]).generate_state(1, np.uint64)[0])
