"""Calls that may wait for long, in a thread that nothing waits for at the end."""

import asyncio
import threading

import pytest

from app.lifecycle.in_thread import DaemonThreads
from tests.support.raw import PATIENCE
from tests.support.waiting import block_until

pytestmark = pytest.mark.anyio


async def test_what_is_returned_comes_back_from_another_thread() -> None:
    assert await DaemonThreads(2).call(divmod, 7, 2) == (3, 1)
    assert await DaemonThreads(2).call(threading.current_thread) is not threading.current_thread()


async def test_what_is_raised_is_raised_where_it_is_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        await DaemonThreads(2).call(divmod, 7, 0)


async def test_the_loop_goes_on_meanwhile_and_whoever_waits_may_be_cancelled() -> None:
    begun, gate, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        loop.call_soon_threadsafe(begun.set)
        gate.wait(PATIENCE)
        ended.set()

    waiting = asyncio.create_task(DaemonThreads(2).call(wait))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await asyncio.to_thread(ended.wait, PATIENCE)


def test_the_end_of_the_loop_is_not_held_up() -> None:
    gate, threads = threading.Event(), list[threading.Thread]()

    def wait() -> None:
        threads.append(threading.current_thread())
        gate.wait(PATIENCE)

    async def begin() -> None:
        asyncio.create_task(DaemonThreads(2).call(wait))  # noqa: RUF006  the loop ends at once
        await asyncio.sleep(0)
        await asyncio.to_thread(block_until, lambda: bool(threads))

    asyncio.run(begin())
    (thread,) = threads
    assert thread.is_alive()
    gate.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
