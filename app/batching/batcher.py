"""Forms ALL the batches: takes what is waiting the moment the device is free, and gives each caller its own rows.

Knows neither torch nor HTTP nor threads; how one batch is computed is passed in. Everything happens on one event
loop, so there are no locks.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from app.batching.cost_model import CostModel
from app.engine.errors import Draining, EngineError, Expired, Overloaded

T = TypeVar("T")
R = TypeVar("R")

# Computes one batch: as many results as items, in their order.
Compute = Callable[[Sequence[T]], Awaitable[Sequence[R]]]

# Is told once what became of a submission: a result, or the error that it caused, for each item; or why there are none.
Answered = Callable[["list[R | Exception] | EngineError"], None]


class Batcher:
    """One device's turn, shared by lanes; a batch is of one lane, and the lanes take turns.

    Args:
        at_once: batches in progress, of one lane or several, where computing them waits for something else.
        max_items: of one batch.
        max_seconds: how long one batch may take, by each lane's running estimate; one item always may.
        max_waiting: items of all lanes together.
        clock: seconds, as `time.monotonic`.
    """

    def __init__(
        self,
        *,
        max_items: int,
        max_seconds: float,
        max_waiting: int,
        at_once: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_items = max_items
        self.max_seconds = max_seconds
        self.max_waiting = max_waiting
        self.at_once = at_once
        self.waiting = 0
        self._clock = clock
        self._lanes: dict[Lane[Any, Any], None] = {}  # those that have something waiting, next turn first
        self._forming = asyncio.Lock()
        self._wake = asyncio.Event()
        self._closing = False

    def lane(self, compute: "Compute[T, R]", *, max_together: int | None = None, in_turn: bool = False) -> "Lane[T, R]":
        """A queue of its own, for items that may share a batch: those of one version.

        Args:
            max_together: of one of its batches, if they come from several callers, or half of those that wait, where
                that is more; those of one are answered together in any case. None: as many as any batch has.
            in_turn: no batch is formed while one of this lane's is computed: what comes meanwhile is in the next one.
        """
        return Lane(self, compute, self._clock, max_together=max_together or self.max_items, in_turn=in_turn)

    async def run(self) -> None:
        """Computes batches until `close` was called and nothing waits any more. Its owner watches that it lives."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.at_once):
                    group.create_task(self._one_after_another())
        finally:
            self._closing = True
            for lane in self._lanes:
                lane.fail(Draining("the server is shutting down"))

    async def _one_after_another(self) -> None:
        while await self._one_batch():
            pass

    async def _one_batch(self) -> bool:
        """False when there will be no other.

        Not in the loop, whose variables would keep the last lane, and with it a replaced version, until the next.
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
            if lane.in_turn:
                await lane.answer(places)
                return True
        await lane.answer(places)
        return True

    def close(self) -> None:
        """Refuses what is new; `run` answers what waits, then returns."""
        self._closing = True
        self._wake.set()

    def admit(self, lane: "Lane[T, R]", items: int) -> None:
        """Raises: Draining, Overloaded."""
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
    """What one caller waits for: `taken` items are in a batch, `missing` ones are not answered."""

    items: Sequence[T]
    deadline: float
    answered: "Answered[R]"
    results: "list[R | Exception]"
    missing: int
    taken: int = 0
    over: bool = False  # answered, or nobody waits for it any more

    def answer(self, outcome: "list[R | Exception] | EngineError") -> None:
        if not self.over:
            self.over = True
            self.answered(outcome)


_Place = tuple[Submission[T, R], int]


class Lane(Generic[T, R]):
    """The items that may share a batch."""

    def __init__(
        self,
        batcher: Batcher,
        compute: "Compute[T, R]",
        clock: Callable[[], float],
        *,
        max_together: int,
        in_turn: bool,
    ) -> None:
        self.submissions: dict[Submission[T, R], None] = {}
        self.cost = CostModel()
        self.in_turn = in_turn
        self._max_together = max_together
        self._batcher = batcher
        self._compute = compute
        self._clock = clock

    def put(self, items: Sequence[T], *, deadline: float, answered: "Answered[R]") -> "Submission[T, R]":
        """At least one item; `answered` is told once, later, what became of them.

        It is told that the deadline has passed when the next batch is formed, and never where the device hangs.

        Raises: Expired, Overloaded, Draining; then `answered` is not called.
        """
        if deadline <= self._clock():
            raise Expired("the deadline passed before the images could be queued")
        self._batcher.admit(self, len(items))
        unanswered: list[R | Exception] = [_UNANSWERED] * len(items)
        submission = Submission(items, deadline, answered, unanswered, len(items))
        self.submissions[submission] = None
        return submission

    def drop(self, submission: "Submission[T, R]") -> None:
        """Nobody waits for it any more: what is not in a batch yet is not computed."""
        submission.over = True
        self._leave(submission)

    def take(self, max_items: int, max_seconds: float) -> "list[_Place[T, R]]":
        """The next batch: the oldest items whose callers still wait for them."""
        most = min(max_items, self.cost.items_within(max_seconds))
        places: list[_Place[T, R]] = []
        now = self._clock()
        together = min(most, max(self._max_together, len(self.submissions) // 2))
        for submission in list(self.submissions):
            if submission.over or submission.deadline <= now:
                self._leave(submission)
                submission.answer(Expired(_TOO_LATE))
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
        """Computes a batch; one that fails is split until the guilty item is alone."""
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
