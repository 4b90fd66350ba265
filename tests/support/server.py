"""The real server as a process, on a free port of the loopback address."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds; a deadline, not a pace

Event = dict[str, Any]


class ServerProcess:
    """A running `python -m app`, whose log can be waited for.

    `events` are the logged events that a test has waited for or passed over. A line that is no JSON is an event, too.
    `url` and `port` are where the server answers.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.events: list[Event] = []
        self._queue: queue.Queue[Event] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.url: str = self.wait_for(lambda event: "address" in event)["address"]
        self.port = int(self.url.rpartition(":")[2])

    def wait_for(self, wanted: Callable[[Event], bool]) -> Event:
        """Returns the next logged event that is wanted. It may have come already.

        The test fails if the event does not come in time, or if the server ends before.
        """
        while True:
            event = self._queue.get(timeout=PATIENCE)
            self.events.append(event)
            if wanted(event):
                return event
            assert event["event"] != "ended", f"the server has ended: {self.events}"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal, waits for the end of the server, and returns its exit code."""
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
def serving(
    store: Path | str, *flags: str, environment: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> Iterator[ServerProcess]:
    """Starts a server of `store`, and yields it once it has logged what it serves. The server ends with the block.

    Args:
        within: a command that becomes the one behind it, as `env` does.
    """
    command = [sys.executable, "-m", "app", "--store", str(store), "--port", "0", "--log-format", "json", *flags]
    process = subprocess.Popen(
        [*within, *command],
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
