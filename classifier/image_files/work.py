"""How much work the decoding of a file may be, and how it is counted before anything is decoded.

Work is counted in nanoseconds of one core that decodes a pixel of a demanding baseline JPEG in `BASELINE_NS`. (Such a
JPEG has all its colours in full resolution, quality 95 and grain.) Only the ratios matter. They were measured with
Pillow 12 and 13 on files that were made to be slow. `benchmarks/serving/decoding_limits.py` measures them again.
"""

from classifier.visible import ImageError

BASELINE_NS = 16.0  # a pixel: entropy decoding, transform, colour, and the resizing afterwards
_ALLOWED = 2  # times what a baseline JPEG of the most pixels takes
_NS_ROW = 60.0  # for what is done once for each row
_QUICK_NS = 4_000_000.0
_LEAST_PIXELS = 1_000_000  # below that, what is the same for every file would count for too much


class TooLarge(ImageError):
    """An image has too many pixels, or its file would take too long to decode. Nothing was decoded."""


def check_size(width: int, height: int, max_pixels: float) -> None:
    """Raises: TooLarge if an image of this size has more pixels than it may have."""
    if width * height > max_pixels:
        raise TooLarge(f"the image has {width}x{height} pixels; at most {max_pixels / 1e6:g} million are accepted")


class Work:
    """Adds up the work for one file.

    Args:
        kind: the name of the file's format, for the message.
        max_pixels: the most pixels that an image may have; infinity where there is no limit.
        quick: no more than a few milliseconds are allowed.
    """

    def __init__(self, kind: str, max_pixels: float, *, quick: bool = False) -> None:
        self._kind = kind
        self._max_pixels = max_pixels
        self._left = _QUICK_NS if quick else _ALLOWED * BASELINE_NS * max(max_pixels, _LEAST_PIXELS)

    def add_pixels(self, width: int, height: int, ns: float) -> None:
        """Counts so many nanoseconds for each pixel of an image.

        Raises: TooLarge as `add` does, or because there are too many pixels.
        """
        check_size(width, height, self._max_pixels)
        self.add(width * height * ns + height * _NS_ROW)

    def add(self, ns: float) -> None:
        """Counts so many nanoseconds.

        Raises: TooLarge as soon as all that was counted is more than is allowed.
        """
        self._left -= ns
        if self._left < 0:
            raise TooLarge(
                f"this {self._kind} would take more than {_ALLOWED} times as long to decode as a baseline JPEG of "
                f"{max(self._max_pixels, _LEAST_PIXELS) / 1e6:g} million pixels; make it smaller, or save it as a "
                "baseline JPEG"
            )
