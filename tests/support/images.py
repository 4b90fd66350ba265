"""Images for the tests of preprocessing, and files that Pillow itself would not write."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from classifier.preprocess import Pixels, Preprocess

Array = npt.NDArray[Any]


def as_it_is(mode: str, height: int, width: int, *, background: int = 255) -> Preprocess:
    """Leaves an image of this size alone, so that a test sees what became of its pixels."""
    values = (0.0,) if mode == "L" else (0.0, 0.0, 0.0)
    return Preprocess.model_validate(
        {"mode": mode, "resize": None, "crop": (height, width), "mean": values, "std": [1.0] * len(values)}
        | {"background": background}
    )


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def pixels_of(data: bytes, mode: str, *, background: int = 255) -> Pixels:
    """What becomes of a file whose size is left alone."""
    image = opened(data)
    return as_it_is(mode, image.height, image.width, background=background).to_pixels(image)


def noise(height: int, width: int, channels: int = 3, *, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def picture(height: int = 61, width: int = 83) -> Image.Image:
    """Colours that change everywhere: no two places are the same."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 3 % 256, y * 4 % 256, x * y % 256], axis=-1).astype(np.uint8))


def png(width: int, height: int, *, depth: int, colour: int, rows: list[bytes], key: bytes = b"") -> bytes:
    """A PNG of any depth and colour type (0 grey, 2 RGB, 4 grey with alpha, 6 RGBA), with a colour key."""
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
            png_chunk(b"tRNS", key) if key else b"",
            png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
            png_chunk(b"IEND", b""),
        )
    )


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(
    width: int, height: int, data: bytes, *, bits: int = 8, photometric: int = 1, compression: int = 1, order: str = "<"
) -> bytes:
    """A grey TIFF of one strip, whose directory comes before its pixels."""
    entries = [(256, width), (257, height), (258, bits), (259, compression), (262, photometric)]
    entries += [(273, 8 + 2 + 12 * 9 + 4), (277, 1), (278, height), (279, len(data))]
    directory = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    return head + directory + bytes(4) + data
