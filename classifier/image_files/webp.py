"""WebP: counts the work for the first frame. The source is the WebP Container Specification, Google.

An ICC profile needs no care here: it is copied as it is. EXIF and XMP hold the orientation.
"""

from classifier.image_files.work import Work

SIGNATURE = b"RIFF"
_NAME = b"WEBP"  # behind the size of the file

_CHUNKS, _FRAME_HEADER = 12, 16  # where the first chunk is, and what stands before the chunks of a frame
_NS_CHUNK = 5000.0
_NS_PIXEL, _NS_ALPHA = 22.0, 12.0
_NS_BYTE = {b"VP8 ": 85.0, b"VP8L": 13.0, b"ALPH": 9.0}


def necessary(data: bytes, work: Work) -> bytes:
    """Returns the file as it is.

    Raises: TooLarge.
    """
    if data[8:12] != _NAME:
        return data
    at, size_of_image, has_alpha = _CHUNKS, (0, 0), False
    while at + 8 <= len(data):
        work.add(_NS_CHUNK)
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        content = data[at + 8 : at + 18]
        if kind == b"VP8X":
            has_alpha = bool(content[0] & 0x10) if content else False
            size_of_image = 1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:10], "little")
        elif kind == b"VP8 ":
            size_of_image = _size_lossy(content) if size_of_image == (0, 0) else size_of_image
        elif kind == b"VP8L":
            size_of_image = _size_lossless(content) if size_of_image == (0, 0) else size_of_image
            has_alpha = has_alpha or bool(len(content) > 4 and content[4] & 0x10)
        work.add(min(size, len(data)) * _NS_BYTE.get(kind, 0))
        if kind in (b"VP8 ", b"VP8L"):
            break
        at += 8 + (_FRAME_HEADER if kind == b"ANMF" else size + size % 2)
    work.add_pixels(*size_of_image, _NS_PIXEL + (_NS_ALPHA if has_alpha else 0))
    return data


def _size_lossy(content: bytes) -> tuple[int, int]:
    width, height = int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:10], "little")
    return width & 0x3FFF, height & 0x3FFF


def _size_lossless(content: bytes) -> tuple[int, int]:
    bits = int.from_bytes(content[1:5], "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
