"""TIFF: keeps the tags that say something about the pixels of the first page, and counts the work that these are.

The sources are TIFF 6.0 and the description of BigTIFF, both by Adobe and AWare Systems.
"""

import struct
from dataclasses import dataclass

from classifier.image_files.work import Work
from classifier.visible import ImageError

# TIFF, BigTIFF, and what Pillow takes for a TIFF though its number has the other order.
SIGNATURES_II = (b"II*\0", b"II+\0", b"II\0*")
SIGNATURES_MM = (b"MM\0*", b"MM\0+", b"MM*\0")
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES, _XMP = 322, 323, 324, 325, 700
_OFFSETS = {_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES}
_FEW = {_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_LENGTH}
# Fill order, orientation, options of fax, predictor, inks, extra samples, sample format, old JPEG, YCbCr.
_FEW |= {266, 274, 292, 293, 317, 332, 338, 339, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
# Colour map, tables of JPEG, XMP: these may be long.
_LONG = {320, 347, _XMP}
_MOST_FEW, _MOST_LONG = 16, 1 << 20  # values
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}

_OLD_JPEG = 6
_JPEG = {_OLD_JPEG, 7}
_NS_BYTE = {1: 2.0, 32773: 3.0, 5: 6.0, 8: 6.0, 32946: 6.0, 50000: 4.0, 34925: 10.0, 50001: 30.0}
_NS_FAX = 100.0  # a byte, which is 8 pixels
_NS_LZMA = 45.0  # a byte of the file
_NS_PIXEL, _NS_LAB, _LAB = 8.0, 25.0, 8
_NS_RAW_PIECE, _NS_PIECE = 9000.0, 3000.0  # a strip or tile, as Pillow or libtiff reads it
_NS_JPEG, _NS_SCAN = 5.0, 1.0  # a sample: once, and in each scan
_MOST_SCANS = 100  # of one JPEG, by libtiff
_SCAN = b"\xff\xda"


@dataclass(frozen=True, slots=True)
class _Form:
    """Says how numbers are written: order is "<" or ">", and BigTIFF has longer ones."""

    order: str
    big: bool

    def unpack(self, letters: str, data: bytes, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + letters, data, at)

    @property
    def entry(self) -> struct.Struct:
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))


@dataclass(frozen=True, slots=True)
class _Entry:
    """Holds one tag: its type, the number of its values, its field in the directory, and the bytes of its values."""

    type: int
    count: int
    field: bytes
    values: memoryview


def necessary(data: bytes, work: Work) -> bytes:
    """Returns a TIFF file of one page, with the same pixels and orientation, and no other tags.

    Raises:
        TooLarge: it has too many samples or pieces for its size.
        ImageError: the tags cannot be read.
    """
    form = _Form("<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+"))
    try:
        entries = _entries(data, form)
        _count(data, {tag: _numbers(entry, form) for tag, entry in entries.items() if tag in _FEW}, entries, form, work)
    except struct.error as error:
        raise ImageError("the image is damaged: its tags cannot be read") from error
    counted, letter = ("Q", "Q") if form.big else ("H", "I")
    directory = struct.pack(form.order + counted, len(entries))
    pack = form.entry.pack
    directory += b"".join(pack(tag, e.type, e.count, e.field) for tag, e in sorted(entries.items()))
    directory += struct.pack(form.order + letter, 0)  # no other page
    # In the place of the old one, which is no shorter: what lacks pixels at its end must not get any there.
    view, at = memoryview(data), _directory_at(data, form)
    return b"".join([view[:at], directory[: len(data) - at], view[at + len(directory) :]])


def _directory_at(data: bytes, form: _Form) -> int:
    return form.unpack("Q", data, 8)[0] if form.big else form.unpack("I", data, 4)[0]


def _entries(data: bytes, form: _Form) -> dict[int, _Entry]:
    """Returns the tags of the first page that decoders need. Of a tag that is there twice, the first counts."""
    at = _directory_at(data, form)
    count = form.unpack("Q" if form.big else "H", data, at)[0]
    at += 8 if form.big else 2
    view, entries = memoryview(data), dict[int, _Entry]()
    entry = form.entry
    if count > 0xFFFF or count * entry.size > len(data) - at:
        raise ImageError("the image is damaged: its tags are cut short")
    for _ in range(count):
        tag, kind, number, field = entry.unpack_from(data, at)
        at += entry.size
        size = number * _SIZES.get(kind, 0)
        most = len(data) if tag in _OFFSETS else _MOST_FEW if tag in _FEW else _MOST_LONG if tag in _LONG else 0
        if tag in entries or size == 0 or size > len(data) or number > most:
            if tag in _FEW and number > most and 0 < size <= len(data):
                raise ImageError(f"the image is damaged: its tag {tag} has {number} values")
            continue
        if size <= len(field):
            values = memoryview(field)[:size]
        else:
            place = form.unpack("Q" if form.big else "I", field, 0)[0]
            values = view[place : place + size]
        if len(values) == size:
            entries[tag] = _Entry(kind, number, field, values)
    return entries


def _numbers(entry: _Entry, form: _Form) -> tuple[int, ...]:
    letter = _INTEGERS.get(entry.type)
    return struct.unpack(f"{form.order}{entry.count}{letter}", entry.values) if letter else ()


def _count(data: bytes, tags: dict[int, tuple[int, ...]], entries: dict[int, _Entry], form: _Form, work: Work) -> None:
    def first(tag: int, otherwise: int) -> int:
        return (*tags.get(tag, ()), otherwise)[0]

    width, height, compression = first(_WIDTH, 0), first(_LENGTH, 0), first(_COMPRESSION, 1)
    samples = first(_SAMPLES, 3 if compression == _OLD_JPEG else 1)
    bits = max(tags.get(_BITS, (1,)), default=1)
    area = width * height
    if _TILES in entries:
        tile = max(1, first(_TILE_WIDTH, 1)), max(1, first(_TILE_LENGTH, 1))
        area = -(-width // tile[0]) * -(-height // tile[1]) * tile[0] * tile[1]
    decoded = area * samples * bits / 8
    pieces = max((entries[tag].count for tag in (_STRIPS, _TILES) if tag in entries), default=0)
    work.add(pieces * (_NS_RAW_PIECE if compression == 1 else _NS_PIECE))
    work.add_pixels(width, height, _NS_PIXEL + (_NS_LAB if first(_PHOTOMETRIC, 0) == _LAB else 0))
    if compression in _JPEG:
        work.add(area * samples * (_NS_JPEG + _NS_SCAN * _scans(data, entries, form)))
    else:
        work.add(decoded * _NS_BYTE.get(compression, _NS_FAX))
    if compression == 34925:
        work.add(len(data) * _NS_LZMA)


def _scans(data: bytes, entries: dict[int, _Entry], form: _Form) -> int:
    """Returns the most scans that a strip or tile has, each of which is a JPEG of its own."""
    offsets, sizes = (
        next((_numbers(entries[tag], form) for tag in tags if tag in entries), ())
        for tags in ((_STRIPS, _TILES), (_STRIP_BYTES, _TILE_BYTES))
    )
    pieces = set(zip(offsets, sizes, strict=False))
    if len(sizes) < len(offsets) or not pieces or sum(size for _, size in pieces) > 2 * len(data):
        return min(_MOST_SCANS, data.count(_SCAN))  # the pieces say nothing, or lie on each other
    return min(_MOST_SCANS, max(data.count(_SCAN, at, at + size) for at, size in pieces))
