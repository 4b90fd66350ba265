"""Processes that begin to work at the same moment, for work that one Python process cannot do fast enough.

Each process is a module that imports no torch. It says that it is ready, waits for the word to begin, and prints one
line of JSON in the end.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.contestants import ROOT

_READY = "ready"


def barrier(module: str, arguments: Sequence[Sequence[str]]) -> list[Any]:
    """Runs the module once with each of these arguments, and returns what each process printed.

    Raises: RuntimeError, if a process ends before it has printed its line.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, *each], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for each in arguments
    ]
    try:
        for process in processes:
            _line(process)
        for process in processes:
            _tell(process)
        return [json.loads(_line(process)) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def wait_for_the_others() -> None:
    """Is called by such a process when it is ready. Returns when all of them are."""
    print(_READY, flush=True)
    sys.stdin.readline()


def _tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("begin\n")
    process.stdin.flush()


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process has ended too early: {process.args!r}")
    return line
