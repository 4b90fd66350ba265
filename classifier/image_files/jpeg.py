"""JPEG: keeps the segments that say something about the pixels, and counts the work, scan by scan.

Each scan of a progressive JPEG goes over all blocks of its components. A scan of a few bytes may do so, and a file may
have any number of scans. The source of the format is ISO/IEC 10918-1, B.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from classifier.image_files.work import BASELINE_NS, Work
from classifier.visible import ImageError

SIGNATURE = b"\xff\xd8\xff"
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_ARITHMETIC = {*range(0xC9, 0xD0)} - {0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_START_OF_SCAN, _END, _QUANTIZATION, _APP1 = 0xDA, 0xD9, 0xDB, 0xE1
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers that nothing follows
# Of these segments only some say anything about the pixels: which colours there are, and which way up they stand.
_APPLICATION = {*range(0xE0, 0xF0), 0xFE}
_JFIF, _ADOBE, _EXIF, _XMP = b"JFIF\0", b"Adobe", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_LEAST = {0xE0: (_JFIF, 14), 0xEE: (_ADOBE, 7)}  # bytes that decoders need of them
_MOST_APP1 = 4
_BASELINE, _TABLES = 0xC0, (0xDB, 0xC4)
_JFIF_BEGINS, _JFIF_SEGMENT = b"\xff\xe0\0\x10JFIF\0", 18  # bytes
_MOST_PLAIN_HEAD, _MOST_PLAIN_PIXELS = 1024, 1_000_000
# Neither a stuffed byte nor a filler, however many of these there are.
_ANY_MARKER = re.compile(rb"\xff[^\x00\xff]")
# A marker among the pixels: neither a byte of theirs (0), nor a restart (D0 to D7), nor a filler.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")

_NS_SEGMENT = 10_000.0  # Pillow reads them one by one, and so does this
_NS_QUANTIZATION = 250.0  # a byte of a table
_NS_SCAN = 500.0
_NS_BYTE = 20.0  # entropy decoding
_NS_COMPONENT = 7.0  # a sample: transform and colour
_NS_PIXEL = 3.0
# A block in a scan, for what it costs beside its bytes.
_NS_DC, _NS_AC, _NS_REFINED, _NS_SEQUENTIAL, _NS_LOSSLESS, _NS_ARITHMETIC = 20.0, 17.0, 58.0, 30.0, 512.0, 1000.0


class _Frame(NamedTuple):
    """Holds what a frame header says. `components` has three bytes for each: its name, its sampling, its table."""

    marker: int
    width: int
    height: int
    components: bytes

    def blocks(self) -> dict[int, int]:
        """Returns the number of 8x8 blocks of each component."""
        each = self.components
        sampling = {each[i]: (each[i + 1] >> 4, each[i + 1] & 15) for i in range(0, len(each), 3)}
        across = max(1, *(h for h, _ in sampling.values()), 1)
        down = max(1, *(v for _, v in sampling.values()), 1)
        return {
            name: -(-self.width * h // (8 * across)) * -(-self.height * v // (8 * down))
            for name, (h, v) in sampling.items()
        }


def necessary(data: bytes, work: Work) -> bytes:
    """Returns a JPEG file with the same pixels and orientation, and little else.

    Raises:
        TooLarge: it has too many scans for its size, or too many segments.
        ImageError: it ends before its pixels begin, or has two sizes.
    """
    if _is_plain(data):
        return data
    kept: list[bytes | memoryview] = [data[:2]]
    frame: _Frame | None = None
    app1s = {_EXIF: 0, _XMP: 0}
    view = memoryview(data)
    for marker, at, end in _segments(data, work):
        content = data[at + 4 : end]
        if marker == _START_OF_SCAN:
            if frame is None:
                break
            _count(data, at, frame, work)
            return data if sum(map(len, kept)) == at else b"".join([*kept, view[at:]])
        if marker in _FRAMES:
            if frame is not None:
                raise ImageError("the image is damaged: it has two sizes")
            frame = _frame(marker, content)
        elif marker == _QUANTIZATION:
            work.add(len(content) * _NS_QUANTIZATION)
        elif marker in _APPLICATION and not _says_something(marker, content, app1s):
            continue
        kept.append(view[at:end])
    raise ImageError("the image is damaged: it ends before its pixels begin")


def _is_plain(data: bytes) -> bool:
    """Says whether a JPEG is small, baseline, and holds no more than a JFIF header, tables and one scan of all colours.

    Nearly all small files are so. A quarter of the time tells, and there is nothing to leave out and little to decode.
    """
    at = 2 + _JFIF_SEGMENT * data.startswith(_JFIF_BEGINS, 2)
    components = 0
    if len(data) < _MOST_PLAIN_HEAD:
        data = data.ljust(_MOST_PLAIN_HEAD, b"\0")
    while at < _MOST_PLAIN_HEAD - 10 and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if marker == _START_OF_SCAN:
            return 0 < components == data[at + 4]
        if marker == _BASELINE and not components:
            width, height = data[at + 7] << 8 | data[at + 8], data[at + 5] << 8 | data[at + 6]
            components = data[at + 9]
            if not 0 < width * height <= _MOST_PLAIN_PIXELS or length != 8 + 3 * components:
                return False
        elif marker not in _TABLES:
            return False
        at += 2 + length
    return False


def _segments(data: bytes, work: Work) -> Iterator[tuple[int, int, int]]:
    """Yields the marker of each segment before the end of the first scan's header, its place, and where it ends."""
    at = 2
    while True:
        found = _ANY_MARKER.search(data, at)
        if found is None or found.start() + 4 > len(data):
            return
        at = found.start()
        marker = data[at + 1]
        if marker == _END:
            return
        work.add(_NS_SEGMENT)
        end = at + 2 if marker in _ALONE else at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data):
            return
        yield marker, at, end
        at = end


def _says_something(marker: int, content: bytes, app1s: dict[bytes, int]) -> bool:
    """Says whether a decoder needs an application's segment. Of those with EXIF or XMP it needs the first few."""
    if marker == _APP1:
        for name in app1s:
            if content.startswith(name):
                app1s[name] += 1
                return app1s[name] <= _MOST_APP1
        return False
    name, least = _LEAST.get(marker, (b"", 0))
    return least > 0 and content.startswith(name) and len(content) >= least


def _frame(marker: int, content: bytes) -> _Frame:
    count = content[5] if len(content) > 5 else 0
    if count == 0 or len(content) != 6 + 3 * count:
        raise ImageError("the image is damaged: its frame header cannot be read")
    height, width = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    return _Frame(marker, width, height, content[6:])


def _count(data: bytes, at: int, frame: _Frame, work: Work) -> None:
    """Counts the work for the pixels, which begin with the scan's header at `at`."""
    whole = frame.marker not in _PROGRESSIVE and 3 * data[at + 4] == len(frame.components)
    if whole and frame.marker not in _ARITHMETIC | _LOSSLESS:  # it is the measure of all others
        work.add_pixels(frame.width, frame.height, BASELINE_NS)
        return
    blocks = frame.blocks()
    work.add_pixels(frame.width, frame.height, _NS_PIXEL)
    work.add(64 * sum(blocks.values()) * _NS_COMPONENT)
    if whole:  # a decoder reads no scan but this one
        work.add(_scan(data, at, frame.marker, blocks))
        return
    while at >= 0:
        work.add(_scan(data, at, frame.marker, blocks))
        at, begun = _next_scan(data, at, work), at
        work.add(((at if at >= 0 else len(data)) - begun) * _NS_BYTE)


def _scan(data: bytes, at: int, marker: int, blocks: dict[int, int]) -> float:
    """Returns the nanoseconds of one scan, apart from its bytes."""
    count = data[at + 4]
    names = data[at + 5 : at + 5 + 2 * count : 2]
    first, _, precision = data[at + 5 + 2 * count : at + 8 + 2 * count].ljust(3, b"\0")
    if marker in _ARITHMETIC:
        ns = _NS_ARITHMETIC
    elif marker in _LOSSLESS:
        ns = _NS_LOSSLESS
    elif marker not in _PROGRESSIVE:
        ns = _NS_SEQUENTIAL
    elif first == 0:
        ns = _NS_DC
    else:
        ns = _NS_REFINED if precision >> 4 else _NS_AC
    return _NS_SCAN + ns * sum(blocks.get(name, 0) for name in names)


def _next_scan(data: bytes, at: int, work: Work) -> int:
    """Returns where the header of the next scan is; -1 if there is none."""
    at += 2
    while True:
        found = _MARKER.search(data, at)
        if found is None or data[found.start() + 1] == _END:
            return -1
        at = found.start()
        if data[at + 1] == _START_OF_SCAN:
            return at if at + 5 <= len(data) else -1
        work.add(_NS_SEGMENT)
        at += 2
        if data[at - 1] not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
