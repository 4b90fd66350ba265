"""HAProxy before the pods, in the place of a Service and of an ingress."""

import csv
import io
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.kube.pods import Probe

_PATIENCE = 30.0  # seconds
_LOOK = 0.05  # seconds between two looks
SENDERS = ("service", "ingress")

# A Service shares out connections; an ingress shares out requests, and says here which pod has answered. Both send
# only to pods that they were told of, and that are ready. A connection that is refused was never made: the next pod is
# tried. What was sent once is not sent again.
_CONFIGURATION = """
global
    stats socket {socket} mode 600 level admin
defaults
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retries 3
    option redispatch 1
    option httpchk GET {path}
    default-server check inter {period}s fall {threshold} rise 1
listen service
    mode tcp
    bind 127.0.0.1:{service}
{servers}
listen ingress
    mode http
    bind 127.0.0.1:{ingress}
    http-response set-header flambeau-pod %s
{servers}
"""


@dataclass(frozen=True, slots=True)
class Balancer:
    """Is one HAProxy.

    Args:
        ports: where each of SENDERS listens.
        places: the port of each pod that there may be.
    """

    ports: dict[str, int]
    places: Sequence[int]
    _socket: Path

    def send_to(self, port: int) -> None:
        """Adds a pod, and returns when it gets requests. Raises: AssertionError."""
        self._say(*(f"set server {sender}/{port} state ready" for sender in SENDERS))
        give_up = time.monotonic() + _PATIENCE
        while any(row["status"] != "UP" for row in self._statistics() if row["svname"] == str(port)):
            assert time.monotonic() < give_up, f"haproxy does not see that the pod at {port} is ready"
            time.sleep(_LOOK)

    def send_no_more_to(self, port: int) -> None:
        """Takes a pod out. What it holds goes on."""
        self._say(*(f"set server {sender}/{port} state maint" for sender in SENDERS))

    def tried_again(self) -> int:
        """Returns how many connections to a pod failed, so that another was tried."""
        rows = [row for row in self._statistics() if row["svname"] == "BACKEND"]
        return sum(int(row[name]) for row in rows for name in ("wretr", "wredis", "econ"))

    def _statistics(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self._say("show stat").removeprefix("# "))))

    def _say(self, *commands: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(";".join(commands).encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


@contextmanager
def balancer(folder: Path, readiness: Probe, *, ports: dict[str, int], places: Sequence[int]) -> Iterator[Balancer]:
    """Starts HAProxy, which asks as the readiness probe does, and ends it.

    Raises: AssertionError, if it does not start.
    """
    servers = "\n".join(f"    server {port} 127.0.0.1:{port} disabled" for port in places)
    control = folder / "haproxy.socket"
    control.unlink(missing_ok=True)
    configuration = folder / "haproxy.cfg"
    path = "/" + readiness.url.split("/", 3)[3]
    values = {"period": readiness.period, "threshold": readiness.threshold, "path": path, "servers": servers}
    configuration.write_text(_CONFIGURATION.format(socket=control, **values, **ports))
    log = folder / "haproxy.log"
    with log.open("w") as file:
        process = subprocess.Popen(["haproxy", "-db", "-f", str(configuration)], stdout=file, stderr=file)
    try:
        give_up = time.monotonic() + _PATIENCE
        while not control.exists():
            starts = process.poll() is None and time.monotonic() < give_up
            assert starts, f"haproxy does not start: {log.read_text()}"
            time.sleep(_LOOK)
        yield Balancer(ports, places, control)
    finally:
        process.terminate()
        process.wait()
