"""Containers of the image, and questions to the server inside."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.container.engine import Engine

PATIENCE = 180.0  # seconds; a deadline, not a pace
_LOOK = 0.2  # seconds between two looks at a container
LOCKED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
WITH_TMP = (*LOCKED, "--tmpfs", "/tmp")  # noqa: S108  a mount point in a container

# The container has no network but its own loopback address: nobody else is asked, and no port of this machine is used.
_ASK = """
import sys, urllib.error, urllib.request
method, path, file, port = sys.argv[1:]
body = open(file, "rb").read() if file else None
headers = {"Content-Type": "image/png"} if file else {}
request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, headers, method=method)
try:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print(0, error)
"""

_CLEAR = """
import shutil
from pathlib import Path
for path in Path("/files").iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()
"""


@dataclass(frozen=True, slots=True)
class Container:
    """Is one container that runs, or has run."""

    engine: Engine
    name: str
    port: int = 8000

    def ask(self, path: str, *, method: str = "GET", file: str = "") -> tuple[int, str]:
        """Returns status and body; the status is 0 if nobody answers."""
        words = ("exec", "-i", self.name, "python", "-", method, path, file, str(self.port))
        said = self.engine.call(*words, text=_ASK, may_fail=True)
        status, _, body = said.stdout.strip().partition(" ")
        return int(status or 0), body

    def state(self) -> Any:
        """Returns what `docker inspect` says of its state."""
        return self.engine.state(self.name)

    def wait_until(self, what: str, fulfilled: Callable[[], bool]) -> None:
        """Raises: AssertionError, with the end of the log, if the container ends before or the time is up."""
        give_up = time.monotonic() + PATIENCE
        while not fulfilled():
            assert self.state()["Running"], f"it has ended and was never {what}:\n{self.log()}"
            assert time.monotonic() < give_up, f"it is not {what}:\n{self.log()}"
            time.sleep(_LOOK)

    def ready(self) -> "Container":
        """Waits until a model is served."""
        self.wait_until("ready", lambda: self.ask("/health/ready")[0] == 200)
        return self

    def ended_within(self, seconds: float) -> bool:
        """Waits at most so long for its end."""
        give_up = time.monotonic() + seconds
        while self.state()["Running"]:
            if time.monotonic() > give_up:
                return False
            time.sleep(_LOOK)
        return True

    def log(self) -> str:
        """Returns the last lines that it wrote."""
        return self.engine.log(self.name)


@dataclass(frozen=True, slots=True)
class Image:
    """Is the image under test.

    Args:
        files: this machine's folder with a store and an image to ask about.
    """

    engine: Engine
    tag: str
    files: Path

    def clear(self) -> None:
        """Takes away what containers wrote into the folder; this machine's user may not."""
        words = ("run", "--rm", "-i", "--network", "none", "--volume", f"{self.files}:/files", self.tag, "python", "-")
        self.engine.call(*words, text=_CLEAR, may_fail=True)

    @contextmanager
    def serving(self, *options: str, command: tuple[str, ...] = (), port: int = 8000) -> Iterator[Container]:
        """Starts the server in a container, and takes the container away at the end.

        Args:
            options: of `docker run`.
            command: instead of the image's own; empty: the image's own.
        """
        mounts = ("--volume", f"{self.files}/store:/models_store:ro", "--volume", f"{self.files}:/files:ro")
        words = ("run", "--detach", "--network", "none", *mounts, *options, self.tag, *command)
        container = Container(self.engine, self.engine.call(*words).stdout.strip(), port)
        try:
            yield container
        finally:
            self.engine.call("rm", "--force", "--volumes", container.name)
