"""Servers as processes: they are started, take turns, are asked for their CPU time, and are ended.

A server that waits for its turn is stopped by SIGSTOP, because some servers use a core while they are idle.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.contestants import Contestant

PATIENCE = 120.0  # seconds within which a server has to answer
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs.

    Args:
        takes_form: whether an image comes in a multipart form.
        started_in: the seconds from its start to its first answer.
    """

    name: str
    pid: int
    port: int
    takes_form: bool
    started_in: float

    @property
    def url(self) -> str:
        """Where it takes images."""
        return f"http://127.0.0.1:{self.port}/predict"

    def post(self, body: bytes, content_type: str, *, query: str = "") -> Any:
        """Posts a body, and returns the document that the server answers. Raises: OSError."""
        request = urllib.request.Request(self.url + query, body, {"Content-Type": content_type})  # noqa: S310  loopback
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310  loopback
            return json.load(response)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Lets this server run until the block is left, while all others are stopped."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            time.sleep(1)  # it answers what the clients have left behind
            self._signal(signal.SIGSTOP)

    def cpu_seconds(self) -> float:
        """Returns the CPU time of all its processes so far, those that have ended included."""
        return sum(seconds for _, seconds in _family(self.pid).values())

    def memory_mb(self) -> float:
        """Returns the memory of all its processes now. Shared pages count once for each process."""
        return sum(_resident_mb(pid) for pid in _family(self.pid))

    def _signal(self, number: signal.Signals) -> None:
        for pid in _family(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def running(
    contestant: Contestant, ask: Callable[[Server], object], *, checkpoint: Path, store: Path | str, log: Path
) -> Iterator[Server]:
    """Starts a server, waits until it answers, and stops it until its turn. In the end it is ended.

    A server that does not answer ends the benchmark, with the last of its log.

    Args:
        ask: asks the server something. It raises OSError as long as there is no answer.
        log: the file that the server's output goes to. Its folder takes the temporary files.
    """
    port = _free_port()
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *contestant.arguments(port=port, store=str(store))],
            cwd=contestant.tree,
            env=contestant.environment_with(checkpoint=str(checkpoint), scratch=str(log.parent)),
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the benchmark, which ends its servers
        )
    server = Server(contestant.name, process.pid, port, contestant.takes_form, 0.0)
    try:
        if not _answers(server, process, ask):
            sys.exit(f"{server.name} does not answer:\n{log.read_text(errors='replace')[-4000:]}")
        server = replace(server, started_in=time.monotonic() - began)
        with server.turn():
            pass
        yield server
    finally:
        _end(server, process)


def _answers(server: Server, process: "subprocess.Popen[bytes]", ask: Callable[[Server], object]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            ask(server)
            return True
        except OSError:  # no connection yet, or no model
            time.sleep(0.02)
    return False


def _end(server: Server, process: "subprocess.Popen[bytes]") -> None:
    family = _family(server.pid)
    server._signal(signal.SIGCONT)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(15)
    for pid in family:  # the processes that it has not ended itself
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _family(pid: int) -> dict[int, tuple[int, float]]:
    """Finds a process and all its descendants.

    Returns: By process: its parent, and the CPU seconds of it and of its children that have ended.
    """
    processes: dict[int, tuple[int, float]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()
            processes[int(path.parent.name)] = int(fields[1]), sum(map(int, fields[11:15])) / _TICKS
    family: dict[int, tuple[int, float]] = {}
    grown = {pid}
    while grown:
        family |= {number: processes[number] for number in grown if number in processes}
        grown = {number for number, (parent, _) in processes.items() if parent in family and number not in family}
    return family


def _resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:  # it has ended meanwhile
        return 0.0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
