"""Resizes only a window of an image. This is faster than resizing all of it, and at most 1 level apart from that.

Pillow resamples one axis after the other, and rounds to 8 bits each time. It gets the edges of a window as 32-bit
floats. So its weights are a little off, and a value halfway between two levels may be rounded the other way. That must
not happen in both passes, because the two differences could add up. This is why the window narrows one axis only.
This file imports no torch.
"""

import PIL
from PIL import Image

_PILLOW = int(PIL.__version__.partition(".")[0])


def box_resize(
    image: Image.Image,
    *,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    resample: Image.Resampling,
) -> Image.Image:
    """Returns `image.resize(size, resample).crop(window)` for bilinear and bicubic, at most 1 level apart.

    Args:
        size: (width, height) of the whole image after resizing.
        window: (left, top, right, bottom) in pixels of the resized image. It lies inside that image.
    """
    passes = _passes(image.size, size)
    wide, high = window[2] - window[0], window[3] - window[1]
    narrowed = 0 if size[0] - wide >= size[1] - high else 1
    if resample == Image.Resampling.BICUBIC:
        # Its second pass has negative weights, and could enlarge a difference that the first one left.
        narrowed = passes[1]
    scale = image.size[narrowed] / size[narrowed]
    start, stop = window[narrowed] * scale, window[narrowed + 2] * scale
    if narrowed == 0:
        size, rest = (wide, size[1]), (0, window[1], wide, window[3])
    else:
        size, rest = (size[0], high), (window[0], 0, window[2], high)

    def box(image: Image.Image) -> tuple[float, float, float, float]:
        return (start, 0, stop, image.height) if narrowed == 0 else (0, start, image.width, stop)

    if _passes(image.size, size) == passes:
        return image.resize(size, resample, box(image)).crop(rest)
    # So small a window would make Pillow change the order. One pass at a time cannot.
    half = (size[0], image.height) if passes[0] == 0 else (image.width, size[1])
    if narrowed == passes[0]:
        return image.resize(half, resample, box(image)).resize(size, resample).crop(rest)
    image = image.resize(half, resample)
    return image.resize(size, resample, box(image)).crop(rest)


def _passes(before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    """Returns the axes (0 across, 1 down) in the order in which Pillow resamples them."""
    less_width, less_height = before[0] - after[0], before[1] - after[1]
    # Pillow 13 begins with the height where that saves work; before, it never did.
    if _PILLOW >= 13 and less_height > 0 and less_height > 2 * less_width:
        return 1, 0
    return 0, 1
