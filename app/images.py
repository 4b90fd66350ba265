"""ALL the decoding: uploaded bytes become pixels, small images at once, large ones in a pool of threads."""

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from io import BytesIO

from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from app.admission import Budget
from app.engine import Expired
from classifier.preprocess import ImageError, Pixels, Preprocess

# Importing a plugin is what makes Pillow know its format; nothing else of them is used.
_PLUGINS = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)

# Up to here a hop to another thread costs more than the decoding.
_INLINE_BYTES = 32 * 1024
_INLINE_PIXELS = 128 * 128

_ACCEPTED = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)
_NOT_ACCEPTED = (
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"II+\x00", "BigTIFF"),
    (b"MM\x00+", "BigTIFF"),
)


class ImageProblem(Exception):
    """An upload that does not become pixels; `code` is one of app.api.errors."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def decode(data: bytes, preprocess: Preprocess) -> Pixels:
    """The pixels of an image of any size. Raises: ImageProblem."""
    return _to_pixels(_opened(data, max_pixels=None), preprocess)


class Decoder:
    """Decodes for one event loop.

    Args:
        max_pixels: of one image.
        pixels: how many may be in the pool at once, whoever they belong to.
        threads: of the pool.
    """

    def __init__(self, *, max_pixels: int, pixels: Budget, threads: int) -> None:
        self._max_pixels = max_pixels
        self._pixels = pixels
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def decode(self, data: bytes, preprocess: Preprocess, *, deadline: float) -> Pixels:
        """The pixels of an uploaded image; cancelling it drops what has not begun.

        Raises: ImageProblem, Overloaded, Expired.
        """
        if len(data) <= _INLINE_BYTES:
            image = _opened(data, max_pixels=self._max_pixels)
            if image.width * image.height <= _INLINE_PIXELS:
                return _to_pixels(image, preprocess)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._in_pool(data, preprocess)
        except TimeoutError as error:
            raise Expired("the deadline passed before the image was decoded") from error

    async def _in_pool(self, data: bytes, preprocess: Preprocess) -> Pixels:
        loop = asyncio.get_running_loop()
        image = await loop.run_in_executor(self._pool, partial(_opened, data, max_pixels=self._max_pixels))
        amount = image.width * image.height
        self._pixels.take(amount)
        work = self._pool.submit(_to_pixels, image, preprocess)

        def over(_: Future[Pixels]) -> None:
            loop.call_soon_threadsafe(self._pixels.give_back, amount)

        # When the thread is through, not when the caller stops waiting: until then the memory is held.
        work.add_done_callback(over)
        return await asyncio.wrap_future(work)


def _opened(data: bytes, *, max_pixels: int | None) -> Image.Image:
    """The image with its size known and nothing decoded."""
    try:
        image = Image.open(BytesIO(data), formats=(_accepted_format(data),))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageProblem("too_many_pixels", str(error)) from error
    except ImageProblem:
        raise
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged files
        raise ImageProblem("bad_image", f"the image is damaged: {_first_words(error)}") from error
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise ImageProblem(
            "too_many_pixels",
            f"the image has {image.width}x{image.height} pixels; at most {max_pixels / 1e6:g} million are accepted",
        )
    return image


def _to_pixels(image: Image.Image, preprocess: Preprocess) -> Pixels:
    try:
        return preprocess.to_pixels(image)
    except ImageError as error:
        raise ImageProblem("bad_image", str(error)) from error


def _accepted_format(data: bytes) -> str:
    """Pillow's name of the format, by the first bytes: what a client says of it is not trusted."""
    for signature, name in _ACCEPTED:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    known = next((name for signature, name in _NOT_ACCEPTED if data.lstrip().startswith(signature)), None)
    if data[4:8] == b"ftyp":
        known = "AVIF or HEIF"
    if known is not None:
        raise ImageProblem("unsupported_format", f"{known} is not accepted; send JPEG, PNG, WebP, GIF, BMP or TIFF")
    raise ImageProblem("bad_image", "these bytes are no image; send JPEG, PNG, WebP, GIF, BMP or TIFF")


def _first_words(error: Exception) -> str:
    # Pillow's "cannot identify image file" ends in the address of a buffer.
    return "its header cannot be read" if isinstance(error, OSError) else f"{error}"
