"""Opens an image file. What decoding needs of it is found and the work counted, before Pillow reads the header."""

import math
from io import BytesIO

from PIL import Image

from classifier.image_files import bmp, gif, jpeg, png, tiff, webp
from classifier.image_files.work import Work, check_size

_FORMATS = (
    ((png.SIGNATURE,), "PNG", png.necessary),
    ((jpeg.SIGNATURE,), "JPEG", jpeg.necessary),
    (gif.SIGNATURES, "GIF", gif.necessary),
    ((bmp.SIGNATURE,), "BMP", bmp.necessary),
    (tiff.SIGNATURES, "TIFF", tiff.necessary),
)


def open_file(data: bytes, *, formats: tuple[str, ...] | None, max_pixels: int | None) -> Image.Image:
    """Opens an image file. Its size is known then, and nothing is decoded.

    Args:
        data: the whole file.
        formats: Pillow's names of those that are tried; None: all.
        max_pixels: how many pixels an image may have. No file may be more work than twice a baseline JPEG of so many
            pixels. None: Pillow's own limit.

    Raises:
        TooLarge: it has too many pixels, or to decode it would take too long.
        ImageError: it is damaged.
        Exception: nearly any, for Pillow's parsers raise them where a file is damaged.
    """
    image = Image.open(BytesIO(necessary(data, max_pixels=max_pixels)), formats=formats)
    check_size(image.width, image.height, _limit(max_pixels))
    return image


def necessary(data: bytes, *, max_pixels: int | None) -> bytes:
    """Returns a file with the same pixels and orientation, without most of what says nothing about these.

    Raises: TooLarge, ImageError, as `open_file` does.
    """
    most = _limit(max_pixels)
    if webp.is_webp(data):
        return webp.necessary(data, Work("WebP", most))
    for signatures, name, find in _FORMATS:
        if data.startswith(signatures):
            return find(data, Work(name, most))
    return data


def _limit(max_pixels: int | None) -> float:
    return max_pixels or Image.MAX_IMAGE_PIXELS or math.inf
