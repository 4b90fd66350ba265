"""`python -m app`: settings, the port, and then a supervisor with its processes, or one process that does it all.

`python -m app score` serves nobody: it scores images offline (`app.scoring`).
"""

from app.processes.early_signals import end_on_signals, ignore_signals

if __name__ == "__main__":
    end_on_signals()  # before the imports below, which take their time

import asyncio
import atexit
import contextlib
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence

from app.processes.announce import address_of
from app.processes.errors import CannotStart
from app.processes.supervisor import Supervisor
from app.settings import Settings, SettingsError
from app.telemetry.log import configure
from classifier.cores import find_cores


def main(arguments: Sequence[str]) -> int:
    """Serves until a signal or a failure, or scores images.

    Returns: The exit code: 0 after a signal, 1 after a failure, 2 for what has to be put right first. Errors of the
        last kind are one line on standard error. Other exceptions are faults of the program, and pass through. Those
        of scoring stand in `app.scoring.command.main`.
    """
    if arguments[:1] == ["score"]:
        from app.scoring import command

        return command.main(arguments[1:])
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch's threads, here or in a child, spin no core away
    try:
        settings = Settings.read(arguments)
        configure(level=settings.log_level, json_lines=settings.log_format == "json")
        _allow_open_files(settings)
        listener = _listen(settings.host, settings.port)
        address = address_of(settings.host, listener)
        cores = find_cores()
        cores.bound_libraries(os.environ)
        front_ends = cores.count - 1 if settings.front_ends is None else settings.front_ends
        if front_ends:
            return asyncio.run(Supervisor(settings, front_ends=front_ends, listener=listener, address=address).run())
        return _run_single(settings, listener, address)
    except (SettingsError, CannotStart) as error:
        print(f"flambeau: {error}", file=sys.stderr)
        return 2


def _run_single(settings: Settings, listener: socket.socket, address: str) -> int:
    try:
        # Here, not above: the settings are checked, and --help is shown, without waiting for torch.
        from app.processes import single
    except ImportError as error:
        raise CannotStart(str(error)) from error
    return single.run(settings, listener, address)


def _allow_open_files(settings: Settings) -> None:
    """Raises the limit of open files as far as the connections need it and the system lets us.

    Shells often set a limit of 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * settings.max_connections + 512  # as many again are open while they are told that there are too many
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS allows fewer than its hard limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen(host: str, port: int) -> socket.socket:
    """Binds the port before anything is loaded, so that a port that is taken is reported at once.

    Raises: CannotStart.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with --host and --port"
        ) from error
    return listener


if __name__ == "__main__":
    if sys.argv[1:2] == ["score"]:  # its signals are exceptions, so that what it has is kept
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    code = main(sys.argv[1:])
    end_on_signals(code)  # the event loop has left no handlers; a signal that comes so late changes no exit code
    atexit.register(ignore_signals)  # once no thread is left: while Python itself ends, it takes handlers away
    sys.exit(code)
