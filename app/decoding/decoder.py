"""When and where images are decoded: small ones on the event loop, a few each turn; large ones in a pool of threads."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from app.admission import Budget
from app.decoding.formats import ImageProblem
from app.decoding.image import is_small, is_small_file, open_image, to_pixels
from app.engine.awaited import Awaited
from app.engine.errors import DeadlineExceeded, Overloaded
from classifier.preprocess import Pixels, Preprocess

S = TypeVar("S")
T = TypeVar("T")

# Small images that are decoded one after the other, before the event loop does something else.
_IMAGES_A_TURN = 12

DecodeResult = Pixels | ImageProblem


class Decoding:
    """The images of one request, until they are decoded or nobody waits for them any more."""

    cancelled = False
    has_large = False
    task: asyncio.Task[None] | None = None  # in which large ones are waited for

    def __init__(
        self,
        images: Sequence[bytes],
        preprocess: Preprocess,
        deadline: float,
        done: Callable[[list[DecodeResult]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.images = images
        self.preprocess = preprocess
        self.deadline = deadline
        self.done = done
        self.failed = failed
        self.results: list[DecodeResult | None] = []  # of the first images; None for a large one

    def cancel(self) -> None:
        """Drops what has not begun; nobody is told any more. Does nothing if it has ended."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()


class Decoder:
    """Decodes for one event loop.

    Args:
        max_pixels: the limit for one image.
        pixels: how many may be in the pool at once, whoever they belong to.
        threads: the size of the pool.
        draft: large JPEGs are decoded at a half, a quarter or an eighth of their size. The shorter edge keeps at least
            twice the pixels that it is resized to. That is quicker, and gives not quite the same pixels.
    """

    def __init__(self, *, max_pixels: int, pixels: Budget, threads: int, draft: bool = False) -> None:
        self._max_pixels = max_pixels
        self._pixels = pixels
        self._draft = draft
        # Of its own, so that no image waits behind those that are decoded, only to hear that there is no room for it.
        self._openers = ThreadPoolExecutor(threads, thread_name_prefix="open")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._waiting: deque[Decoding] = deque()
        self._turn_is_due = False

    def close(self) -> None:
        """Drops what has not begun."""
        self._openers.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def start(
        self,
        images: Sequence[bytes],
        preprocess: Preprocess,
        *,
        deadline: float,
        done: Callable[[list[DecodeResult]], None],
        failed: Callable[[Exception], None],
    ) -> Decoding:
        """Begins to decode the images of one request.

        Small ones are decoded at the end of this turn of the event loop, for all requests that came in it. One after
        the other, with nothing else between, an image takes 33 us instead of the 57 that it takes where each is decoded
        amid the rest of its request: the processor's caches hold the one or the other. Large ones go to the pool.

        Args:
            deadline: of `time.monotonic()`; large images are not waited for after it.
            done: is told once, later: the pixels of each image, or what is wrong with it.
            failed: is told once, later, instead of `done`: Overloaded or DeadlineExceeded. No image was decoded then.
        """
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._take_a_turn)
        decoding = Decoding(images, preprocess, deadline, done, failed)
        self._waiting.append(decoding)
        return decoding

    async def decode(self, images: Sequence[bytes], preprocess: Preprocess, *, deadline: float) -> list[DecodeResult]:
        """Does as `start` does, for a caller that waits; cancelling it drops what has not begun.

        Raises: Overloaded, DeadlineExceeded; then none of them was decoded.
        """
        results: Awaited[list[DecodeResult]] = Awaited()
        decoding = self.start(images, preprocess, deadline=deadline, done=results.tell, failed=results.tell)
        try:
            return await results.wait()
        finally:
            decoding.cancel()

    def _take_a_turn(self) -> None:
        """Decodes a few small images. After what they lead to has left, the next few have their turn.

        So the engine begins with the first meanwhile, and nothing else waits long for the loop. Requests with several
        images take turns as well, image by image.
        """
        waiting, left = self._waiting, _IMAGES_A_TURN
        try:
            while waiting and left:
                decoding = waiting.popleft()
                if not decoding.cancelled:
                    left -= 1
                    self._decode_next(decoding)
        finally:
            self._turn_is_due = bool(waiting)
            if waiting:
                loop = asyncio.get_running_loop()
                loop.call_soon(loop.call_soon, self._take_a_turn)

    def _decode_next(self, decoding: Decoding) -> None:
        """Decodes the next image of one request, or passes it over where it is large."""
        images, results = decoding.images, decoding.results
        try:
            result = self._inline(images[len(results)], decoding.preprocess)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller is told, and the others are decoded
            decoding.failed(_told(error))
            return
        results.append(result)
        if result is None:
            decoding.has_large = True
        if len(results) < len(images):
            self._waiting.append(decoding)
        elif decoding.has_large:
            decoding.task = asyncio.get_running_loop().create_task(self._decode_large(decoding))
        else:
            decoding.done(results)  # type: ignore[arg-type]  # there is no None in it now

    def _inline(self, data: bytes, preprocess: Preprocess) -> DecodeResult | None:
        """The result of a small image; None for one that is better left to the pool."""
        if not is_small_file(data):
            return None
        try:
            image = open_image(data, max_pixels=self._max_pixels, quick=True)
            return to_pixels(image, preprocess) if is_small(image.size) else None
        except ImageProblem as problem:
            return None if problem.code == "too_many_pixels" else problem

    async def _decode_large(self, decoding: Decoding) -> None:
        results = decoding.results
        large = [i for i, result in enumerate(results) if result is None]
        try:
            async with asyncio.timeout(decoding.deadline - time.monotonic()):
                found = await self._in_pool([decoding.images[i] for i in large], decoding.preprocess)
        except TimeoutError:
            decoding.failed(DeadlineExceeded("the deadline passed before the images were decoded"))
        except Exception as error:  # noqa: BLE001  as above
            decoding.failed(_told(error))
        else:
            for i, result in zip(large, found, strict=True):
                results[i] = result
            decoding.done(results)  # type: ignore[arg-type]  # there is no None in it now

    async def _in_pool(self, images: Sequence[bytes], preprocess: Preprocess) -> list[DecodeResult]:
        """Decodes large images in the pool, once there is room for the pixels of all of them.

        If each were admitted alone, one for which there is no room while its neighbours hold theirs could never get in.

        Raises: Overloaded.
        """
        open_one = partial(open_image, max_pixels=self._max_pixels)
        opened = await _all(self._openers.submit(_or_problem, open_one, data) for data in images)
        sound = [image for image in opened if not isinstance(image, ImageProblem)]
        amounts = [image.width * image.height for image in sound]
        self._pixels.acquire(sum(amounts))
        loop = asyncio.get_running_loop()
        make_pixels = partial(to_pixels, preprocess=preprocess, draft=self._draft)
        work: list[Future[DecodeResult]] = []
        for image, amount in zip(sound, amounts, strict=True):
            done = self._pool.submit(_or_problem, make_pixels, image)
            # When the thread is through, not when the caller stops waiting: until then the memory is held.
            done.add_done_callback(partial(self._through, loop, amount))
            work.append(done)
        decoded = iter(await _all(work))
        return [image if isinstance(image, ImageProblem) else next(decoded) for image in opened]

    def _through(self, loop: asyncio.AbstractEventLoop, amount: int, _: Future[DecodeResult]) -> None:
        loop.call_soon_threadsafe(self._pixels.release, amount)


async def _all(work: Iterable[Future[T]]) -> list[T]:
    return await asyncio.gather(*map(asyncio.wrap_future, work))


def _or_problem(step: Callable[[S], T], value: S) -> T | ImageProblem:
    """Takes one step of one image, in a thread. What is wrong with an image is a result like others."""
    try:
        return step(value)
    except ImageProblem as problem:
        # A new one: the traceback of this one holds the image, half decoded, for as long as the request lasts.
        return ImageProblem(problem.code, str(problem))


def _told(error: Exception) -> Exception:
    """Returns what the caller is told. That there is no memory for an image says nothing of the image."""
    if not isinstance(error, MemoryError):
        return error
    overloaded = Overloaded("the server has no memory left for this image; try again")
    overloaded.__cause__ = error
    return overloaded
