"""The real server process, on a free loopback port."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds; a deadline, not a pace

Event = dict[str, Any]


class ServerProcess:
    """`python -m app`, with its log at hand."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.events: list[Event] = []
        self._queue: queue.Queue[Event] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.url: str = self.wait_for(lambda event: "address" in event)["address"]
        self.port = int(self.url.rpartition(":")[2])

    def wait_for(self, wanted: Callable[[Event], bool]) -> Event:
        """The next logged event that is wanted, which may have come already; fails the test if it does not come."""
        while True:
            event = self._queue.get(timeout=PATIENCE)
            self.events.append(event)
            if wanted(event):
                return event
            assert event["event"] != "ended", f"the server has ended: {self.events}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self._queue.put(json.loads(line))
            except ValueError:
                self._queue.put({"event": line})
        self._queue.put({"event": "ended"})


@contextmanager
def serving(store: Path, *flags: str, environment: Mapping[str, str] | None = None) -> Iterator[ServerProcess]:
    """A server of `store`, once it has said what it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "--store", str(store), "--port", "0", "--log-format", "json", *flags],
        cwd=PROJECT,
        env={**os.environ, **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    reader = None
    try:
        server = ServerProcess(process)
        reader = server.reader
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        if reader is not None:
            reader.join(PATIENCE)  # until the last of its processes has ended
        if process.stderr is not None:
            process.stderr.close()
