"""Features: what a frozen network makes of images, computed once and kept on disk, so that a head trains in no time."""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from training import atomic_files
from training.data.batches import Split
from training.errors import TrainingError
from training.evaluation.logits import Forward, logits_of
from training.networks import heads
from training.progress import Progress
from training.runs.learner import Learner

MOST_BYTES = 10 << 30  # of all stored features; a run keeps what it needs itself beyond that


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """A split whose "images" are float32 features [n, ...], read from the disk as they are needed."""

    values: npt.NDArray[np.float32]
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, chosen: Sequence[torch.Tensor], *, device: torch.device, draw: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        del draw  # nothing is done at random to features
        for rows in chosen:
            yield torch.from_numpy(self.values[rows.numpy()]).to(device), self.targets[rows].to(device)


def key(identity: dict[str, object], network: nn.Module, parts: tuple[str, ...]) -> str:
    """The same for the same images, the same preparation, and the same frozen weights."""
    sha256 = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    trained = heads.state_of(network, parts)
    for name, tensor in network.state_dict().items():
        if name not in trained:
            sha256.update(name.encode())
            sha256.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()[:32]


def computed(
    split: Split,
    learner: Learner,
    *,
    normalize: Forward,
    path: Path,
    progress: Progress,
    title: str,
) -> Features:
    """What the network gives its first trained part for each image of `split`: from `path`, or computed and put there.

    Raises: OSError; TrainingError.
    """
    found = _found(path, len(split))
    if found is None:
        until_head = heads.features(learner.network, learner.parts)
        with progress.step(title, total=len(split), unit="images") as advance, atomic_files.atomic_write(path) as file:
            rows = _Rows(file, len(split))

            def keep(images: torch.Tensor) -> torch.Tensor:
                values = until_head(normalize(images)).float()
                rows.append(values.cpu().numpy())
                advance(len(values))
                return values.flatten(1)[:, :1]

            logits_of(learner.network, split, forward=keep, device=learner.device)
        found = _found(path, len(split))
        if found is None:
            raise TrainingError(f"{path} was changed by somebody else; try again")
    return Features(found, split.targets)


def remove_old(folder: Path, *, keep: Collection[Path], most_bytes: int = MOST_BYTES) -> None:
    """Removes the features that were computed first, until all together have at most `most_bytes`.

    Those in `keep` stay, whatever their size. A run that still reads a file that is removed here is not disturbed.
    """
    stored = sorted((path.stat().st_mtime_ns, path.stat().st_size, path) for path in folder.glob("*.npy"))
    too_many = sum(size for _, size, _ in stored) - most_bytes
    for _, size, path in stored:
        if too_many > 0 and path not in keep:
            path.unlink(missing_ok=True)
            too_many -= size


def _found(path: Path, count: int) -> npt.NDArray[np.float32] | None:
    """Mapped, not read: more than fits in memory may lie there. Copy on write, as torch wants what it may change."""
    try:
        values = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError):  # not there, or cut short
        return None
    if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.ndim < 2 or len(values) != count:
        return None
    return values


class _Rows:
    """An array written a piece at a time, as numpy.save would write the whole."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file = file
        self._count = count

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        if self._file.tell() == 0:
            shape = (self._count, *rows.shape[1:])
            np.lib.format.write_array_header_2_0(self._file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        self._file.write(np.ascontiguousarray(rows, "<f4").data)
