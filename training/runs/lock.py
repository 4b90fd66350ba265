"""A run's folder belongs to one process at a time: two that wrote the same state would spoil both runs."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import TrainingError


@contextmanager
def only_run_in(folder: Path) -> Iterator[Path]:
    """`folder`, made if need be and held until the end; a process that is killed lets go of it, too.

    Raises: TrainingError if another process holds it; OSError.
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
