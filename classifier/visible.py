"""Makes of an image file what is to be seen: upright, in 8 bits, grey or coloured. It imports no torch."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageChops, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """An image cannot be used; the message says why, in words for the person who sent it."""


def to_mode(image: Image.Image, *, mode: str, background: int) -> Image.Image:
    """Returns the first frame of `image` in the mode "L" or "RGB".

    Where it is transparent, the grey level `background` (0 to 255) shows through.

    Raises:
        ImageError: its pixels have no agreed range.
        Exception: nearly any, for Pillow's decoders raise them where a file is damaged or cut short.
    """
    _load(image)
    if image.mode == mode and not image.info:  # neither transparent nor turned, as most small images are
        return image
    # Pillow takes every JPEG of inks for one of Adobe's, where they are stored inverted.
    inverted = isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode == "CMYK" and "adobe" not in image.info
    image = _upright(image)
    return _with_channels(ImageChops.invert(image) if inverted else image, mode, background)


def _load(image: Image.Image) -> None:
    depth = image.tile[0].args if isinstance(image, PngImagePlugin.PngImageFile) and image.tile else None
    image.load()
    # Pillow scales grey levels to 8 bits, but leaves the level that is transparent in the depth of the file.
    match depth, image.info.get("transparency"):
        case "L;2", int(level):
            image.info["transparency"] = level * 85
        case "L;4", int(level):
            image.info["transparency"] = level * 17
        case "RGB;16B", (int(red), int(green), int(blue)):
            image.info["transparency"] = (red >> 8, green >> 8, blue >> 8)


def orientation(image: Image.Image) -> int:
    """Returns the camera's EXIF orientation, 1 (upright) to 8, where 5 to 8 exchange width and height.

    It is 1 where the file says nothing, or nothing that can be understood. The pixels need not be decoded yet.
    """
    if not image.info:  # where EXIF would be
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
        return int(value) if value in _TRANSPOSITIONS else 1
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  damaged EXIF says nothing about the pixels
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Turns `image` as it is to be seen. (For TIFF Pillow has already done it when it decoded the file.)"""
    transposition = _TRANSPOSITIONS.get(orientation(image))
    return image if transposition is None else image.transpose(transposition)


def _with_channels(image: Image.Image, mode: str, background: int) -> Image.Image:
    """Returns `image`, whatever mode it has, in 8 bits as "L" or "RGB", on `background` where it is transparent.

    Raises: ImageError if its pixels have no agreed range.
    """
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode in ("I", "F"):
        raise ImageError(f"pixels of 32 bits or with a sign (mode {image.mode}) have no agreed range")
    if image.has_transparency_data:
        image = _flattened(image, background)
    if image.mode == "LAB":
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _flattened(image: Image.Image, background: int) -> Image.Image:
    if image.mode in ("LA", "La"):
        grey, alpha = image.convert("LA").split()
        opaque = Image.new("L", image.size, background)
        opaque.paste(grey, mask=alpha)
        return opaque
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    opaque = Image.new("RGB", image.size, (background, background, background))
    opaque.paste(image, mask=image)
    return opaque


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns the upper 8 bits of grey pixels that have 16 bits, or 12 in some TIFF files."""
    levels: npt.NDArray[Any] = np.asarray(image)
    bits, zero_is_white = 16, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
        zero_is_white = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    upper = (levels >> (bits - 8)).astype(np.uint8)
    grey = Image.fromarray(~upper if zero_is_white else upper)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        alpha = Image.fromarray(np.where(levels == transparent, np.uint8(0), np.uint8(255)))
        return Image.merge("LA", (grey, alpha))
    return grey
