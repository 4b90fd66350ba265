"""Where call-backs end and coroutines begin."""

import asyncio
import contextlib
import gc
import weakref

import pytest

from app.engine.awaited import Awaited

pytestmark = pytest.mark.anyio


class Upload:
    """Something large that a caller holds."""


async def test_the_first_outcome_counts() -> None:
    awaited: Awaited[int] = Awaited()
    awaited.tell(1)
    awaited.tell(2)
    awaited.tell(ValueError("late"))
    assert await awaited.wait() == 1
    awaited.tell(3)  # when nobody waits any more


async def test_an_error_is_raised_and_an_outcome_is_waited_for_once() -> None:
    awaited: Awaited[int] = Awaited()
    awaited.tell(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await awaited.wait()
    with pytest.raises(RuntimeError, match="once"):
        await awaited.wait()


async def test_a_caller_that_failed_leaves_nothing_that_garbage_collection_would_have_to_find() -> None:
    seen: list[weakref.ref[Upload]] = []

    async def caller() -> None:
        upload, awaited = Upload(), Awaited[int]()
        seen.append(weakref.ref(upload))
        asyncio.get_running_loop().call_soon(awaited.tell, ValueError("no"))
        await awaited.wait()
        del upload

    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            await caller()
        await asyncio.sleep(0)  # the turn that woke the caller is over
        assert seen[0]() is None
    finally:
        gc.enable()
