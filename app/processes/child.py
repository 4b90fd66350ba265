"""What a child process is told when it starts, and that it ends with its parent. Imports no torch.

Its standard input is a pipe that only the parent can write to: its first line is the orders, its end the parent's.
"""

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict

from app.settings import Settings
from app.telemetry.log import configure

# How a parent tells its child to stop. Not SIGTERM: systemd, for one, sends that to every process of a service at once,
# and an engine that ended by it would leave the front-ends' last requests without an answer.
STOP = signal.SIGUSR1


class Orders(BaseModel):
    """What one child process needs to know.

    Args:
        process: its name, the same when it is started again.
        listener: the file descriptor of the socket that it accepts connections on.
        folder: of this server alone, while it runs: the engine's socket, and what every process counts.
        front_ends: how many processes answer HTTP.
        address: what people are told.
    """

    model_config = ConfigDict(frozen=True)

    settings: Settings
    process: str
    listener: int
    folder: Path
    front_ends: int
    address: str

    @property
    def engine_socket(self) -> Path:
        return self.folder / "engine"

    @property
    def counts(self) -> Path:
        return self.folder / "counts"

    @classmethod
    def read(cls) -> Self:
        """From standard input; then logging is as the settings say, and the process ends by or with its parent."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        orders = cls.model_validate_json(sys.stdin.readline())
        configure(level=orders.settings.log_level, json_lines=orders.settings.log_format == "json")
        threading.Thread(target=orders.end_with_parent, name="parent", daemon=True).start()
        return orders

    def end_with_parent(self) -> None:
        while sys.stdin.read(1):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)  # as the parent would have, had it not been killed
        os.kill(os.getpid(), STOP)
        time.sleep(self.settings.grace_seconds + 1)
        os._exit(1)
