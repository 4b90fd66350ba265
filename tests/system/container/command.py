"""What the commands of both checks share: their folder, their signals, and their exit codes."""

import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.system.container.errors import CannotCheck


def exit_code(name: str, folder: Path | None, check: Callable[[Path], int]) -> int:
    """Runs a check, and returns its exit code: 2, with one line, if this machine cannot check.

    Args:
        name: of the command, as make knows it.
        folder: where the check keeps its files; None: in a folder that goes with it.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):  # what was started ends, and nothing stays mounted
        signal.signal(number, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            return check((folder or Path(stack.enter_context(_temporary(name)))).resolve())
    except CannotCheck as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def _temporary(name: str) -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix=f"flambeau-{name}-", ignore_cleanup_errors=True)
