"""Opens an image file. What decoding needs of it is found and the work counted, before Pillow reads the header."""

import math
from io import BytesIO

from PIL import Image

from classifier.image_files import bmp, gif, jpeg, png, tiff, webp
from classifier.image_files.work import Work, check_size

# By the first two bytes, which differ: how the signatures begin, Pillow's name, and what finds the necessary.
_FORMATS = {
    signatures[0][:2]: (signatures, name, find)
    for signatures, name, find in (
        ((png.SIGNATURE,), "PNG", png.necessary),
        ((jpeg.SIGNATURE,), "JPEG", jpeg.necessary),
        (gif.SIGNATURES, "GIF", gif.necessary),
        ((bmp.SIGNATURE,), "BMP", bmp.necessary),
        (tiff.SIGNATURES_II, "TIFF", tiff.necessary),
        (tiff.SIGNATURES_MM, "TIFF", tiff.necessary),
        ((webp.SIGNATURE,), "WebP", webp.necessary),
    )
}


def open_file(
    data: bytes, *, formats: tuple[str, ...] | None, max_pixels: int | None, quick: bool = False
) -> Image.Image:
    """Opens an image file. Its size is known then, and nothing is decoded.

    Args:
        data: the whole file.
        formats: Pillow's names of those that are tried; None: all.
        max_pixels: how many pixels an image may have. No file may be more work than twice a baseline JPEG of so many
            pixels. None: Pillow's own limit.
        quick: no file may be more work than a few milliseconds.

    Raises:
        TooLarge: it has too many pixels, or to decode it would take too long.
        ImageError: it is damaged.
        Exception: nearly any, for Pillow's parsers raise them where a file is damaged.
    """
    image = Image.open(BytesIO(necessary(data, max_pixels=max_pixels, quick=quick)), formats=formats)
    check_size(image.width, image.height, _limit(max_pixels))
    return image


def necessary(data: bytes, *, max_pixels: int | None, quick: bool = False) -> bytes:
    """Returns a file with the same pixels and orientation, without most of what says nothing about these.

    Raises: TooLarge, ImageError, as `open_file` does.
    """
    found = _FORMATS.get(data[:2])
    if found is None:
        return data
    signatures, name, find = found
    return find(data, Work(name, _limit(max_pixels), quick=quick)) if data.startswith(signatures) else data


def _limit(max_pixels: int | None) -> float:
    return max_pixels or Image.MAX_IMAGE_PIXELS or math.inf
