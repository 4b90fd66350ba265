"""ALL the decoding: uploaded bytes become pixels, small images at once, large ones in a pool of threads."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from io import BytesIO
from typing import TypeVar

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from app.admission import Budget
from app.decoding.formats import ImageProblem, accepted_format
from app.decoding.plain_png import plain_png
from app.engine.interface import Expired, settle
from classifier.preprocess import ImageError, Pixels, Preprocess

S = TypeVar("S")
T = TypeVar("T")

# Importing a plugin is what makes Pillow know its format; nothing else of them is used.
_PLUGINS = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)

# Up to here a hop to another thread costs more than the decoding.
INLINE_BYTES = 32 * 1024
_INLINE_PIXELS = 128 * 128
_INLINE_RATIO = 4
# Requests whose small images are decoded one after the other.
_AT_A_TIME = 12
# In the names of those chunks of a PNG (zTXt, iTXt, iCCP) that may inflate to a thousand times their size.
_INFLATING = (b"TXt", b"iCCP")


def decode(data: bytes, preprocess: Preprocess) -> Pixels:
    """The pixels of an image of any size. Raises: ImageProblem."""
    return _to_pixels(_opened(data, max_pixels=None), preprocess)


Outcome = Pixels | ImageProblem


class Small:
    """A request's images, of which the small ones are decoded at the end of the turn; None for the others.

    Whoever does not wait for them any more sets `dropped`.
    """

    __slots__ = ("decoded", "dropped", "images", "preprocess")

    def __init__(
        self, images: Sequence[bytes], preprocess: Preprocess, decoded: "Callable[[list[Outcome | None]], None]"
    ) -> None:
        self.images = images
        self.preprocess = preprocess
        self.decoded = decoded
        self.dropped = False


class Decoder:
    """Decodes for one event loop.

    Args:
        max_pixels: of one image.
        pixels: how many may be in the pool at once, whoever they belong to.
        threads: of the pool.
        draft: large JPEGs are decoded at a half, a quarter or an eighth, while the shorter edge keeps twice
            the pixels that it is resized to: quicker, and not quite the same pixels.
    """

    def __init__(self, *, max_pixels: int, pixels: Budget, threads: int, draft: bool = False) -> None:
        self._max_pixels = max_pixels
        self._pixels = pixels
        self._draft = draft
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._small: list[Small] = []

    def close(self) -> None:
        """Drops what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def decode(self, images: Sequence[bytes], preprocess: Preprocess, *, deadline: float) -> list[Outcome]:
        """The pixels of a request's images, or what is wrong with each; cancelling it drops what has not begun.

        Raises: Overloaded, Expired; then none of them was decoded.
        """
        answer: asyncio.Future[list[Outcome | None]] = asyncio.get_running_loop().create_future()
        small = self.put(images, preprocess, partial(settle, answer))
        try:
            outcomes = await answer
        finally:
            small.dropped = True
        large = [i for i, outcome in enumerate(outcomes) if outcome is None]
        if large:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    found = await self._in_pool([images[i] for i in large], preprocess)
            except TimeoutError as error:
                raise Expired("the deadline passed before the images were decoded") from error
            for i, outcome in zip(large, found, strict=True):
                outcomes[i] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def put(
        self, images: Sequence[bytes], preprocess: Preprocess, decoded: Callable[[list[Outcome | None]], None]
    ) -> Small:
        """Decodes what is small, at the end of this turn of the event loop, for all requests that came in it.

        One after the other, with nothing else between, an image takes 33 us instead of the 57 that it takes where each
        is decoded amid the rest of its request: the processor's caches hold the one or the other.

        Args:
            decoded: is told once, later: the pixels of each image, or what is wrong with it; None, if it is large.
        """
        if not self._small:
            asyncio.get_running_loop().call_soon(self._decode_first_small)
        small = Small(images, preprocess, decoded)
        self._small.append(small)
        return small

    def _decode_first_small(self) -> None:
        """A few; after what they lead to has left, the next few: the engine begins with the first meanwhile."""
        waiting, self._small = self._small[:_AT_A_TIME], self._small[_AT_A_TIME:]
        for small in waiting:
            if not small.dropped:
                small.decoded([self._inline(data, small.preprocess) for data in small.images])
        if self._small:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._decode_first_small)

    def _inline(self, data: bytes, preprocess: Preprocess) -> Outcome | None:
        """None for what is better left to the pool."""
        if len(data) > INLINE_BYTES or _INFLATING[0] in data or _INFLATING[1] in data:
            return None
        try:
            image = _opened(data, max_pixels=self._max_pixels)
            return _to_pixels(image, preprocess) if _is_small(image.size) else None
        except ImageProblem as problem:
            return problem

    async def _in_pool(self, images: Sequence[bytes], preprocess: Preprocess) -> list[Outcome]:
        """Admitted whole: an image for which there is no room while its neighbours hold theirs could never get in."""
        open_one = partial(_opened, max_pixels=self._max_pixels)
        opened = await _all(self._pool.submit(_or_problem, open_one, data) for data in images)
        amounts = [0 if isinstance(image, ImageProblem) else image.width * image.height for image in opened]
        self._pixels.take(sum(amounts))
        loop = asyncio.get_running_loop()
        to_pixels = partial(_to_pixels, preprocess=preprocess, draft=self._draft)
        work: list[Future[Outcome]] = []
        for image, amount in zip(opened, amounts, strict=True):
            done = self._pool.submit(_or_problem, to_pixels, image)
            # When the thread is through, not when the caller stops waiting: until then the memory is held.
            done.add_done_callback(partial(self._through, loop, amount))
            work.append(done)
        return await _all(work)

    def _through(self, loop: asyncio.AbstractEventLoop, amount: int, _: Future[Outcome]) -> None:
        loop.call_soon_threadsafe(self._pixels.give_back, amount)


async def _all(work: Iterable[Future[T]]) -> list[T]:
    return await asyncio.gather(*map(asyncio.wrap_future, work))


def _or_problem(step: Callable[[S], T], value: S | ImageProblem) -> T | ImageProblem:
    """One step of one image, in a thread; what is wrong with an image is an outcome like others."""
    if isinstance(value, ImageProblem):
        return value
    try:
        return step(value)
    except ImageProblem as problem:
        # A new one: the traceback of this one holds the image, half decoded, for as long as the request lasts.
        return ImageProblem(problem.code, str(problem))


def _is_small(size: tuple[int, int]) -> bool:
    # A long thin image has few pixels, but many once its short edge has the length that a network wants.
    return size[0] * size[1] <= _INLINE_PIXELS and max(size) <= _INLINE_RATIO * min(size)


def _opened(data: bytes, *, max_pixels: int | None) -> Image.Image:
    """The image with its size known, and decoded only if it is a small plain PNG. Raises: ImageProblem."""
    limit = _INLINE_PIXELS if max_pixels is None else min(max_pixels, _INLINE_PIXELS)
    plain = plain_png(data, max_pixels=limit)
    if plain is not None:
        return plain
    try:
        image = Image.open(BytesIO(data), formats=(accepted_format(data),))
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


def _to_pixels(image: Image.Image, preprocess: Preprocess, *, draft: bool = False) -> Pixels:
    if draft and preprocess.resize is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
        edge = 2 * max(np.atleast_1d(preprocess.resize))  # whichever way up it is
        image.draft(None, (edge, edge))
    try:
        return preprocess.to_pixels(image)
    except ImageError as error:
        raise ImageProblem("bad_image", str(error)) from error


def _first_words(error: Exception) -> str:
    # Pillow's "cannot identify image file" ends in the address of a buffer.
    return "its header cannot be read" if isinstance(error, OSError) else f"{error}"
