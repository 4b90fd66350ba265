"""The plain PNG, which nearly every small image is: a header, one piece of data, an end; 8 bits, grey or colour.

Pillow reads a file chunk by chunk, and looks for all else that a PNG may have. For 28x28 pixels that takes longer than
the pixels do.
"""

import struct
import zlib

from PIL import Image

_HEAD = struct.Struct(">8sI4sIIBBBBBII4s")  # to the data's first byte
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_MODES = {0: "L", 2: "RGB"}


def plain_png(data: bytes, *, max_pixels: int) -> Image.Image | None:
    """Returns the image of a plain PNG, decoded by Pillow's own decoder; None for every other file, sound or not."""
    if len(data) < _HEAD.size or not data.endswith(_END):
        return None
    fields = _HEAD.unpack_from(data)
    signature, length, name, width, height, depth, colour, compression, filters, interlace, check, size, kind = fields
    mode = _MODES.get(colour)
    if (
        mode is None
        or (signature, length, name, kind) != (_SIGNATURE, 13, b"IHDR", b"IDAT")
        or (depth, compression, filters, interlace) != (8, 0, 0, 0)
        or not 0 < width * height <= max_pixels
        or _HEAD.size + size + 4 + len(_END) != len(data)
        or zlib.crc32(data[12:29]) != check
    ):
        return None
    try:
        return Image.frombytes(mode, (width, height), data[_HEAD.size : _HEAD.size + size], "zip", mode, 0)
    except (ValueError, OSError):
        return None
