"""Writes small photos, so that tests have folders of them."""

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


def write_folder(folder: Path, **counts: int) -> Path:
    """`folder` with so many photos of each class, all different."""
    for number, (label, count) in enumerate(counts.items()):
        for i in range(count):
            write(folder / label / f"{i:03}.jpg", seed=1000 * number + i + sum(map(ord, str(folder.name))))
    return folder
