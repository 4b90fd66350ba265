"""Deadlines: those that are late are told, in their order, and no others."""

import asyncio

import pytest

from app.http.deadlines import Deadlines
from tests.support.raw import PATIENCE

pytestmark = pytest.mark.anyio


class Told:
    """Notes who was late."""

    def __init__(self, seconds: float) -> None:
        self.late: list[str] = []
        self.deadlines = Deadlines(seconds, self._tell)
        self._news = asyncio.Event()

    async def until(self, *late: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.late != list(late):
                self._news.clear()
                await self._news.wait()

    def _tell(self, who: str) -> None:
        self.late.append(who)
        self._news.set()


async def test_those_that_do_not_end_are_late_in_their_order() -> None:
    told = Told(0.01)
    for who in ("first", "second", "third"):
        told.deadlines.begin(who)
    told.deadlines.end("second")
    await told.until("first", "third")


async def test_nobody_is_late_before_its_time() -> None:
    loop = asyncio.get_running_loop()
    told = Told(0.02)
    told.deadlines.begin("ends, and its timer serves the next")
    began = loop.time()
    told.deadlines.begin("late")
    told.deadlines.end("ends, and its timer serves the next")
    await told.until("late")
    assert loop.time() - began > 0.019  # the loop counts in milliseconds


async def test_after_a_pause_there_is_a_timer_again() -> None:
    told = Told(0.01)
    for who in ("one", "another"):
        told.deadlines.begin(who)
        await told.until(*told.late, who)
    assert told.late == ["one", "another"]


async def test_what_has_ended_or_did_not_begin_may_end_again() -> None:
    told = Told(0.01)
    told.deadlines.begin("in time")
    for _ in range(2):
        told.deadlines.end("in time")
    told.deadlines.begin("late")
    await told.until("late")


async def test_one_whose_call_back_fails_keeps_no_other_from_being_told(caplog: pytest.LogCaptureFixture) -> None:
    told = list[str]()
    all_told = asyncio.Event()

    def late(who: str) -> None:
        if who == "broken":
            raise ZeroDivisionError("a bug")
        told.append(who)
        all_told.set()

    deadlines = Deadlines(0.01, late)
    for who in ("broken", "second"):
        deadlines.begin(who)
    async with asyncio.timeout(PATIENCE):
        await all_told.wait()
    assert told == ["second"]
    assert "ZeroDivisionError: a bug" in caplog.text
