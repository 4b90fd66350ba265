"""Waits for what happens in turns of this very loop, without a pace of its own."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.support.raw import PATIENCE


async def until(happens: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            outcome = happens()
            if outcome if isinstance(outcome, bool) else await outcome:
                return
            await asyncio.sleep(0)
