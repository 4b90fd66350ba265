"""One image file: its bytes become pixels, and which files are small."""

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from app.decoding.formats import ImageProblem, accepted_format
from app.decoding.plain_png import plain_png
from classifier.image_files.opening import open_file
from classifier.image_files.work import TooLarge
from classifier.preprocess import ImageError, Pixels, Preprocess

# Importing a plugin is what makes Pillow know its format; nothing else of them is used.
_PLUGINS = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)

# Up to here a hop to another thread costs more than the decoding.
SMALL_BYTES = 32 * 1024
_SMALL_PIXELS = 128 * 128
_SMALL_RATIO = 4
# In the names of those chunks of a PNG (zTXt, iTXt) that are inflated where they may hold the orientation.
_INFLATING = b"TXt"


def decode(data: bytes, preprocess: Preprocess) -> Pixels:
    """Returns the pixels of an image file of any size, as `Preprocess.to_pixels` makes them.

    Raises: ImageProblem, MemoryError.
    """
    return to_pixels(open_image(data, max_pixels=None), preprocess)


def open_image(data: bytes, *, max_pixels: int | None, quick: bool = False) -> Image.Image:
    """Opens a file. Then the size is known, and only a small plain PNG is decoded.

    Args:
        max_pixels: the limit; None: that of Pillow. Nor may a file be more work than twice a baseline JPEG of so many.
        quick: a file that may take more than a few milliseconds to decode is said to be too large.

    Raises: ImageProblem, MemoryError.
    """
    limit = _SMALL_PIXELS if max_pixels is None else min(max_pixels, _SMALL_PIXELS)
    plain = plain_png(data, max_pixels=limit)
    if plain is not None:
        return plain
    try:
        return open_file(data, formats=(accepted_format(data),), max_pixels=max_pixels, quick=quick)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, TooLarge) as error:
        raise ImageProblem("too_many_pixels", str(error)) from error
    except ImageError as error:
        raise ImageProblem("bad_image", str(error)) from error
    except (ImageProblem, MemoryError):
        raise
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged files
        raise ImageProblem("bad_image", f"the image is damaged: {_first_words(error)}") from error


def to_pixels(image: Image.Image, preprocess: Preprocess, *, draft: bool = False) -> Pixels:
    """Returns the pixels of an opened image, as `Preprocess.to_pixels` makes them.

    Args:
        draft: a large JPEG is decoded at a half, a quarter or an eighth of its size, where its shorter edge keeps at
            least twice the pixels that it is resized to.

    Raises: ImageProblem, MemoryError.
    """
    if draft and preprocess.resize is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
        edge = 2 * max(np.atleast_1d(preprocess.resize))  # whichever way up it is
        image.draft(None, (edge, edge))
    try:
        return preprocess.to_pixels(image)
    except ImageError as error:
        raise ImageProblem("bad_image", str(error)) from error


def is_small_file(data: bytes) -> bool:
    """Says whether a file is so small, and holds nothing that may inflate, that its header may be read at once."""
    return len(data) <= SMALL_BYTES and _INFLATING not in data


def is_small(size: tuple[int, int]) -> bool:
    """Says whether an image of this width and height is decoded quickly, also where it is resized."""
    # A long thin image has few pixels, but many once its short edge has the length that a network wants.
    return size[0] * size[1] <= _SMALL_PIXELS and max(size) <= _SMALL_RATIO * min(size)


def _first_words(error: Exception) -> str:
    # Pillow's "cannot identify image file" ends in the address of a buffer.
    return "its header cannot be read" if isinstance(error, OSError) else f"{error}"
