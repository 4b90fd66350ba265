"""Holds images and their classes as they come, before anything is chosen or done to them."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from training.data.shard_cache import Window

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Member:
    """Is a file in a tar archive that is not compressed. It is read as a file of its own is, from where it lies.

    Args:
        archive: the tar file.
        name: in the archive.
        offset, size: where its content begins, and how long it is, in bytes.
    """

    archive: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"

    def read_bytes(self) -> bytes:
        """Returns the content. Raises: OSError if the archive cannot be read, or has become shorter."""
        with self.archive.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), self.size, self.offset)
        if len(data) != self.size:
            raise OSError(f"{self.archive} has become shorter")
        return data

    def stat(self) -> os.stat_result:
        """Returns what is known of the archive: while that is unchanged, so are its members. Raises: OSError."""
        return self.archive.stat()

    def is_symlink(self) -> bool:
        """Tells whether the archive is reached by a link."""
        return self.archive.is_symlink()


class Archives(Protocol):
    """Brings archives to this machine, of which only a part is here at a time."""

    def window(self, turns: Sequence[Collection[Path]]) -> AbstractContextManager[Window]:
        """Gives what lets a reader wait for the archives that each of its turns needs."""

    def keep(self, members: Iterable[Member]) -> Mapping[Member, Member]:
        """Brings some members to this machine, to stay, and returns where each is."""


File = Path | Member
# A file, or uint8 [height, width] (grey) or [height, width, 3] (RGB).
Picture = File | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelledImages:
    """Holds images in one array, and their classes.

    Args:
        images: uint8 [n, height, width] (grey) or [n, height, width, 3] (RGB).
        targets: int64 [n].
    """

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 over the bytes of the images, and then over those of the targets, little endian."""
        sha256 = hashlib.sha256(np.ascontiguousarray(self.images).data)
        sha256.update(np.ascontiguousarray(self.targets, dtype="<i8").data)
        return sha256.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class RawDataset:
    """Holds all of a data set, and says which part of it is for what.

    Args:
        labels: by class index.
        pictures: files, or images of one size in one array [n, height, width] or [n, height, width, 3].
        targets: int64 [n].
        train, test: which rows are to train on, and which to test on.
        fingerprint: a hash that is equal for the same data.
        skipped: files that were left out, each with the reason.
        unchanged: tells whether the fingerprint still is that of the pictures; files may be written to meanwhile.
        archives: brings the archives in which the pictures lie to this machine; None: they are here.
    """

    labels: tuple[str, ...]
    pictures: npt.NDArray[np.uint8] | Sequence[File]
    targets: npt.NDArray[np.int64]
    train: Rows
    test: Rows
    fingerprint: str
    skipped: tuple[str, ...] = ()
    unchanged: Callable[[], bool] = lambda: True
    archives: Archives | None = None

    def keeping(self, rows: Rows) -> Self:
        """Returns the same data set, of which the pictures of some rows are on this machine all the time."""
        if self.archives is None:
            return self
        here = self.archives.keep(picture for row in rows if isinstance(picture := self.pictures[row], Member))
        pictures = [here.get(each, each) if isinstance(each, Member) else each for each in self.pictures]
        return replace(self, pictures=pictures)

    @classmethod
    def of_arrays(cls, train: LabelledImages, test: LabelledImages, labels: tuple[str, ...]) -> "RawDataset":
        """Joins two arrays. The fingerprint covers the training images, their targets, and the labels."""
        count = len(train.targets)
        return cls(
            labels=labels,
            pictures=np.concatenate([train.images, test.images]),
            targets=np.concatenate([train.targets, test.targets]),
            train=np.arange(count),
            test=np.arange(count, count + len(test.targets)),
            fingerprint=hashlib.sha256(f"{train.fingerprint}{json.dumps(labels)}".encode()).hexdigest(),
        )
