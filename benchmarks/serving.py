"""How fast /predict answers: this server beside the plain endpoint, on the same machine in the same run.

    python benchmarks/serving.py CHECKPOINT IMAGE [--rounds 3] [--seconds 5] [--clients 1 32 64]

Servers are up together and take turns, so that a busy moment of the machine meets them all; figures are medians of
the rounds. One image goes out in a multipart form. Needs wrk, and a store made for the occasion from CHECKPOINT.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
BOUNDARY = "flambeau-benchmark"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one server at one number of clients; latencies in ms, CPU in microseconds a request."""

    server: str
    clients: int
    requests_per_second: float
    p50: float
    p99: float
    cpu_us: float
    failed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 32, 64])
    parser.add_argument("--json", type=Path, help="where the figures are kept")
    arguments = parser.parse_args()

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        body, script = _form(arguments.image.read_bytes()), folder / "post.lua"
        script.write_text(_wrk_script(body, folder / "body"))
        servers = [
            stack.enter_context(_plain_endpoint(arguments.checkpoint)),
            stack.enter_context(_flambeau(arguments.checkpoint, folder / "store")),
        ]
        expected = _answer(servers[0], body)
        measured: list[Figures] = []
        for clients in arguments.clients:
            for _ in range(arguments.rounds):
                for server in servers:
                    if _answer(server, body) != expected:
                        sys.exit(f"{server.name} answers differently")
                    measured.append(_measure(server, clients, arguments.seconds, script))
    medians = [_median(measured, server.name, clients) for clients in arguments.clients for server in servers]
    _print(medians)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in medians], indent=1) + "\n")


@contextmanager
def _plain_endpoint(checkpoint: Path) -> Iterator[Server]:
    port = _free_port()
    command = ["-m", "uvicorn", "plain_endpoint:app", "--port", str(port), "--no-access-log", "--log-level", "warning"]
    with _running(
        "plain endpoint", command, port, cwd=HERE / "servers", CHECKPOINT=str(checkpoint.resolve())
    ) as server:
        yield server


@contextmanager
def _flambeau(checkpoint: Path, store: Path) -> Iterator[Server]:
    port = _free_port()
    (store / "benchmark").mkdir(parents=True)
    shutil.copy(checkpoint, store / "benchmark" / "1.safetensors")
    command = ["-m", "app", "--port", str(port), "--store", str(store), "--log-level", "warning"]
    with _running("flambeau", command, port, cwd=HERE.parent) as server:
        yield server


@contextmanager
def _running(name: str, command: list[str], port: int, *, cwd: Path, **environment: str) -> Iterator[Server]:
    process = subprocess.Popen([sys.executable, *command], cwd=cwd, env={**os.environ, **environment})
    try:
        _wait_until_it_answers(port, process)
        yield Server(name, process.pid, port)
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_answers(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        if process.poll() is not None:
            sys.exit("a server ended")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=5):
                time.sleep(1)  # a model that is being loaded
                return
        except OSError:
            time.sleep(0.1)
    sys.exit("a server does not answer")


def _form(image: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="image"\r\n'
    return head.encode() + b"Content-Type: image/png\r\n\r\n" + image + f"\r\n--{BOUNDARY}--\r\n".encode()


def _wrk_script(body: bytes, body_file: Path) -> str:
    body_file.write_bytes(body)
    return (
        f'local file = io.open("{body_file}", "rb")\nwrk.method = "POST"\nwrk.body = file:read("*a")\n'
        f'wrk.headers["Content-Type"] = "multipart/form-data; boundary={BOUNDARY}"\n'
    )


def _answer(server: Server, body: bytes) -> list[tuple[str, float]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/predict",
        body,
        {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310  loopback
        predictions = json.load(response)["predictions"]
    return [(each["label"], round(each["probability"], 3)) for each in predictions]


def _measure(server: Server, clients: int, seconds: int, script: Path) -> Figures:
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", str(script)]
    before = _cpu_seconds(server.pid)
    output = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}/predict"], check=True, capture_output=True, text=True
    ).stdout
    spent = _cpu_seconds(server.pid) - before
    count = int(_found(r"(\d+) requests in", output))
    failures = re.findall(r"Non-2xx or 3xx responses: (\d+)", output)
    failures += re.findall(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    return Figures(
        server=server.name,
        clients=clients,
        requests_per_second=float(_found(r"Requests/sec:\s+([\d.]+)", output)),
        p50=_milliseconds(_found(r"\n +50% +(\S+)", output)),
        p99=_milliseconds(_found(r"\n +99% +(\S+)", output)),
        cpu_us=spent / max(count, 1) * 1e6,
        failed=sum(
            int(number) for failure in failures for number in ([failure] if isinstance(failure, str) else failure)
        ),
    )


def _cpu_seconds(pid: int) -> float:
    """Of the process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _median(measured: list[Figures], server: str, clients: int) -> Figures:
    rounds = [each for each in measured if each.server == server and each.clients == clients]
    return Figures(
        server=server,
        clients=clients,
        requests_per_second=statistics.median(each.requests_per_second for each in rounds),
        p50=statistics.median(each.p50 for each in rounds),
        p99=statistics.median(each.p99 for each in rounds),
        cpu_us=statistics.median(each.cpu_us for each in rounds),
        failed=sum(each.failed for each in rounds),
    )


def _print(medians: list[Figures]) -> None:
    titles = f"{'clients':>7}  {'server':<16}{'requests/s':>11}{'ratio':>7}"
    print(f"{titles}{'p50 ms':>9}{'p99 ms':>9}{'CPU us':>8}{'failed':>8}")
    for each in medians:
        baseline = next(other for other in medians if other.clients == each.clients)
        ratio = each.requests_per_second / baseline.requests_per_second
        print(
            f"{each.clients:>7}  {each.server:<16}{each.requests_per_second:>11,.0f}{ratio:>7.2f}"
            f"{each.p50:>9.2f}{each.p99:>9.2f}{each.cpu_us:>8.0f}{each.failed:>8}"
        )


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        sys.exit(f"wrk said something else:\n{text}")
    return match[1]


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
