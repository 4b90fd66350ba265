"""`python -m app.processes.healthcheck`: asks the server of this container whether it is alive. Linux alone.

It asks at the address where the server really listens, whatever flags or variables it was started with: the system says
it of each process. `FLAMBEAU_PORT` would not do, which `--port` overrides, and which Kubernetes sets to an address.
"""

import http.client
import re
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

_PROC = Path("/proc")
_LISTENING = "0A"  # the state in /proc/net/tcp, as in Linux's <net/tcp_states.h>
_SECONDS = 3.0
_COMMAND = re.compile(rb"\0-[A-Za-z]*m\0app\0")  # also -um app


def main(proc: Path = _PROC) -> int:
    """Returns the exit code: 0 if every server here is alive; otherwise 1, and one line says why."""
    addresses = sorted(set(find_servers(proc)))
    if not addresses:
        return _fail("no server listens here")
    for host, port in addresses:
        connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
        try:
            with closing(connection):
                connection.request("GET", "/health/live", headers={"connection": "close"})
                with connection.getresponse() as answer:
                    status = answer.status
        except (OSError, http.client.HTTPException) as error:
            return _fail(f"no answer from {host}:{port}: {error}")
        if status != 200:
            return _fail(f"{host}:{port} answers {status}")
    return 0


def find_servers(proc: Path = _PROC) -> Iterator[tuple[str, int]]:
    """Gives host and port of each `python -m app` that this process sees, and that has its file system."""
    for process in proc.iterdir():
        try:
            if process.name.isdecimal() and _is_server(process) and _same_container(process, proc):
                sockets = {str(link.readlink()) for link in (process / "fd").iterdir()}
                for table in ("tcp", "tcp6"):
                    yield from _listening(process / "net" / table, sockets)
        except OSError:  # it has just ended, or is somebody else's
            continue


def _is_server(process: Path) -> bool:
    return _COMMAND.search((process / "cmdline").read_bytes()) is not None


def _same_container(process: Path, proc: Path) -> bool:
    return (process / "ns/mnt").readlink() == (proc / "self/ns/mnt").readlink()


def _listening(table: Path, sockets: set[str]) -> Iterator[tuple[str, int]]:
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTENING and f"socket:[{fields[9]}]" in sockets:
            host, _, port = fields[1].partition(":")
            yield _address(host), int(port, 16)


def _address(hexadecimal: str) -> str:
    """Returns the address to ask at. The table has words of four bytes, in the order of the machine."""
    words = [int(hexadecimal[i : i + 8], 16) for i in range(0, len(hexadecimal), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if not any(packed):
        return "127.0.0.1" if len(words) == 1 else "::1"
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def _fail(message: str) -> int:
    print(f"flambeau: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
