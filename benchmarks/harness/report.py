"""Reports figures: as a table for people, and as JSON with the machine, the medians and each round."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness.load import Figures
from classifier.cores import usable_cores

_PACKAGES = ("torch", "torchvision", "pillow", "fastapi", "uvicorn", "litserve", "mosec")


def show(medians: Sequence[Figures], *, title: str, baseline: str | None) -> None:
    """Prints the table. For `baseline` see `ratios`."""
    table = Table(title=title, title_justify="left")
    table.add_column("clients", justify="right")
    table.add_column("server")
    for column in ("images/s", "ratio", "p50 ms", "p95 ms", "p99 ms", "CPU µs", "failed"):
        table.add_column(column, justify="right")
    before = medians[0].load
    for each, ratio in zip(medians, ratios(medians, baseline), strict=True):
        if each.load != before:
            table.add_section()
        before = each.load
        table.add_row(
            f"{each.clients}" if each.images == 1 else f"{each.clients} ({each.images} images each)",
            each.server,
            f"{each.images_per_second:,.0f}" if each.images_per_second >= 100 else f"{each.images_per_second:.1f}",
            f"{ratio:.2f}",
            *("" if value is None else f"{value:.1f}" for value in (each.p50, each.p95, each.p99)),
            f"{each.cpu_us:,.0f}",
            f"{each.failed}" if each.failed else "",
        )
    Console(width=110).print(table)


def keep(
    path: Path,
    medians: Sequence[Figures],
    rounds: Sequence[Figures],
    *,
    about: Mapping[str, Any],
    baseline: str | None,
) -> None:
    """Writes the JSON, with the values of `about` first. For `baseline` see `ratios`."""
    rows = [
        _row(each) | {"ratio": round(ratio, 3)} for each, ratio in zip(medians, ratios(medians, baseline), strict=True)
    ]
    document = {**about, "machine": machine(), "medians": rows, "rounds": [_row(each) for each in rounds]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def ratios(medians: Sequence[Figures], baseline: str | None) -> list[float]:
    """Divides each rate of images by that of the server `baseline` under the same load.

    Without a baseline, each rate is divided by the server's own rate under the first load.
    """
    rates = {(each.server, each.load): each.images_per_second for each in medians}
    first = medians[0].load
    return [
        each.images_per_second / (rates[each.server, first] if baseline is None else rates[baseline, each.load])
        for each in medians
    ]


def _row(figures: Figures) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(figures).items()}


def machine() -> dict[str, Any]:
    """Describes what the figures were measured on: processor, system, load and versions."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if shutil.which("wrk"):
        found["wrk"] = subprocess.run(["wrk", "-v"], check=False, capture_output=True, text=True).stdout.split()[1]
    return found
