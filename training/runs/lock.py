"""Gives a run's folder to one process at a time: two that write the same state would spoil both runs."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import TrainingError


@contextmanager
def only_run_in(folder: Path) -> Iterator[Path]:
    """Gives `folder`, which is made if it is missing, and holds it until the end.

    The operating system releases it if the process is killed.

    Raises:
        TrainingError: another process holds the folder.
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"another run is at work in {folder}; wait for it, or choose another --name or --runs"
            ) from error
        yield folder
