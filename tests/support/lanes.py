"""Submits to a lane of a batcher, for a test that waits for what becomes of it."""

from collections.abc import Sequence
from typing import TypeVar

from app.batching.batcher import Lane
from app.engine.awaited import Awaited

T = TypeVar("T")
R = TypeVar("R")


async def submit(lane: Lane[T, R], items: Sequence[T], *, deadline: float) -> "list[R | Exception]":
    """One result, or the error that it caused, for each item. Cancelling drops what is not in a batch yet."""
    answer: Awaited[list[R | Exception]] = Awaited()
    submission = lane.submit_nowait(items, deadline=deadline, on_done=answer.tell)
    try:
        return await answer.wait()
    finally:
        lane.cancel(submission)
