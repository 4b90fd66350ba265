"""The tasks of an engine that work until it closes: when one ends before that, the engine has failed."""

import asyncio
from collections.abc import Coroutine, Iterable


class BackgroundTasks:
    """Named tasks on one event loop, and the news that one of them has died."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()  # is set when a task has ended that should not have
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._error: BaseException | None = None
        self._closing = False

    def start(self, name: str, work: Coroutine[None, None, None]) -> None:
        """Runs `work` as a task of that name, until `close`."""
        task = self._tasks[name] = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)

    def ended(self) -> list[str]:
        """Names the tasks that work no longer."""
        return [name for name, task in self._tasks.items() if task.done()]

    async def failure(self) -> BaseException:
        """Waits until a task has died, and says why. May wait for ever."""
        await self.failed.wait()
        return self._error or RuntimeError("a background task has ended")

    async def close(self, *, cancel: Iterable[str]) -> None:
        """Cancels the tasks that are named, and waits for all of them. An end is no failure from now on."""
        self._closing = True
        for name in cancel:
            if name in self._tasks:
                self._tasks[name].cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._closing:
            self._error = None if task.cancelled() else task.exception()
            self.failed.set()
