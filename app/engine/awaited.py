"""An outcome that a call tells, for a caller that waits: where call-backs end and coroutines begin."""

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Awaited(Generic[T]):
    """The outcome of one piece of work, on one event loop."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[T] | None = asyncio.get_running_loop().create_future()

    def tell(self, outcome: T | Exception) -> None:
        """Gives the result, or the reason why there is none, to whoever waits, if nobody was quicker."""
        future = self._future
        if future is None or future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    async def wait(self) -> T:
        """Waits for the result, once. Raises: the reason why there is none."""
        if self._future is None:
            raise RuntimeError("an outcome is waited for once")
        try:
            return await self._future
        finally:
            # The future holds an exception, which holds the frames that it passed. None of these may hold the future,
            # or all that they hold would stay until garbage is looked for: whole uploads.
            self._future = None
