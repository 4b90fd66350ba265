"""Measures how cost grows as work grows: images per second, CPU time and memory against one thing at a time.

    python -m benchmarks.serving.scaling [--seconds 3] [--json FILE] [--plot FILE]

The things are the edge of the image, the images in one request, the models that are asked in turns, and the clients.
Each point is one measurement of wrk on a server with one front-end and seeded weights. Needs wrk.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.harness import report, seeded
from benchmarks.harness.chart import INK, OURS
from benchmarks.harness.contestants import FLAMBEAU
from benchmarks.harness.load import Body, Load, body_of, measure
from benchmarks.harness.processes import Server, running

EDGES = (28, 64, 128, 256, 512, 1024)
IMAGES = (1, 2, 4, 8, 16, 32)
MODELS = (1, 10, 50)
CLIENTS = (1, 4, 16, 64, 256, 1000)
USUAL = 32  # clients, while something else varies


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: the thing that varies, its value, and what the server did.

    Args:
        p99: milliseconds until a request was answered.
        memory_mb: of all processes. Shared pages count once for each process.
    """

    against: str
    value: int
    images_per_second: float
    p99: float | None
    cpu_us_per_image: float
    memory_mb: float
    failed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    parser.add_argument("--plot", type=Path, help="the file to write the picture to, .svg or .png")
    arguments = parser.parse_args()
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = seeded.digits(folder / "seeded.safetensors")
        with _serving(checkpoint, folder, models=1) as server:
            measured = partial(_point, server, seconds=arguments.seconds, folder=folder)
            points += [measured("edge", edge, [body_of([_photo(edge)], form=True)], Load(USUAL)) for edge in EDGES]
            for count in IMAGES:
                body = body_of(seeded.drawings(count), form=True)
                points.append(measured("images in a request", count, [body], Load(4, count)))
            one = body_of(seeded.drawings(1), form=True)
            points += [measured("clients", count, [one], Load(count)) for count in CLIENTS]
        for count in MODELS:
            with _serving(checkpoint, folder, models=count) as server:
                bodies = [one._replace(query=f"?model=benchmark-{i}") for i in range(count)]
                points.append(
                    _point(server, "models", count, bodies, Load(USUAL), seconds=arguments.seconds, folder=folder)
                )
    _show(points)
    if arguments.json:
        document = {"machine": report.machine(), "points": [asdict(point) for point in points]}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.plot:
        _draw(arguments.plot, points)


@contextmanager
def _serving(checkpoint: Path, folder: Path, *, models: int) -> Iterator[Server]:
    store = folder / f"store-{models}"
    for i in range(models):
        seeded.published(checkpoint, store, f"benchmark-{i}")
    last = max(path.name for path in store.iterdir())  # models are loaded in this order
    ask = partial(_ask, body=body_of(seeded.drawings(1), form=True), query=f"?model={last}")
    with running(FLAMBEAU[1], ask, checkpoint=checkpoint, store=store, log=folder / "log") as server:
        yield server


def _ask(server: Server, body: Body, query: str) -> None:
    server.post(body.data, body.content_type, query=query)


def _point(
    server: Server, against: str, value: int, bodies: Sequence[Body], load: Load, *, seconds: int, folder: Path
) -> Point:
    with server.turn():
        figures = measure(server, load, bodies, seconds=seconds, folder=folder)
        memory = server.memory_mb()
    point = Point(
        against=against,
        value=value,
        images_per_second=figures.images_per_second,
        p99=figures.p99,
        cpu_us_per_image=figures.cpu_us / load.images,
        memory_mb=memory,
        failed=figures.failed,
    )
    print(point, file=sys.stderr)
    return point


def _photo(edge: int) -> bytes:
    """Makes a JPEG of smooth colours with some noise, which compresses about as well as a photo."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((edge, edge))
    noisy = np.asarray(coarse, np.int16) + random.integers(-12, 13, (edge, edge, 3))
    buffer = BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _show(points: Sequence[Point]) -> None:
    table = Table("against", "value", "images/s", "p99 ms", "CPU µs an image", "memory MB", "failed")
    for point in points:
        table.add_row(
            point.against,
            f"{point.value:,}",
            f"{point.images_per_second:,.0f}",
            "" if point.p99 is None else f"{point.p99:.1f}",
            f"{point.cpu_us_per_image:,.0f}",
            f"{point.memory_mb:,.0f}",
            f"{point.failed or ''}",
        )
    Console(width=110).print(table)


def _draw(path: Path, points: Sequence[Point]) -> None:
    names = list(dict.fromkeys(point.against for point in points))
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplots(2, len(names), sharex="col")
    for column, name in enumerate(names):
        of_name = [point for point in points if point.against == name]
        values = [point.value for point in of_name]
        for row, (title, heights) in enumerate(
            {
                "images/s": [point.images_per_second for point in of_name],
                "memory, MB": [point.memory_mb for point in of_name],
            }.items()
        ):
            place = axes[row][column]
            place.plot(values, heights, marker="o", markersize=4, color=OURS[row], linewidth=2)
            place.set_xscale("log", base=2)
            place.set_xticks(values, [f"{value:,}" for value in values])
            place.minorticks_off()
            place.set_ylim(0, 1.1 * max(heights))
            place.yaxis.set_major_formatter("{x:,.0f}")
            place.tick_params(colors=INK, length=0, labelsize=8)
            place.grid(axis="y", color=INK, alpha=0.25, linewidth=0.8)
            place.spines[:].set_visible(False)
            if row == 1:
                place.set_xlabel(name, color=INK)
            if column == 0:
                place.set_title(title, loc="left", color=INK, fontsize="medium")
    figure.savefig(path, transparent=True, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
