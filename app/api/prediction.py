"""From images to predictions, the part that all APIs share: resolve, decode, submit, decode again if stale.

Each step is told by a call what came of the one before it. As a task that waits for the same steps, a small prediction
takes as long again as all of them. An API that may wait uses `ImageClassifier.classify`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from app.decoding.decoder import Decoder, DecodeResult, Decoding
from app.decoding.formats import ImageProblem
from app.engine.awaited import Awaited
from app.engine.catalogue import ResolvedModel
from app.engine.errors import DeadlineExceeded, EngineError, Stale, Starting
from app.engine.interface import NO_ANSWER_IN_TIME, Cancelable, Engine
from app.engine.predictions import Answer, ItemAnswer, ItemError
from app.http.draining import Draining
from app.telemetry.metrics import Metrics
from classifier.preprocess import Pixels

TOP_K = 5
_LOOK_SECONDS = 0.02  # between two looks whether an engine has started

Item = ItemAnswer | ItemError
# Is told the model, the version that answered (None if no image could be decoded), and an item for each image.
Done = Callable[[str, int | None, Sequence[Item]], None]
Failed = Callable[[Exception], None]


class Query(NamedTuple):
    """What is asked of which model. None: the default model, the served version."""

    model: str | None = None
    version: int | None = None
    top_k: int = TOP_K


class Classified(NamedTuple):
    """The answer to the images of one request, as `Done` is told it."""

    model: str
    version: int | None
    items: Sequence[Item]


class ImageClassifier:
    """Classifies images with the models of an engine, on one event loop.

    Args:
        hold_seconds: how long images wait for an engine that is being started.
        draining: says when the server drains: then an engine that has ended is not started any more.
    """

    def __init__(
        self, engine: Engine, decoder: Decoder, metrics: Metrics, *, hold_seconds: float, draining: Draining
    ) -> None:
        self.engine = engine
        self.decoder = decoder
        self.metrics = metrics
        self.hold_seconds = hold_seconds
        self.draining = draining

    def start(
        self, images: Sequence[bytes], query: Query, *, deadline: float, done: Done, failed: Failed
    ) -> "Classification":
        """Begins to classify the images of one request; an image that is no image becomes an `ItemError`.

        Args:
            images: files of any accepted format, at least one.
            deadline: of `time.monotonic()`; nothing is computed after it. A caller that must be told in time cancels.
            done: is told the outcome once, later; unless `failed` is, or the classification is cancelled.
            failed: is told once, later, why there is none: an `EngineError`, or whatever a bug raised.

        For an engine that is being started the images wait.

        Raises: NotFound, NotReady, Ambiguous; then neither is told.
        """
        classification = Classification(self, images, query, deadline, done, failed)
        classification.begin()
        return classification

    async def classify(self, images: Sequence[bytes], query: Query, *, deadline: float) -> Classified:
        """Does as `start` does, for a caller that waits, until the deadline at the latest; cancelling drops the images.

        Raises: EngineError; DeadlineExceeded at the deadline.
        """
        outcome: Awaited[Classified] = Awaited()
        classification = self.start(
            images,
            query,
            deadline=deadline,
            done=lambda model, version, items: outcome.tell(Classified(model, version, items)),
            failed=outcome.tell,
        )
        too_late = DeadlineExceeded(NO_ANSWER_IN_TIME)
        timer = asyncio.get_running_loop().call_later(deadline - time.monotonic(), outcome.tell, too_late)
        try:
            return await outcome.wait()
        finally:
            timer.cancel()
            classification.cancel()


class Classification:
    """The images of one request on their way."""

    _resolved: ResolvedModel
    _started: float  # the step that goes on now, by perf_counter
    _pixels: Sequence[Pixels]
    _digest: str | None = None  # of the preprocess that the images are decoded for
    _decoding: Decoding | None = None
    _submitted: Cancelable | None = None
    _held: asyncio.TimerHandle | None = None  # until the next look whether the engine has started
    _held_until: float | None = None  # a time of `time.monotonic()`, if it was held
    _problems: list[ItemError | None] | None = None  # one for each image, if any has one

    def __init__(
        self,
        shared: ImageClassifier,
        images: Sequence[bytes],
        query: Query,
        deadline: float,
        done: Done,
        failed: Failed,
    ) -> None:
        self._shared = shared
        self._images = images
        self._query = query
        self._deadline = deadline
        self._done = done
        self._failed = failed

    def begin(self) -> None:
        """Chooses the version, and begins to decode for it. Raises: NotFound, NotReady, Ambiguous."""
        try:
            self._resolved = self._shared.engine.resolve(self._query.model, self._query.version)
        except Starting as starting:
            if not self._shared.hold_seconds or self._shared.draining.begun:
                raise
            self._hold(starting)
        else:
            self._decode()

    def _decode(self) -> None:
        self._digest = self._resolved.entry.digest
        self._started = time.perf_counter()
        self._decoding = self._shared.decoder.start(
            self._images,
            self._resolved.entry.preprocess,
            deadline=self._deadline,
            done=self._decoded,
            failed=self._failed,
        )

    def cancel(self) -> None:
        """Drops what was not computed; nobody is told any more. Does nothing if it has ended."""
        if self._decoding is not None:
            self._decoding.cancel()
            self._decoding = None
        if self._submitted is not None:
            self._submitted.cancel()
            self._submitted = None
        if self._held is not None:
            self._held.cancel()
            self._held = None

    def _decoded(self, results: Sequence[DecodeResult]) -> None:
        self._decoding = None
        self._pixels = [result for result in results if not isinstance(result, ImageProblem)]
        self._problems = None
        if len(self._pixels) < len(results):
            self._problems = [_problem_of(result) for result in results]
            if not self._pixels:
                entry, asked = self._resolved
                self._done(entry.model, asked, [problem for problem in self._problems if problem])
                return
        decoded = time.perf_counter()
        self._shared.metrics.decode_seconds(decoded - self._started)
        self._started = decoded
        self._submit()

    def _submit(self) -> None:
        try:
            self._submitted = self._shared.engine.submit_nowait(
                self._resolved, self._pixels, top_k=self._query.top_k, deadline=self._deadline, on_done=self._answered
            )
        except Stale as stale:
            self._begin_again(stale)
        except Starting as starting:
            self._hold(starting)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller is told
            self._failed(error)

    def _answered(self, answer: Answer | EngineError) -> None:
        self._submitted = None
        if isinstance(answer, Stale):
            self._begin_again(answer)
        elif isinstance(answer, EngineError):
            self._failed(answer)
        else:
            self._shared.metrics.answer_seconds(time.perf_counter() - self._started)
            items: Sequence[Item] = answer.items
            if self._problems is not None:
                answered = iter(items)
                items = [problem or next(answered) for problem in self._problems]
            self._done(self._resolved.entry.model, answer.version, items)

    def _begin_again(self, stale: Stale) -> None:
        if time.monotonic() >= self._deadline:
            expired = DeadlineExceeded("the model was exchanged until the deadline had passed")
            expired.__cause__ = stale
            self._failed(expired)
            return
        self._choose()

    def _hold(self, starting: Starting) -> None:
        """Waits for an engine that starts, as long as it may, and looks at least once more.

        It ends before the deadline, so that the caller hears why.
        """
        now = time.monotonic()
        if self._held_until is None:
            self._held_until = min(now + self._shared.hold_seconds, self._deadline - _LOOK_SECONDS)
        elif now >= self._held_until or self._shared.draining.begun:
            self._failed(starting)
            return
        self._held = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._choose)

    def _choose(self) -> None:
        """Chooses the version anew, and decodes anew only if that one prepares its images differently."""
        self._held = None
        try:
            self._resolved = self._shared.engine.resolve(self._query.model, self._query.version)
        except Starting as starting:
            self._hold(starting)
        except Exception as error:  # noqa: BLE001  as above
            self._failed(error)
        else:
            if self._resolved.entry.digest == self._digest:
                self._started = time.perf_counter()
                self._submit()
            else:
                self._decode()


def _problem_of(result: DecodeResult) -> ItemError | None:
    return ItemError(result.code, str(result)) if isinstance(result, ImageProblem) else None
