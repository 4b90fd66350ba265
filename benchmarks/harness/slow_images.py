"""Makes image files that take long to decode for what they are: by many scans, pieces or bytes, by filters and codecs.

Pillow would not write most of them.
"""

import functools
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

END_OF_JPEG = b"\xff\xd9"
_EOB_RUN = 32767  # blocks that one code may leave as they are


@functools.lru_cache(maxsize=4)
def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Makes slopes with the grain of a camera, which cost a decoder as much as a photo does."""
    random = np.random.default_rng(0)
    slopes = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(slopes).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    tile = random.integers(-6, 7, (min(height, 512), width, 3), dtype=np.int16)
    for top in range(0, height, len(tile)):
        rows = image[top : top + len(tile)]
        rows += tile[: len(rows)]
    return Image.fromarray(image.clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_of_scans(
    width: int, height: int, scans: int, *, refined: bool = True, frame: int = 0xC2, filled: bool = True
) -> bytes:
    """Makes a JPEG of so many scans after the first, each of which goes over all blocks.

    Args:
        refined: whether each refines what there is, which takes a decoder longest; else it adds nothing.
        frame: the marker of the frame: 0xC2 progressive, 0xC0 baseline, 0xCA progressive with arithmetic coding.
        filled: whether a scan has the few bytes that it needs; else it is empty, and decoders pass over it.
    """
    blocks = -(-width // 8) * -(-height // 8)
    runs = b"".join(_bits("0" + "1" * 14) for _ in range(-(-blocks // _EOB_RUN))) if filled else b""
    spectrum = b"\x00\x3f" if frame == 0xC0 else b"\x01\x3f"
    one = _segment(0xDA, b"\x01\x01\x00" + spectrum + (b"\x10" if refined else b"\x00")) + runs
    # A table of two codes: one for the end of a run of blocks, one that is not used.
    tables = _segment(0xC4, bytes([0x00, 1, *[0] * 15, 0])) + _segment(0xC4, bytes([0x10, 1, 1, *[0] * 14, 0xE0, 1]))
    # Of a baseline JPEG only one scan is decoded, unless its colours are apart.
    components = b"\x01\x11\x00\x02\x11\x00\x03\x11\x00" if frame == 0xC0 else b"\x01\x11\x00"
    header = _segment(frame, struct.pack(">BHHB", 8, height, width, len(components) // 3) + components)
    first = _segment(0xDA, b"\x01\x01\x00\x00" + (b"\x3f" if frame == 0xC0 else b"\x00") + b"\x00") + b"\x00"
    quantization = _segment(0xDB, bytes([0] + [1] * 64))
    return b"\xff\xd8" + quantization + header + tables + first + one * scans + END_OF_JPEG


def png(
    width: int,
    height: int,
    *,
    depth: int = 8,
    colour: int = 2,
    interlaced: bool = False,
    piece: int = 1 << 20,
    before: bytes = b"",
) -> bytes:
    """Makes a PNG whose rows have the filter that takes longest, Paeth's.

    Args:
        colour: 0 grey, 2 RGB, 4 grey with alpha, 6 RGBA.
        piece: bytes of each chunk of pixels.
        before: chunks before the pixels.
    """
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    deflate = zlib.compressobj(1)
    data = b""
    for left, top, across, down in passes if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        length = columns * samples * depth // 8
        row = b"\x04" + (bytes(i * 37 & 255 for i in range(251)) * (length // 251 + 1))[:length]
        for begun in range(0, rows, 64):
            data += deflate.compress(row * min(64, rows - begun))
    data += deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    pixels = [png_chunk(b"IDAT", data[at : at + piece]) for at in range(0, len(data), piece)]
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", png_chunk(b"IHDR", header), before, *pixels, png_chunk(b"IEND", b"")],
    )


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(width: int, height: int, tags: Mapping[int, tuple[int, bytes | Sequence[int]]], data: bytes = b"") -> bytes:
    """Makes a TIFF whose pixels, `data`, begin at byte 8.

    Args:
        tags: for each a type (1 byte, 3 short, 4 long, 5 rational, 7 undefined) and its values; or their bytes.
    """
    sizes, letters = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}, {1: "B", 3: "H", 4: "I", 7: "B"}
    usual = {256: (4, [width]), 257: (4, [height]), 258: (3, [8]), 262: (3, [1]), 273: (4, [8]), 277: (3, [1])}
    at = 8 + len(data) + len(data) % 2
    entries, long = b"", b""
    every = sorted({**usual, **tags}.items())
    behind = at + 2 + 12 * len(every) + 4
    for tag, (kind, given) in every:
        values = given if isinstance(given, bytes) else struct.pack(f"<{len(given)}{letters[kind]}", *given)
        field = values.ljust(4, b"\0")
        if len(values) > 4:
            field = struct.pack("<I", behind + len(long))
            long += values + bytes(len(values) % 2)
        entries += struct.pack("<HHI", tag, kind, len(values) // sizes[kind]) + field
    head = b"II*\0" + struct.pack("<I", at) + data.ljust(at - 8, b"\0")
    return head + struct.pack("<H", len(every)) + entries + bytes(4) + long


def bmp_of_runs(width: int, height: int, row: bytes) -> bytes:
    """Makes a BMP of run-length codes: `row` for each row, then the code for its end."""
    body = (row + b"\0\0") * height + b"\0\1"
    palette = b"".join(bytes([i, i // 2, 0, 0]) for i in range(256))
    at = 54 + len(palette)
    head = b"BM" + struct.pack("<IHHI", at + len(body), 0, 0, at)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 0, 0) + palette + body


def gif(width: int, height: int, *, before: bytes = b"") -> bytes:
    """Makes a GIF that clears the table before each of its pixels."""
    codes = (0b000_100_000_100_000_100_000_100).to_bytes(3, "little") * -(-width * height // 4) + b"\x05"
    blocks = b"".join(bytes([len(codes[at : at + 255])]) + codes[at : at + 255] for at in range(0, len(codes), 255))
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + before + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02" + blocks + b"\0;"


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _bits(bits: str) -> bytes:
    """Returns bits as bytes, filled up with ones, and stuffed as JPEG wants it."""
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
