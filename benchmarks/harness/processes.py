"""Servers as processes: started, held still while it is another's turn, asked for their CPU time, ended.

Those that wait for their turn are stopped (SIGSTOP): some burn a core while they are idle.
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
    """One that runs; `started_in` is the time, in seconds, from its start until it first answered."""

    name: str
    pid: int
    port: int
    takes_form: bool
    started_in: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/predict"

    def post(self, body: bytes, content_type: str, *, query: str = "") -> Any:
        """Its answer, from JSON. Raises: OSError."""
        request = urllib.request.Request(self.url + query, body, {"Content-Type": content_type})  # noqa: S310  loopback
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310  loopback
            return json.load(response)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """It runs, and it alone."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            time.sleep(1)  # what clients have left behind is answered
            self._signal(signal.SIGSTOP)

    def cpu_seconds(self) -> float:
        """Of all its processes so far, with those that have ended."""
        return sum(seconds for _, seconds in _family(self.pid).values())

    def memory_mb(self) -> float:
        """Of all its processes now; pages that they share count once for each."""
        return sum(_resident_mb(pid) for pid in _family(self.pid))

    def _signal(self, number: signal.Signals) -> None:
        for pid in _family(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def running(
    contestant: Contestant, ask: Callable[[Server], object], *, checkpoint: Path, store: Path, log: Path
) -> Iterator[Server]:
    """A server that answers, held still until its turn; ends the benchmark where it does not.

    Args:
        ask: asks it something. Raises: OSError, as long as it does not answer.
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
    for pid in family:  # what it has not ended itself
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _family(pid: int) -> dict[int, tuple[int, float]]:
    """A process and all its descendants: each one's parent, and the seconds of CPU of it and its ended children."""
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
