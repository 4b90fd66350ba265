"""Measures what overload does: photos at twice and at ten times the rate that the server can answer.

    python -m benchmarks.serving.overload [--old TREE] [--edge 2592] [--rounds 3] [--seconds 6] [--json FILE]

Capacity is what 32 clients in a closed loop get. It is measured before and after each overload, and the mean counts. At
a rate, requests become due whatever the server does; the time of each runs from when it was due. The photos are JPEGs
of about 120 kB, whose decoding costs nearly all of an answer: the network is the small one for digits. The clients are
one process on the same cores, so the table says how much of a core they took. With `--old`, another tree of this
project takes turns with this one.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.harness import report, seeded
from benchmarks.harness.barrier import barrier
from benchmarks.harness.clients import Outcome, Plan
from benchmarks.harness.contestants import FLAMBEAU
from benchmarks.harness.processes import Server, running
from benchmarks.harness.rounds import answers

CLOSED_LOOP = 32  # clients
OPEN_LOOP = 512  # connections at a rate: more than are ever on their way at once
TIMES = (2, 10)  # of the capacity
PHOTOS = 4
WARM_UP = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Point:
    """What the server did in one turn.

    Args:
        times: the rate of requests over the capacity; 0 is the closed loop that measures the capacity.
        answers: answers with status 200 per second.
        of_capacity: that over the capacity.
        refused: the share of the requests that were refused with 503.
        lost: how many requests had neither.
        p50, p99, refused_p50, refused_p99: milliseconds until an answer, and until a refusal. None if there were none.
        memory_mb: the most that the server's processes held meanwhile. Shared pages count once for each process.
        clients_cpu: the part of a core that the clients took.
    """

    server: str
    times: float
    answers: float
    of_capacity: float
    refused: float
    lost: int
    p50: float | None
    p99: float | None
    refused_p50: float | None
    refused_p99: float | None
    memory_mb: float
    clients_cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="another tree of this project")
    parser.add_argument("--edge", type=int, default=2592, help="pixels of the longer edge of the photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    arguments = parser.parse_args()
    contestants = [replace(FLAMBEAU[1], name="flambeau")]
    if arguments.old:
        contestants.insert(0, replace(FLAMBEAU[1], name="old", tree=arguments.old.resolve()))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        photos = _photos(folder / "photos", arguments.edge)
        checkpoint = seeded.digits(folder / "seeded.safetensors")
        store = seeded.published(checkpoint, folder / "store")
        ask = partial(answers, images=seeded.drawings(1))
        servers = [
            stack.enter_context(running(each, ask, checkpoint=checkpoint, store=store, log=folder / f"{each.name}.log"))
            for each in contestants
        ]
        points = [
            point
            for _ in range(arguments.rounds)
            for server in servers
            for point in _turn(server, photos, seconds=arguments.seconds)
        ]
        sizes = [path.stat().st_size for path in photos.iterdir()]
    medians = _medians(points)
    _show(medians, f"photos of {arguments.edge} pixels, {statistics.mean(sizes) / 1e3:.0f} kB")
    if arguments.json:
        document = {
            "edge": arguments.edge,
            "bytes": round(statistics.mean(sizes)),
            "machine": report.machine(),
            "medians": [asdict(point) for point in medians],
            "rounds": [asdict(point) for point in points],
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def _turn(server: Server, photos: Path, *, seconds: float) -> Iterator[Point]:
    plan = Plan(server.port, str(photos), CLOSED_LOOP, None, WARM_UP, seconds)
    with server.turn():
        before = _point(server, 0, plan)
        yield before
        for times in TIMES:
            rate = times * before.answers
            overloaded = _point(server, times, replace(plan, clients=OPEN_LOOP, rate=rate))
            after = _point(server, 0, plan)
            capacity = (before.answers + after.answers) / 2
            yield replace(overloaded, of_capacity=round(overloaded.answers / capacity, 3))
            yield after
            before = after


def _point(server: Server, times: float, plan: Plan) -> Point:
    with _peak_memory(server) as peak:
        (said,) = barrier("benchmarks.harness.clients", [[json.dumps(asdict(plan))]])
    outcome = Outcome(**said)
    rate = outcome.measured / plan.seconds
    refused = outcome.failed.pop("503", 0)
    point = Point(
        server=server.name,
        times=times,
        answers=round(rate, 2),
        of_capacity=1.0,
        refused=round(refused / max(outcome.answered, 1), 3),
        lost=sum(outcome.failed.values()),
        p50=_percentile(outcome.latencies, 50),
        p99=_percentile(outcome.latencies, 99),
        refused_p50=_percentile(outcome.refusals, 50),
        refused_p99=_percentile(outcome.refusals, 99),
        memory_mb=round(max(peak)),
        clients_cpu=round(outcome.cpu, 3),
    )
    print(point, file=sys.stderr)
    return point


@contextmanager
def _peak_memory(server: Server) -> Iterator[list[float]]:
    """Notes the server's memory ten times a second, until the block is left."""
    found = [server.memory_mb()]
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            found.append(server.memory_mb())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 1) if values else None


def _photos(folder: Path, edge: int) -> Path:
    """Makes JPEGs of smooth colours with a little noise, of three fourths of the edge in height."""
    folder.mkdir()
    random = np.random.default_rng(seeded.SEED)
    for number in range(PHOTOS):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((edge, edge * 3 // 4), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + random.integers(-4, 5, smooth.shape)
        buffer = BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=60)
        (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
    return folder


def _medians(points: Sequence[Point]) -> list[Point]:
    """Returns one point for each server and rate, each value of which is the median; of `lost`, the sum."""
    groups: dict[tuple[str, float], list[Point]] = {}
    for point in points:
        groups.setdefault((point.server, point.times), []).append(point)
    return [_median(group) for group in groups.values()]


def _median(group: Sequence[Point]) -> Point:
    values: dict[str, float | None] = {}
    for name in ("answers", "of_capacity", "refused", "p50", "p99", "refused_p50", "refused_p99", "clients_cpu"):
        known = [value for value in (getattr(point, name) for point in group) if value is not None]
        values[name] = statistics.median(known) if known else None
    most = max(point.memory_mb for point in group)
    return replace(group[0], **values, lost=sum(point.lost for point in group), memory_mb=most)  # type: ignore[arg-type]


def _show(points: Sequence[Point], title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("server")
    for column in (
        "rate",
        "answers/s",
        "of capacity",
        "p50 ms",
        "p99 ms",
        "refused",
        "p50 ms",
        "p99 ms",
        "lost",
        "memory MB",
        "clients' core",
    ):
        table.add_column(column, justify="right")
    for point in points:
        table.add_row(
            point.server,
            f"{point.times:g}x" if point.times else f"{CLOSED_LOOP} clients",
            f"{point.answers:.1f}",
            f"{point.of_capacity:.0%}",
            *("" if value is None else f"{value:.0f}" for value in (point.p50, point.p99)),
            f"{point.refused:.0%}",
            *("" if value is None else f"{value:.0f}" for value in (point.refused_p50, point.refused_p99)),
            f"{point.lost or ''}",
            f"{point.memory_mb:,.0f}",
            f"{point.clients_cpu:.0%}",
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
