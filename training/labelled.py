"""Labelled: images and their classes as they come, before anything is chosen or done to them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Labelled:
    """Images, uint8 [n, height, width] (grey), and targets, int64 [n]."""

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.int64]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the images' bytes and then the targets', little endian."""
        sha256 = hashlib.sha256(np.ascontiguousarray(self.images).data)
        sha256.update(np.ascontiguousarray(self.targets, dtype="<i8").data)
        return sha256.hexdigest()
