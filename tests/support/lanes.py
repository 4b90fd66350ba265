"""Submits to a lane of a batcher, for a test that waits for what becomes of it."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TypeVar

from app.batching.batcher import Lane
from app.engine.interface import resolve

T = TypeVar("T")
R = TypeVar("R")


async def submit(lane: Lane[T, R], items: Sequence[T], *, deadline: float) -> "list[R | Exception]":
    """One result, or the error that it caused, for each item. Cancelling drops what is not in a batch yet."""
    answer: asyncio.Future[list[R | Exception]] = asyncio.get_running_loop().create_future()
    submission = lane.submit_nowait(items, deadline=deadline, on_done=partial(resolve, answer))
    try:
        return await answer
    finally:
        lane.cancel(submission)
