"""What becomes of an image file, opened as both sides open it."""

from PIL import Image

from classifier.image_files.opening import open_file
from classifier.preprocess import Pixels
from classifier.visible import orientation
from tests.support.images import as_it_is

MANY = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def seen(data: bytes, mode: str = "RGB", *, max_pixels: int = MANY) -> Pixels:
    """The pixels of a file, in its own size."""
    image, probe = (open_file(data, formats=FORMATS, max_pixels=max_pixels) for _ in range(2))
    probe.load()  # what stands behind the pixels counts as well
    turned = orientation(probe) > 4 and image.format != "TIFF"
    width, height = image.size[::-1] if turned else image.size
    return as_it_is(mode, height, width).to_pixels(image)


def plainly(image: Image.Image, mode: str = "RGB") -> Pixels:
    """The pixels of an image that lies in no file, in its own size."""
    return as_it_is(mode, image.height, image.width).to_pixels(image)
