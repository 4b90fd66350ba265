"""What signals do to a process that has only just begun, before anything that takes long is imported, or that ends.

Importing takes a second. By default a signal would end the process meanwhile with an error, or do nothing at all: in a
container the server is process 1, to which the system gives no signal that it has no handler for.
"""

import os
import signal

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_on_signals(code: int = 0) -> None:
    """Ends this process at once on SIGTERM or SIGINT, until something else handles them.

    It holds nothing yet, or nothing any more. Signals that the parent has blocked are unblocked, here and so in the
    children. A container that podman starts again begins with SIGUSR1 blocked, by which our children are told to stop.
    """
    for number in _SIGNALS:
        signal.signal(number, lambda *_: os._exit(code))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # last: what has waited is delivered now


def ignore_signals() -> None:
    """Leaves SIGTERM and SIGINT to the parent of this process, or to nobody."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
