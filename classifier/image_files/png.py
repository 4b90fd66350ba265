"""PNG: keeps the chunks that say something about the pixels, and counts the work that these are.

An ICC profile, a text or a time says nothing about the pixels. So such a chunk is neither inflated nor checked,
whatever its size is. Frames after the first are left out, too. The source is PNG (Third Edition), W3C.
"""

import re
import zlib
from collections.abc import Iterator

from classifier.image_files.work import Work

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS, _EXIF, _END = b"IDAT", b"eXIf", b"IEND"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
# Ancillary chunks that change what is seen. All critical ones, whose names begin with a capital, are kept as well.
_KEPT = {b"tRNS", _EXIF, *_TEXTS}
# The texts in which Pillow looks for an orientation if there is no eXIf.
_KEYS = {b"Raw profile type exif", b"XML:com.adobe.xmp", b"exif"}
_MOST_TEXTS = 4
_MOST_INFLATED = 1 << 20  # bytes; Pillow refuses a file with a longer compressed text
_MOST_SEARCHED = 1 << 22  # bytes of a longer packet of XMP in which its orientation is looked for
_XMP = b"XML:com.adobe.xmp"
_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)[0-9]')
_NAME = re.compile(rb"\w{4}", re.ASCII)

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type: samples of a pixel
_WITH_ALPHA = (4, 6)
_NS_BYTE = 11.2  # inflating, and undoing the filter of a row; Paeth's is the slowest
_INTERLACED = 1.2  # times as long
_NS_PIXEL = 6.0
_NS_ALPHA = 10.0  # a pixel that is laid on a background
_NS_CHUNK = 10_000.0  # Pillow reads them one by one, and so does this


def necessary(data: bytes, work: Work) -> bytes:
    """Returns a PNG file with the same pixels and orientation, and nothing else.

    A file that cannot be understood is returned as far as it can be. Pillow says what is wrong with it.

    Raises: TooLarge.
    """
    kept: list[bytes | memoryview] = []
    start, ends, texts = 0, len(data), 0  # of what is kept next; of what was looked at
    pixels_seen = pixels_over = False
    view = memoryview(data)
    for at, kind, end in _chunks(data, work):
        replacement = b""
        if kind == _PIXELS:
            keep, pixels_seen = not pixels_over, True
        else:
            pixels_over = pixels_seen
            keep = kind[0] & 0x20 == 0 or kind in _KEPT
        if kind == b"IHDR":
            _count(data[at + 8 : end - 4], work)
        elif kind == _EXIF:
            keep = _is_sound(data, at, end)
        elif kind in _TEXTS and keep:
            keep = texts < _MOST_TEXTS and data[at + 8 : at + 88].partition(b"\0")[0] in _KEYS
            if keep:
                texts += 1
                replacement = _text(data, at, end, kind)
                keep = replacement == data[at:end]
        if not keep:
            kept += [view[start:at], replacement]
            start = end
        if kind == _END:
            ends = end
            break
    if start == 0 and ends == len(data):
        return data
    return b"".join([*kept, view[start:ends]])


def _chunks(data: bytes, work: Work) -> Iterator[tuple[int, bytes, int]]:
    """Yields where each chunk begins, its name, and where it ends: length, name, content, checksum."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        if _NAME.fullmatch(kind) is None:
            return
        work.add(_NS_CHUNK)
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield at, kind, min(end, len(data))
        at = end


def _count(header: bytes, work: Work) -> None:
    """Counts the work for the pixels that a header announces."""
    if len(header) < 13:
        return  # Pillow refuses it
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    depth, colour = header[8:10]
    bits = depth * _SAMPLES.get(colour, 0)
    per_pixel = _NS_BYTE * (_INTERLACED if header[12] else 1) * bits / 8 + _NS_PIXEL
    work.add_pixels(width, height, per_pixel + (_NS_ALPHA if colour in _WITH_ALPHA else 0))


def _is_sound(data: bytes, at: int, end: int) -> bool:
    return data[end - 4 : end] == zlib.crc32(data[at + 4 : end - 4]).to_bytes(4, "big")


def _text(data: bytes, at: int, end: int, kind: bytes) -> bytes:
    """Returns a chunk that says the same about the orientation as this text, and can be read; nothing if it cannot."""
    if not _is_sound(data, at, end):
        return b""
    chunk = data[at:end]
    key, _, rest = chunk[8:-4].partition(b"\0")
    if kind == b"zTXt":
        compressed = rest[1:] if rest[:1] == b"\0" else None
    elif kind == b"iTXt" and rest[:1] not in (b"", b"\0"):
        compressed = rest[2:].split(b"\0", 2)[-1] if rest[1:2] == b"\0" else None
    else:
        return chunk
    if compressed is None:
        return b""
    try:
        inflater = zlib.decompressobj()
        inflated = inflater.decompress(compressed, _MOST_INFLATED)
        if not inflater.unconsumed_tail:
            return chunk
        return _found_in(inflater, inflated) if key == _XMP else b""
    except zlib.error:
        return b""


def _found_in(inflater: "zlib._Decompress", inflated: bytes) -> bytes:
    """Returns a short packet of XMP with the orientation that a long one has; nothing if it has none."""
    searched = 0
    while searched < _MOST_SEARCHED:
        found = _ORIENTATION.search(inflated)
        if found is not None:
            body = b"iTXt" + _XMP + bytes(5) + found[0]
            return (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        if not inflater.unconsumed_tail:
            return b""
        searched += len(inflated)
        # What was found half is kept for the next search.
        inflated = inflated[-32:] + inflater.decompress(inflater.unconsumed_tail, _MOST_INFLATED)
    return b""
