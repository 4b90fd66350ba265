"""Load by wrk with one thread: what it sends, and the figures that it measures."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness.processes import Server

BOUNDARY = "flambeau-benchmark"
TIMEOUT = 10  # seconds; a slower answer is an error to wrk, and not in the percentiles

# Sends the bodies from files in turns, and prints the figures as one line of JSON.
_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
local bodies, queries = {{}}, {{ {queries} }}
for number = 1, {count} do
  local file = io.open("{folder}/" .. number, "rb")
  bodies[number] = file:read("*a")
  file:close()  -- wrk has room for few files beside its connections
end
wrk.body = bodies[1]
if #bodies > 1 then
  local requests, last = {{}}, 0
  function init()
    for number, body in ipairs(bodies) do requests[number] = wrk.format(nil, wrk.path .. queries[number], nil, body) end
  end
  function request()
    last = last % #requests + 1
    return requests[last]
  end
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{{"requests":%d,"seconds":%f,"p50":%f,"p95":%f,"p99":%f,"refused":%d,"late":%d,"broken":%d}}\\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.timeout, errors.connect + errors.read + errors.write))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop: each client sends its next request as soon as the last one is answered.

    Args:
        clients: how many connections there are.
        images: how many images each request has.
    """

    clients: int
    images: int = 1


@dataclass(frozen=True, slots=True)
class Figures:
    """What one server did under one load.

    Args:
        p50, p95, p99: milliseconds until a request is answered. None for a contestant that answers no requests.
        cpu_us: microseconds of CPU for a request, of all the server's processes.
        refused: how many answers had a status other than 2xx or 3xx.
        late: how many answers took longer than TIMEOUT.
        broken: how many connections could not be made, read or written.
    """

    server: str
    clients: int
    images: int
    requests_per_second: float
    images_per_second: float
    p50: float | None
    p95: float | None
    p99: float | None
    cpu_us: float
    refused: int = 0
    late: int = 0
    broken: int = 0

    @property
    def load(self) -> Load:
        """The load under which it was measured."""
        return Load(self.clients, self.images)

    @property
    def failed(self) -> int:
        """How many requests had no good answer in time."""
        return self.refused + self.late + self.broken


class Body(NamedTuple):
    """The body of a request, with its type, and the query that belongs to it."""

    data: bytes
    content_type: str
    query: str = ""


def body_of(images: Sequence[bytes], *, form: bool) -> Body:
    """Makes a request's body of images. Only a form takes several.

    Raises: ValueError, if there are several images and no form.
    """
    if not form:
        (image,) = images
        return Body(image, "application/octet-stream")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="image"\r\n\r\n'.encode()
    parts = b"".join(head + image + b"\r\n" for image in images)
    return Body(parts + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}")


def request_of(body: Body) -> bytes:
    """Returns the whole request, headers and body, as it goes over a connection."""
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {body.content_type}\r\n"
    return f"{head}Content-Length: {len(body.data)}\r\n\r\n".encode() + body.data


def measure(server: Server, load: Load, bodies: Sequence[Body], *, seconds: int, folder: Path) -> Figures:
    """Runs wrk against the server for so many seconds. Each client sends the bodies in turns.

    Args:
        folder: where wrk's script and the bodies are written.

    Raises: CalledProcessError, if wrk fails.
    """
    for number, body in enumerate(bodies, start=1):
        (folder / str(number)).write_bytes(body.data)
    script = folder / "post.lua"
    queries = ", ".join(f'"{body.query}"' for body in bodies)
    script.write_text(
        _SCRIPT.format(content_type=bodies[0].content_type, count=len(bodies), folder=folder, queries=queries)
    )
    command = ["wrk", "-t1", f"-c{load.clients}", f"-d{seconds}s", f"--timeout={TIMEOUT}s", "-s", str(script)]
    spent = -server.cpu_seconds()
    output = subprocess.run([*command, server.url], check=True, capture_output=True, text=True).stdout
    spent += server.cpu_seconds()
    found = json.loads(output.strip().rpartition("\n")[2])
    rate = (found["requests"] - found["refused"]) / found["seconds"]
    return Figures(
        server=server.name,
        clients=load.clients,
        images=load.images,
        requests_per_second=rate,
        images_per_second=rate * load.images,
        cpu_us=spent / max(found["requests"], 1) * 1e6,
        **{name: found[name] for name in ("p50", "p95", "p99", "refused", "late", "broken")},
    )
