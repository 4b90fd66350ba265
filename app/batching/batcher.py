"""Forms ALL the batches: takes what is waiting the moment the device is free, and gives each caller its own rows.

It knows neither torch nor HTTP nor threads. How a batch is computed is passed in. Everything happens on one event loop,
so that there are no locks.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.batching.cost_model import CostModel
from app.engine.errors import DeadlineExceeded, Draining, EngineError, Overloaded

T = TypeVar("T")
R = TypeVar("R")

# Computes one batch. It gives as many results as there are items, in their order.
Compute = Callable[[Sequence[T]], Awaitable[Sequence[R]]]

# Is called once with what became of a submission: for each item a result, or the error that it caused; or the reason
# why there are no results.
OnDone = Callable[["list[R | Exception] | EngineError"], None]


class Batcher:
    """One device's turn, shared by lanes. A batch is of one lane, and the lanes take turns.

    Args:
        max_items: how many items one batch may have.
        max_seconds: how long one batch may take, by each lane's running estimate. One item always may.
        max_waiting: how many items of all lanes together may wait.
        max_concurrent: how many batches may be in progress, of one lane or several. More than one gains where computing
            waits for something else than this loop.
        clock: gives seconds, as `time.monotonic` does.
    """

    def __init__(
        self,
        *,
        max_items: int,
        max_seconds: float,
        max_waiting: int,
        max_concurrent: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_items = max_items
        self.max_seconds = max_seconds
        self.max_waiting = max_waiting
        self.max_concurrent = max_concurrent
        self.waiting = 0
        self._clock = clock
        self._lanes: dict[Lane[Any, Any], None] = {}  # those that have something waiting, next turn first
        self._forming = asyncio.Lock()
        self._wake = asyncio.Event()
        self._closing = False

    def lane(
        self, compute: "Compute[T, R]", *, preferred_batch: int | None = None, exclusive: bool = False
    ) -> "Lane[T, R]":
        """Makes a queue for items that may share a batch: those of one version.

        Args:
            preferred_batch: the preferred size of a batch that mixes several callers. If more than twice as many
                callers wait, the batch takes half of them. Items of one caller always stay together. None: `max_items`.
            exclusive: while one of this lane's batches is computed, no other batch is formed. What comes meanwhile is
                in the next one.
        """
        return Lane(self, compute, self._clock, preferred_batch=preferred_batch or self.max_items, exclusive=exclusive)

    async def run(self) -> None:
        """Computes batches until `close` was called and nothing waits any more. The caller watches that it lives."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.max_concurrent):
                    group.create_task(self._one_after_another())
        finally:
            self._closing = True
            for lane in self._lanes:
                lane.fail(Draining("the server is shutting down"))

    async def _one_after_another(self) -> None:
        while await self._one_batch():
            pass

    async def _one_batch(self) -> bool:
        """Computes one batch; False when there will be no other.

        It is no part of the loop above, whose variables would keep the last lane, and with it a replaced version.
        """
        async with self._forming:
            await asyncio.sleep(0)  # where computing does not wait, this is when answers leave and items come
            while not self._lanes:
                if self._closing:
                    return False
                self._wake.clear()
                await self._wake.wait()
            lane = next(iter(self._lanes))
            places = lane.take(self.max_items, self.max_seconds)
            del self._lanes[lane]
            if lane.submissions:
                self._lanes[lane] = None  # to the end: no lane waits behind a flood in another
            if lane.exclusive:
                await lane.answer(places)
                return True
        await lane.answer(places)
        return True

    def close(self) -> None:
        """Refuses what is new. `run` answers what waits, then returns."""
        self._closing = True
        self._wake.set()

    def admit(self, lane: "Lane[T, R]", items: int) -> None:
        """Counts items that are about to wait. Raises: Draining, Overloaded."""
        if self._closing:
            raise Draining("the server is shutting down")
        if self.waiting + items > self.max_waiting:
            raise Overloaded(f"{self.waiting} images are waiting already")
        self.waiting += items
        if not self._lanes:
            self._wake.set()
        self._lanes[lane] = None


@dataclass(slots=True, eq=False)
class Submission(Generic[T, R]):
    """What one caller waits for.

    Args:
        taken: how many of its items are, or were, in a batch.
        missing: how many of its items have no result yet.
        over: it was answered, or nobody waits for it any more.
    """

    items: Sequence[T]
    deadline: float
    on_done: "OnDone[R]"
    results: "list[R | Exception]"
    missing: int
    taken: int = 0
    over: bool = False

    def answer(self, outcome: "list[R | Exception] | EngineError") -> None:
        if not self.over:
            self.over = True
            self.on_done(outcome)


_Place = tuple[Submission[T, R], int]


class Lane(Generic[T, R]):
    """The items that may share a batch."""

    def __init__(
        self,
        batcher: Batcher,
        compute: "Compute[T, R]",
        clock: Callable[[], float],
        *,
        preferred_batch: int,
        exclusive: bool,
    ) -> None:
        self.submissions: dict[Submission[T, R], None] = {}
        self.cost = CostModel()
        self.exclusive = exclusive
        self._preferred_batch = preferred_batch
        self._batcher = batcher
        self._compute = compute
        self._clock = clock

    def submit_nowait(self, items: Sequence[T], *, deadline: float, on_done: "OnDone[R]") -> "Submission[T, R]":
        """Puts at least one item into the queue.

        Args:
            deadline: a time of the batcher's clock.
            on_done: is called once, later, with what became of the items. That the deadline has passed is noticed when
                the next batch is formed, and never where the device hangs.

        Raises: DeadlineExceeded, Overloaded, Draining. `on_done` is not called then.
        """
        if deadline <= self._clock():
            raise DeadlineExceeded("the deadline passed before the images could be queued")
        self._batcher.admit(self, len(items))
        unanswered: list[R | Exception] = [_UNANSWERED] * len(items)
        submission = Submission(items, deadline, on_done, unanswered, len(items))
        self.submissions[submission] = None
        return submission

    def cancel(self, submission: "Submission[T, R]") -> None:
        """Notes that nobody waits for it any more. What is not in a batch yet is not computed."""
        submission.over = True
        self._leave(submission)

    def take(self, max_items: int, max_seconds: float) -> "list[_Place[T, R]]":
        """Takes the next batch out of the queue: the oldest items whose callers still wait for them."""
        most = min(max_items, self.cost.items_within(max_seconds))
        places: list[_Place[T, R]] = []
        now = self._clock()
        together = min(most, max(self._preferred_batch, len(self.submissions) // 2))
        for submission in list(self.submissions):
            if submission.over or submission.deadline <= now:
                self._leave(submission)
                submission.answer(DeadlineExceeded(_TOO_LATE))
                continue
            room = (together if places else most) - len(places)
            if room <= 0:
                break
            until = min(len(submission.items), submission.taken + room)
            places += [(submission, i) for i in range(submission.taken, until)]
            self._batcher.waiting -= until - submission.taken
            submission.taken = until
            if until < len(submission.items):
                break
            del self.submissions[submission]
        return places

    async def answer(self, places: "list[_Place[T, R]]") -> None:
        """Computes a batch. One that fails is split until the guilty item is alone."""
        if not places:
            return
        started = self._clock()
        try:
            results = await self._compute([submission.items[i] for submission, i in places])
            if len(results) != len(places):
                raise RuntimeError(f"{len(results)} results for {len(places)} items")
        except asyncio.CancelledError:
            self._abandon(places)
            raise
        except Exception as error:  # noqa: BLE001  whatever a network raises belongs to the item that caused it
            if len(places) == 1:
                _deliver(places[0], error)
                return
            middle = len(places) // 2
            try:
                await self.answer(places[:middle])
            except asyncio.CancelledError:
                self._abandon(places[middle:])
                raise
            await self.answer(places[middle:])
            return
        self.cost.observe(len(places), self._clock() - started)
        for place, result in zip(places, results, strict=True):
            _deliver(place, result)

    def _abandon(self, places: "list[_Place[T, R]]") -> None:
        for submission, _ in places:
            submission.answer(Draining("the server has shut down"))

    def fail(self, error: EngineError) -> None:
        for submission in self.submissions:
            submission.answer(error)

    def _leave(self, submission: Submission[T, R]) -> None:
        if submission in self.submissions:
            del self.submissions[submission]
            self._batcher.waiting -= len(submission.items) - submission.taken


_TOO_LATE = "the deadline passed while the images were waiting"
_UNANSWERED = RuntimeError("not answered yet")


def _deliver(place: "_Place[T, R]", result: "R | Exception") -> None:
    submission, index = place
    submission.results[index] = result
    submission.missing -= 1
    if not submission.missing:
        submission.answer(submission.results)
