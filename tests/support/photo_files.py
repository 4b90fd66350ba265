"""Writes small photos, so that tests have folders of them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (48, 36), mode: str = "RGB") -> Image.Image:
    """Smooth, coloured, and unlike that of any other seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)


def write(path: Path, seed: int = 0, size: tuple[int, int] = (48, 36), mode: str = "RGB", **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size, mode).save(path, **options)
    return path


def rewrite(path: Path, image: Image.Image) -> None:
    """Puts an image in the place of one of the same size in bytes, and of its time, as archives and `cp -a` do."""
    before = path.stat()
    image.save(path)
    after = path.stat()
    assert after.st_size == before.st_size
    while after.st_mtime_ns != before.st_mtime_ns or after.st_ctime_ns == before.st_ctime_ns:  # a tick of the clock
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = path.stat()


def write_folder(folder: Path, **counts: int) -> Path:
    """`folder` with so many photos of each class, all different."""
    for number, (label, count) in enumerate(counts.items()):
        for i in range(count):
            write(folder / label / f"{i:03}.jpg", seed=1000 * number + i + sum(map(ord, str(folder.name))))
    return folder


def touch(folder: Path, *names: str) -> Path:
    """`folder` with empty files of these names, which may have "/" in them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder
