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


async def test_there_are_no_more_at_once_than_there_may_be_also_where_nobody_waits_any_more() -> None:
    threads, gate, running = DaemonThreads(2), threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        running.release()
        gate.wait(PATIENCE)

    waiting = [asyncio.create_task(threads.call(wait)) for _ in range(3)]
    for _ in range(2):
        assert await asyncio.to_thread(running.acquire, timeout=PATIENCE)
    waiting[0].cancel()  # its thread goes on
    await asyncio.wait(waiting[:1])
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.acquire(blocking=False)
    gate.set()
    await asyncio.gather(*waiting[1:])
    assert running.acquire(blocking=False)


async def test_where_the_system_has_no_thread_left_it_is_an_error_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = DaemonThreads(1)
    with monkeypatch.context() as patch:

        def none_left(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", none_left)
        for _ in range(3):
            with pytest.raises(OSError, match="no thread left"):
                await threads.call(divmod, 7, 2)
    assert await threads.call(divmod, 7, 2) == (3, 1)


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
