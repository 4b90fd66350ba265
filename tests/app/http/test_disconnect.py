"""Work that ends when its client hangs up, or when the body comes too slowly."""

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from app.http.disconnect import NOTIFIER, CancelOnDisconnect, ClientDisconnect, DisconnectNotifier
from app.http.problems import Problem
from tests.support.raw import PATIENCE
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


class Messages:
    """What an ASGI server lets an application receive; a test says when."""

    def __init__(self) -> None:
        self.asked = 0
        self.coming: asyncio.Queue[Message] = asyncio.Queue()

    async def receive(self) -> Message:
        self.asked += 1
        return await self.coming.get()


def scope(notifier: DisconnectNotifier | None = None) -> dict[str, Any]:
    return {"state": {} if notifier is None else {NOTIFIER: notifier}}


async def work(scope: dict[str, Any], messages: Messages, *, seconds: float = 60, uploaded: bool = True) -> None:
    """Works until it is ended."""
    with CancelOnDisconnect(scope, messages.receive, upload_seconds=seconds) as working:
        if uploaded:
            working.uploaded()
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().create_future()


class TestWithANotifier:
    async def test_who_hangs_up_ends_the_work_and_no_message_is_waited_for(self) -> None:
        notifier, messages = DisconnectNotifier(), Messages()
        asyncio.get_running_loop().call_soon(notifier.notify)
        with pytest.raises(ClientDisconnect):
            await work(scope(notifier), messages)
        assert messages.asked == 0

    async def test_work_that_has_ended_is_told_no_more(self) -> None:
        notifier = DisconnectNotifier()
        with CancelOnDisconnect(scope(notifier), Messages().receive, upload_seconds=60):
            pass
        notifier.notify()
        await asyncio.sleep(0)  # where a task that was cancelled would notice

    async def test_a_task_that_is_told_twice_can_be_cancelled_afterwards_as_others_can(self) -> None:
        notifier = DisconnectNotifier()
        for _ in range(2):
            asyncio.get_running_loop().call_soon(notifier.notify)
        with pytest.raises(ClientDisconnect):
            await work(scope(notifier), Messages())
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


class TestUnderAnotherServer:
    async def test_a_message_ends_the_work(self) -> None:
        messages = Messages()
        messages.coming.put_nowait({"type": "http.request"})  # some servers say once more that the body is over
        messages.coming.put_nowait({"type": "http.disconnect"})
        with pytest.raises(ClientDisconnect):
            await work(scope(), messages)

    async def test_it_is_waited_for_only_after_the_body_was_read(self) -> None:
        messages = Messages()
        with CancelOnDisconnect(scope(), messages.receive, upload_seconds=60) as working:
            await asyncio.sleep(0)
            assert messages.asked == 0
            working.uploaded()
            await until(lambda: messages.asked == 1)

    async def test_it_is_not_waited_for_after_the_work(self) -> None:
        messages = Messages()
        with CancelOnDisconnect(scope(), messages.receive, upload_seconds=60) as working:
            working.uploaded()
            await until(lambda: messages.asked == 1)
        await asyncio.sleep(0)
        messages.coming.put_nowait({"type": "http.disconnect"})
        await asyncio.sleep(0)
        assert messages.coming.qsize() == 1


async def test_a_body_that_comes_too_slowly_ends_the_work() -> None:
    with pytest.raises(Problem) as raised:
        await work(scope(), Messages(), seconds=0.01, uploaded=False)
    assert raised.value.code == "upload_too_slow"
