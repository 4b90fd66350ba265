"""Writes drawn digits as the four files of MNIST, so that tests have a small one."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.strokes.draw import draw_digits


def write_mnist(folder: Path, *, train: int, test: int, name: str = "MNIST") -> Path:
    """`folder`, which then holds <name>/raw as torchvision lays it out."""
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    for prefix, count, stream in (("train", train, 0), ("t10k", test, 1)):
        images, targets = draw_digits(count, seed=0, stream=stream)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(_idx(images))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(_idx(targets.astype(np.uint8)))
    return folder


def _idx(array: npt.NDArray[np.uint8]) -> bytes:
    """http://yann.lecun.com/exdb/mnist/: a magic number with the dimensions' count, each of them, then the bytes."""
    header = np.array([0x0800 + array.ndim, *array.shape], ">u4")
    return header.tobytes() + array.tobytes()
