"""The temporary folder of one running server: the engine's socket, and what every process counts. Imports no torch."""

import socket
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.processes.errors import CannotStart
from app.telemetry.counters import SharedCounters


def engine_socket(folder: Path) -> Path:
    """Where the engine process listens."""
    return folder / "engine"


def counters(folder: Path) -> Path:
    """Returns the folder in which each process keeps its numbers, in files of its own name."""
    return folder / "counts"


@contextmanager
def temporary_folder(processes: Iterable[str]) -> Iterator[Path]:
    """Makes the folder, with room for all that these processes count, and removes it in the end.

    Raises: CannotStart.
    """
    with ExitStack() as stack:
        try:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="flambeau-", ignore_cleanup_errors=True))
            folder = Path(name)
            counters(folder).mkdir()
            for process in processes:
                SharedCounters(counters(folder) / process).close()
        except OSError as error:
            raise CannotStart(
                f"no temporary folder can be made ({error.strerror}): set TMPDIR to a folder that can be written to, "
                "or --front-ends 0, which needs none"
            ) from error
        yield folder


def listen(listener: socket.socket, folder: Path) -> None:
    """Makes the engine's socket. Raises: CannotStart."""
    try:
        listener.bind(str(engine_socket(folder)))
    except OSError as error:
        raise CannotStart(f"no socket can be made in {folder} ({error}): set TMPDIR to another folder") from error
    listener.listen()
