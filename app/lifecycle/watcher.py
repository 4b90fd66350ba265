"""When to look at the store: whenever it changes, and now and then in any case."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

from watchfiles import awatch

from app.telemetry.log import event

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """Says when to look."""

    def changes(self) -> AsyncGenerator[None, None]:
        """Yields whenever there may be something new; for ever."""


class Poller:
    """Says it now and then, because a store behind a URL announces nothing.

    Args:
        poll_seconds: how long a change may stay unseen. Each wait is a random part of it, from half to all, so that
            servers that were started together do not go on to ask together.
    """

    def __init__(self, *, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yields after each wait; for ever."""
        while True:
            await asyncio.sleep(self._poll_seconds * random.uniform(0.5, 1))
            yield


class FolderWatcher:
    """Watches a folder that may be absent, or may come and go.

    Args:
        poll_seconds: how long a change may stay unseen where the file system does not announce it.
    """

    def __init__(self, folder: Path, *, poll_seconds: float) -> None:
        self._folder = folder
        self._poll_seconds = poll_seconds

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yields whenever anything below the folder changes, and after `poll_seconds` without a change; for ever."""
        told = ""
        while True:
            try:
                async for _ in awatch(
                    self._folder,
                    watch_filter=None,
                    debounce=200,
                    rust_timeout=int(self._poll_seconds * 1000),
                    yield_on_timeout=True,
                    ignore_permission_denied=True,
                ):
                    yield
                    if not self._folder.is_dir():
                        break
            except (OSError, RuntimeError) as error:  # RuntimeError: where no more watchers may run, say
                if self._folder.is_dir() and str(error) != told:
                    told = str(error)
                    event(logger, "cannot watch the store; looking now and then", level=logging.WARNING, reason=told)
            await asyncio.sleep(self._poll_seconds)
            yield
