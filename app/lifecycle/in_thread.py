"""Calls what may wait for a disk or a network for long, in a thread that no end of the process waits for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_daemon_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Returns what the function returns, or raises what it raises.

    Whoever waits may be cancelled: the thread goes on then, and what it comes to is dropped. A store that does not
    answer would hold up the end of a server by its timeouts, if the thread were one of the loop's own
    (`asyncio.to_thread`).
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
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

    threading.Thread(target=run, name="store", daemon=True).start()
    return await outcome
