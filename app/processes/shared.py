"""What the processes of one running server share, and what outlives each of them. Imports no torch.

All of it is held by file descriptors, which children inherit. So nothing depends on a folder that somebody cleans, and
none has to be writable.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from app.ipc.rendezvous import Rendezvous, rendezvous
from app.processes.errors import CannotStart
from app.telemetry.counters import allocate


@dataclass(frozen=True, slots=True)
class Shared:
    """The memory in which each process counts, by the name of the process, and where front-ends meet the engine."""

    counters: dict[str, int]
    rendezvous: Rendezvous


@contextmanager
def shared(processes: Iterable[str]) -> Iterator[Shared]:
    """Makes what these processes share, and closes it in the end.

    Raises: CannotStart.
    """
    with ExitStack() as stack:
        counters = {}
        try:
            for process in processes:
                counters[process] = allocate()
                stack.callback(os.close, counters[process])
            meeting = stack.enter_context(rendezvous())
        except OSError as error:
            raise CannotStart(
                f"there is nothing that the processes could count in ({error.strerror}): allow more memory, files or "
                "file size (ulimit), on systems other than Linux set TMPDIR to a folder that can be written to, or "
                "choose --front-ends 0, which needs none"
            ) from error
        yield Shared(counters, meeting)
