"""What a child process is told when it starts, and that it ends with its parent. Imports no torch.

Its standard input is a pipe that only the parent can write to. The first line is its configuration. The end of the
pipe is the end of the parent.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import Self

from pydantic import BaseModel, ConfigDict, Secret, SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

from app.settings import Settings
from app.telemetry.log import configure

# How a parent tells its child to stop. Not SIGTERM: systemd, for one, sends that to every process of a service at once,
# and an engine that ended by it would leave the front-ends' last requests without an answer.
STOP = signal.SIGUSR1

# How it tells a front-end before that to drain; see `app.http.draining`.
DRAIN = signal.SIGUSR2


class ChildConfig(BaseModel):
    """What one child process needs to know.

    Args:
        settings: those of the whole server.
        process: its name, the same when it is started again.
        listener: the file descriptor of the port; None if it answers no HTTP.
        rendezvous: the file descriptor of its side of the rendezvous; see `app.ipc.rendezvous`.
        counters: the file descriptors of the memory in which each process counts, by the name of the process.
        front_ends: how many processes answer HTTP.
        address: the URL that the log names.
    """

    model_config = ConfigDict(frozen=True)

    settings: Settings
    process: str
    listener: int | None
    rendezvous: int
    counters: dict[str, int]
    front_ends: int
    address: str

    @property
    def descriptors(self) -> list[int]:
        """Returns all that it inherits."""
        listeners = [] if self.listener is None else [self.listener]
        return [*listeners, self.rendezvous, *self.counters.values()]

    def line(self) -> bytes:
        """All of it as one line of JSON, secrets included: only the child can read the pipe."""
        return json.dumps(self.model_dump(), default=_revealed).encode() + b"\n"

    @classmethod
    def read(cls) -> Self:
        """Reads the line from standard input.

        From then on the process logs as the settings say, and ends when its parent says so or has ended.
        """
        config = cls.model_validate_json(sys.stdin.readline())
        configure(level=config.settings.log_level, json_lines=config.settings.log_format == "json")
        threading.Thread(target=config._end_with_parent, name="parent", daemon=True).start()
        return config

    def _end_with_parent(self) -> None:
        """Waits for the parent's end, then ends this process as a signal would, and at last by force."""
        while sys.stdin.read(1):
            pass
        os.kill(os.getpid(), STOP)
        time.sleep(self.settings.grace_seconds + 1)
        os._exit(1)


def _revealed(value: object) -> object:
    """Returns what JSON cannot say by itself, as pydantic says it, but for secrets: pydantic would say asterisks."""
    if isinstance(value, Secret | SecretStr | SecretBytes):
        return value.get_secret_value()
    return to_jsonable_python(value)
