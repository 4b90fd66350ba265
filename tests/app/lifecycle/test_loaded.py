"""What is on the device: who answers, who uses it, and when it leaves."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from app.batching.batcher import Batcher
from app.engine.catalogue import Entry
from app.engine.errors import DeadlineExceeded, EngineError, Overloaded, Stale
from app.engine.rows import Item, Row, RowDecoder, Table
from app.lifecycle.loaded import LoadedVersion, LoadedVersions
from tests.support.checkpoints import DIGITS, png, to_pixels
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

PIXELS = to_pixels(png())
FOR_EVER = float("inf")


class Shelf:
    """One loaded version, whose batches wait before a gate."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.computed = 0
        self.batcher = Batcher(max_items=1, max_seconds=60, max_waiting=3)
        self.versions = LoadedVersions()
        entry = Entry(7, "digits", 1, DIGITS, DIGITS.digest, RowDecoder(("a", "b"), None))
        self.loaded = LoadedVersion(entry, self.batcher.lane(self._compute))
        self.versions.add(self.loaded)
        self.outcomes: list[Table | EngineError] = []
        self.retired: list[str] = []

    async def _compute(self, items: Sequence[Item]) -> list[Row]:
        await self.gate.wait()
        self.computed += len(items)
        return [np.array([0.5, 1], np.float32) for _ in items]

    def retire(self) -> None:
        self.versions.retire(self.loaded, lambda: self.retired.append("once"))


@asynccontextmanager
async def running() -> AsyncIterator[Shelf]:
    shelf = Shelf()
    work = asyncio.create_task(shelf.batcher.run())
    try:
        yield shelf
    finally:
        shelf.gate.set()
        shelf.batcher.close()
        await work


async def test_a_submission_gets_its_rows() -> None:
    async with running() as shelf:
        shelf.gate.set()
        shelf.versions.submit(7, [PIXELS] * 2, top_k=1, deadline=FOR_EVER, on_rows=shelf.outcomes.append)
        await until(lambda: bool(shelf.outcomes))
        (rows,) = shelf.outcomes
        assert isinstance(rows, np.ndarray)
        assert rows.tolist() == [[0.5, 1], [0.5, 1]]


async def test_a_version_that_nothing_uses_leaves_at_once_and_is_stale() -> None:
    async with running() as shelf:
        shelf.retire()
        assert shelf.retired == ["once"]
        for ask in (
            lambda: shelf.versions.entry(7),
            lambda: shelf.versions.submit(7, [PIXELS], top_k=1, deadline=FOR_EVER, on_rows=shelf.outcomes.append),
        ):
            with pytest.raises(Stale):
                ask()


async def test_a_version_that_was_replaced_leaves_after_its_last_answer() -> None:
    async with running() as shelf:
        for _ in range(2):
            shelf.versions.submit(7, [PIXELS], top_k=1, deadline=FOR_EVER, on_rows=shelf.outcomes.append)
        shelf.retire()
        assert shelf.retired == []
        shelf.gate.set()
        await until(lambda: len(shelf.outcomes) == 2)
        assert shelf.retired == ["once"]


async def test_a_submission_that_is_cancelled_no_longer_keeps_its_version() -> None:
    async with running() as shelf:
        work = shelf.versions.submit(7, [PIXELS], top_k=1, deadline=FOR_EVER, on_rows=shelf.outcomes.append)
        shelf.retire()
        work.cancel()
        work.cancel()
        assert shelf.retired == ["once"]
        assert shelf.outcomes == []


async def test_a_submission_that_is_refused_does_not_keep_its_version() -> None:
    async with running() as shelf:
        for count, deadline, error in ((4, FOR_EVER, Overloaded), (1, -1.0, DeadlineExceeded)):
            with pytest.raises(error):
                shelf.versions.submit(7, [PIXELS] * count, top_k=1, deadline=deadline, on_rows=shelf.outcomes.append)
        shelf.retire()
        assert shelf.retired == ["once"]
        assert shelf.outcomes == []
