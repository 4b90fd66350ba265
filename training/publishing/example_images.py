"""Gets example images for a reference batch if there is no data set: from a folder of any images, or drawn."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from classifier.checkpoint import MAX_REFERENCES
from classifier.image_files.opening import open_file
from classifier.preprocess import Preprocess
from classifier.visible import to_mode
from training.errors import TrainingError
from training.png import png

_LONGEST_EDGE = 512
_HEIGHT, _WIDTH = 260, 300  # of what is drawn: neither square nor any network's input, so that resizing is proved too


def from_folder(folder: Path, preprocess: Preprocess) -> tuple[bytes, ...]:
    """Returns up to 8 of the images in a folder and below, as PNG files of at most 512 pixels an edge.

    They are spread evenly over the sorted names.

    Raises: TrainingError if there is no image that can be read.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder of images")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    wanted = min(MAX_REFERENCES, len(paths))
    # First those that are spread evenly; the others only stand in for what is no image.
    spread = [paths[i * len(paths) // wanted] for i in range(wanted)]
    found: list[bytes] = []
    for path in [*spread, *(path for path in paths if path not in spread)]:
        if len(found) == MAX_REFERENCES:
            break
        try:
            image = open_file(path.read_bytes(), formats=None, max_pixels=None)
            seen = to_mode(image, mode=preprocess.mode, background=preprocess.background)
        except Exception:  # noqa: BLE001, S112  Pillow raises nearly anything on files that are no sound images
            continue
        seen.thumbnail((_LONGEST_EDGE, _LONGEST_EDGE))
        found.append(png(seen))
    if not found:
        raise TrainingError(f"there is no image in {folder}")
    return tuple(found)


def drawn(preprocess: Preprocess) -> tuple[bytes, ...]:
    """Draws 8 pictures as PNG files: slopes of light, shapes, and noise. They are the same every time."""
    random = np.random.default_rng(8)
    pictures = [
        *(Image.fromarray(_slope(random)) for _ in range(2)),
        *(_shapes(random) for _ in range(4)),
        # Coarse, as clouds, and fine.
        *(Image.fromarray(_noise(random, edge)).resize((_WIDTH, _HEIGHT)) for edge in (9, 120)),
    ]
    return tuple(png(picture.convert(preprocess.mode)) for picture in pictures)


def _slope(random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draws a different slope in each colour."""
    down, across = np.mgrid[0 : 1 : _HEIGHT * 1j, 0 : 1 : _WIDTH * 1j][..., None]
    levels = random.uniform(0, 255, 3) + down * random.uniform(-255, 255, 3) + across * random.uniform(-255, 255, 3)
    slope: npt.NDArray[np.uint8] = levels.clip(0, 255).astype(np.uint8)
    return slope


def _shapes(random: np.random.Generator) -> Image.Image:
    image = Image.fromarray(_slope(random))
    draw = ImageDraw.Draw(image)
    for shape in (draw.ellipse, draw.rectangle, draw.ellipse):
        left, top = random.integers((0, 0), (_WIDTH // 2, _HEIGHT // 2)).tolist()
        width, height = random.integers(30, 150, 2).tolist()
        red, green, blue = random.integers(0, 256, 3).tolist()
        shape((left, top, left + width, top + height), fill=(red, green, blue))
    return image


def _noise(random: np.random.Generator, edge: int) -> npt.NDArray[np.uint8]:
    return random.integers(0, 256, (edge, edge, 3), dtype=np.uint8)
