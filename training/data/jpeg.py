"""Decodes no more of a JPEG than is needed: an eighth, a quarter or half of each edge, or only its upper rows."""

from io import BytesIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from classifier.visible import orientation

_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive: those that Huffman codes
_ROWS_BELOW = 2  # colours have half the rows in most files, and are interpolated between neighbours
_WORTH_IT = 16  # rows; a block or two of them are decoded together anyway


def upright_size(image: JpegImageFile) -> tuple[int, int]:
    """Returns (width, height) of what is to be seen of an image that is not decoded yet."""
    return (image.height, image.width) if orientation(image) > 4 else image.size


def smaller(image: JpegImageFile, most: int) -> JpegImageFile:
    """Returns `image`, which must not be decoded yet, set to give up to `most` times fewer pixels along each edge."""
    fewer = next((factor for factor in (8, 4, 2) if factor <= most), 1)
    if fewer > 1:
        image.draft(None, (max(1, image.width // fewer), max(1, image.height // fewer)))
    return image


def down_to(bottom: int, image: JpegImageFile, data: bytes) -> Image.Image:
    """Returns an image whose rows above `bottom` are those of `image`; the other rows may be missing.

    Args:
        image: not decoded yet.
        data: the file that `image` was opened from.
    """
    rows, at = bottom + _ROWS_BELOW, _height_at(data)
    if at is None or data[at : at + 2] != image.height.to_bytes(2, "big"):
        return image  # not as it was understood
    if rows + _WORTH_IT > image.height or orientation(image) != 1:
        return image
    # A decoder stops where the file says that the image ends.
    return Image.open(BytesIO(data[:at] + rows.to_bytes(2, "big") + data[at + 2 :]), formats=("JPEG",))


def _height_at(data: bytes) -> int | None:
    """Returns where the frame header holds the height: ISO/IEC 10918-1, B.2.2. None if the file is not understood."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            return at + 5
        if marker == 0xFF:  # a filler
            at += 1
            continue
        if marker == 0xDA or 0xD0 <= marker <= 0xD9:  # the pixels, or a marker of which nothing follows
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
