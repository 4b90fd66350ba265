"""GIF: counts the work for the first frame, and for what stands before it. The source is GIF89a, W3C."""

from classifier.image_files.work import Work

SIGNATURES = (b"GIF87a", b"GIF89a")
_EXTENSION, _IMAGE = 0x21, 0x2C
_NS_PIXEL, _NS_BYTE = 14.0, 9.0
_NS_BLOCK = 2000.0  # Pillow reads what stands before the frame block by block, and so does this


def necessary(data: bytes, work: Work) -> bytes:
    """Returns the file as it is.

    Raises: TooLarge.
    """
    width, height = _size(data, 6)
    at = 13 + _palette(data, 10)
    while at < len(data) and data[at] != _IMAGE:
        work.add(_NS_BLOCK)
        if data[at] == _EXTENSION:
            at = _behind_blocks(data, at + 2, work)
        else:
            at += 1
    # Pillow makes the picture larger if the frame does not fit into it.
    frame_width, frame_height = _size(data, at + 5)
    left, top = _size(data, at + 1)
    width, height = max(width, left + frame_width), max(height, top + frame_height)
    # Other frames may follow, which are not decoded: no encoder needs four bytes for a pixel.
    work.add_pixels(width, height, _NS_PIXEL)
    work.add(min(max(0, len(data) - at), 4 * width * height) * _NS_BYTE)
    return data


def _size(data: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 2], "little"), int.from_bytes(data[at + 2 : at + 4], "little")


def _palette(data: bytes, at: int) -> int:
    flags = data[at] if at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_blocks(data: bytes, at: int, work: Work) -> int:
    while at < len(data) and data[at]:
        work.add(_NS_BLOCK)
        at += 1 + data[at]
    return at + 1
