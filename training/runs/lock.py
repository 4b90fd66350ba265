"""Gives a run's folder to one process at a time: two that write the same state would spoil both runs."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from classifier.progress import Progress
from training.errors import TrainingError

_LOOK_SECONDS = 0.1


@contextmanager
def only_run_in(folder: Path, *, patience: float = 0.0, progress: Progress | None = None) -> Iterator[Path]:
    """Gives `folder`, which is made if it is missing, and holds it until the end.

    The operating system releases it if the process is killed.

    Args:
        patience: for so many seconds it is waited for, if another process holds it.
        progress: is told if it must be waited for; None: nobody is.

    Raises:
        TrainingError: another process holds the folder.
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        end = time.monotonic() + patience
        told = progress
        while not _locked(file):
            if time.monotonic() >= end:
                raise TrainingError(
                    f"another run is at work in {folder}; wait for it, or choose another --name or --runs"
                )
            if told is not None:
                told.say(f"another process is at work in {folder}: waiting for it, {patience:.0f} s at most")
                told = None
            time.sleep(_LOOK_SECONDS)
        yield folder


def _locked(file: IO[str]) -> bool:
    """Takes the lock, if nobody has it, and tells whether it did."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
