"""Deadlines: for many things that all have the same time, one timer, which costs each of them next to nothing."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """On one event loop.

    Args:
        seconds: that each has from when it begins.
        late: is told of those that have not ended by then.
    """

    def __init__(self, seconds: float, late: Callable[[T], None]) -> None:
        self.seconds = seconds
        self._late = late
        self._due: dict[T, float] = {}  # in their order, as all have the same time
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, item: T) -> None:
        """Once, until it ends."""
        loop = asyncio.get_running_loop()
        due = self._due[item] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._look)

    def end(self, item: T) -> None:
        """In time; or it did not begin, or was late."""
        self._due.pop(item, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._due:
            item, due = next(iter(self._due.items()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._look)
                return
            del self._due[item]
            self._late(item)
