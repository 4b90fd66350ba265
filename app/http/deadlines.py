"""Deadlines: for many things that all have the same time, one timer, which costs each of them next to nothing."""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Deadlines(Generic[T]):
    """The deadlines of things that all have the same time, on one event loop.

    Args:
        seconds: the time that each has from when it begins.
        late: is told of each thing that has not ended by then. If it raises, that is logged.
    """

    def __init__(self, seconds: float, late: Callable[[T], None]) -> None:
        self.seconds = seconds
        self._late = late
        self._due: dict[T, float] = {}  # in their order, as all have the same time
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, item: T) -> None:
        """Sets the deadline of `item`, which has none now."""
        loop = asyncio.get_running_loop()
        due = self._due[item] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._tell_late)

    def end(self, item: T) -> None:
        """Removes the deadline of `item`. Does nothing if it has none, or was late."""
        self._due.pop(item, None)

    def _tell_late(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._due:
            item, due = next(iter(self._due.items()))
            if due > loop.time():
                self._timer = loop.call_at(due, self._tell_late)
                return
            del self._due[item]
            try:
                self._late(item)
            except Exception:  # whoever is late after this one is told all the same
                logger.exception("what a passed deadline leads to has failed")
