"""Calls what may wait for a disk or a network for long, in threads that no end of the process waits for."""

import asyncio
import contextlib
import errno
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads:
    """Calls functions, each in a thread of its own, and no more than so many at once.

    A store that does not answer would hold up the end of a server by its timeouts, if the threads were those of the
    event loop (`asyncio.to_thread`).
    """

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns what the function returns.

        Whoever waits may be cancelled: the thread goes on then, and what it comes to is dropped.

        Raises: what the function raises; OSError, if the system has no thread left.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            self._free.release()
            if outcome.done():
                return
            if error is None:
                outcome.set_result(value)  # type: ignore[arg-type]  # None only if T is
            else:
                outcome.set_exception(error)

        def run() -> None:
            value, error = None, None
            try:
                value = function(*args, **kwargs)
            except BaseException as caught:  # noqa: BLE001  it is raised where the function is waited for
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, value, error)

        try:
            threading.Thread(target=run, name="store", daemon=True).start()
        except RuntimeError as error:
            self._free.release()
            raise OSError(errno.EAGAIN, "the system has no thread left") from error
        return await outcome
