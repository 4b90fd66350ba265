"""Keeps features on the disk: what a frozen network makes of images, computed once, so that a head trains fast."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from classifier import atomic_files
from classifier.progress import Advance, Progress
from training.data.batches import Split
from training.errors import TrainingError
from training.evaluation.logits import Forward, outputs_of
from training.networks import heads
from training.process_group import ProcessGroup
from training.runs.learner import Learner

MOST_BYTES = 10 << 30  # of all stored features, unless those of one run alone need more


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Is a split whose "images" are float32 features [n, ...], which are read from the disk when they are needed."""

    values: npt.NDArray[np.float32]
    targets: torch.Tensor
    shards: None = None

    def __len__(self) -> int:
        return len(self.targets)

    def batches(
        self, chosen: Sequence[torch.Tensor], *, device: torch.device, draw: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        del draw  # nothing is done at random to features
        for rows in chosen:
            yield torch.from_numpy(self.values[rows.numpy()]).to(device), self.targets[rows].to(device)


def key(identity: dict[str, object], network: nn.Module, parts: tuple[str, ...]) -> str:
    """Returns a hash that is the same for the same images, the same preparation, and the same frozen weights.

    Args:
        identity: all that decides the features, except the frozen weights.
        parts: the names of the modules that train.
    """
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
    unchanged: Callable[[], bool],
    progress: Progress,
    title: str,
    group: ProcessGroup,
) -> Features:
    """Returns what the network gives to its first trained part for each image of `split`.

    It is read from `path`, or computed and written there.

    Args:
        normalize: makes of a batch of images what the network takes.
        unchanged: tells whether the images still are those that `path` stands for.
        title: what the step is called for people.
        group: the processes that share the work, and that all see `path`.

    Raises:
        OSError: `path` cannot be written.
        TrainingError: an image cannot be read, or somebody changed the images or the file meanwhile.
    """
    # The others do not look before the first has written: a network's file system may remember that nothing was there.
    is_found = group.is_first and _found(path, len(split)) is not None
    if group.text_of_first(str(is_found)) != str(True):
        until_head = heads.features(learner.network, learner.parts)
        rows = outputs_of(
            learner.network,
            split,
            forward=lambda images: until_head(normalize(images)),
            device=learner.device,
            group=group,
        )
        with progress.step(title, total=len(split), unit="images") as advance:
            _keep(rows, path if group.is_first else None, len(split), unchanged, advance)
        group.together()
    found = _found(path, len(split))
    if found is None:
        raise TrainingError(f"{path} was changed by somebody else, or is not seen from here; try again")
    return Features(found, split.targets)


def _keep(
    rows: Iterator[torch.Tensor], path: Path | None, count: int, unchanged: Callable[[], bool], advance: Advance
) -> None:
    """Writes the features to `path`; None: another process does."""
    if path is None:
        for values in rows:
            advance(len(values))
        return
    with atomic_files.atomic_write(path) as file:
        written = _Rows(file, count)
        for values in rows:
            written.append(values.numpy())
            advance(len(values))
        if not unchanged():  # before the file is there: it would be believed for ever
            raise TrainingError("images of the data set were changed while they were read; start again")


def remove_old(folder: Path, *, keep: Collection[Path], most_bytes: int = MOST_BYTES) -> None:
    """Removes the oldest features until all together have at most `most_bytes` bytes.

    The files in `keep` stay, however old and large they are. A run that still reads a file can go on reading it after
    it is removed.

    Raises: OSError if a file cannot be removed.
    """
    stored: list[tuple[int, int, Path]] = []
    for path in folder.glob("*.npy"):
        with suppress(FileNotFoundError):  # another run has just removed it
            status = path.stat()
            stored.append((status.st_mtime_ns, status.st_size, path))
    too_many = sum(size for _, size, _ in stored) - most_bytes
    for _, size, path in sorted(stored):
        if too_many > 0 and path not in keep:
            path.unlink(missing_ok=True)
            too_many -= size


def _found(path: Path, count: int) -> npt.NDArray[np.float32] | None:
    """Returns the features at `path`, or None if the file is not there or not sound.

    The file is mapped and not read, for it may be larger than the memory. Torch wants arrays that it may change, so the
    mapping copies what is written to.
    """
    try:
        values = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError):  # not there, or cut short
        return None
    if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.ndim < 2 or len(values) != count:
        return None
    return values


class _Rows:
    """Writes an array a piece at a time, as numpy.save would write the whole."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self._file = file
        self._count = count

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        if self._file.tell() == 0:
            shape = (self._count, *rows.shape[1:])
            np.lib.format.write_array_header_2_0(self._file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        self._file.write(np.ascontiguousarray(rows, "<f4").data)
