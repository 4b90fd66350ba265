"""BMP: counts the work. What is run-length encoded takes Pillow long, for it decodes that in Python."""

from classifier.image_files.work import Work

SIGNATURE = b"BM"
_RUN_LENGTHS = (1, 2)  # of 8 and of 4 bits
_NS_PIXEL = 10.0
_NS_RUN_LENGTH_PIXEL, _NS_RUN_LENGTH_BYTE = 240.0, 240.0


def necessary(data: bytes, work: Work) -> bytes:
    """Returns the file as it is.

    Raises: TooLarge.
    """
    header_size = int.from_bytes(data[14:18], "little")
    if header_size == 12:  # OS/2 1.x
        width, height = int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")
        compression = 0
    else:
        width, height = int.from_bytes(data[18:22], "little"), abs(int.from_bytes(data[22:26], "little", signed=True))
        compression = int.from_bytes(data[30:34], "little")
    work.add_pixels(width, height, _NS_PIXEL)
    if compression in _RUN_LENGTHS:
        work.add(width * height * _NS_RUN_LENGTH_PIXEL + len(data) * _NS_RUN_LENGTH_BYTE)
    return data
