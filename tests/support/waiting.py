"""Waits for what nobody reports, by looking every few milliseconds: what happens needs the processor, too."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.support.server import PATIENCE

_PAUSE = 0.005  # seconds


async def until(happens: Callable[[], bool | Awaitable[bool]]) -> None:
    """Returns once it is so. Raises: TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while True:
            outcome = happens()
            if outcome if isinstance(outcome, bool) else await outcome:
                return
            await asyncio.sleep(_PAUSE)


def block_until(happens: Callable[[], bool]) -> None:
    """As `until`, in a thread that has no event loop, or whose loop has nothing to do meanwhile."""
    end = time.monotonic() + PATIENCE
    while not happens():
        if time.monotonic() > end:
            raise TimeoutError("it has not happened")
        time.sleep(_PAUSE)
