"""Measures our application under Ray Serve, beside the server without Ray: one replica and two, by either proxy.

    python -m benchmarks.serving.ray_serve [--rounds 3] [--seconds 4] [--clients 32] [--json FILE]

Each contestant is started anew for each of its turns, because what Ray runs does not bear to be stopped meanwhile. A
figure is the median of the rounds; the ratio is over the server with a front-end. Needs wrk and the extra `cluster`.
"""

import argparse
import json
import platform
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness import seeded
from benchmarks.harness.contestants import FLAMBEAU, Contestant
from benchmarks.harness.load import Body, Figures, Load, body_of, measure
from benchmarks.harness.processes import running
from classifier.cores import usable_cores

# Without the first, Ray takes another address than loopback.
_RAY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "OMP_WAIT_POLICY": "passive"}
_HA_PROXY = {"RAY_SERVE_ENABLE_HA_PROXY": "1"}
_COMMAND = "-m benchmarks.servers.ray_serve_server {port} {store}"

CONTESTANTS = (
    *reversed(FLAMBEAU),
    *(
        Contestant(f"Ray Serve, {count}, {proxy}", f"{_COMMAND} {count}", _RAY | variables)
        for proxy, variables in (("Ray's proxy", {}), ("HAProxy", _HA_PROXY))
        for count in (1, 2)
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    arguments = parser.parse_args()
    found: dict[str, list[Figures]] = {contestant.name: [] for contestant in CONTESTANTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = seeded.digits(folder / "seeded.safetensors")
        store, body = seeded.published(checkpoint, folder / "store"), body_of(seeded.drawings(1), form=True)
        for _ in range(arguments.rounds):
            for contestant in CONTESTANTS:
                figures = _turn(contestant, body, store, folder, Load(arguments.clients), seconds=arguments.seconds)
                found[contestant.name].append(figures)
    rows = {name: _row(figures, found[FLAMBEAU[1].name]) for name, figures in found.items()}
    _print(rows, clients=arguments.clients)
    if arguments.json:
        machine = f"{platform.machine()}, {usable_cores()} cores, torch {torch.__version__}"
        document = {"machine": machine, "clients": arguments.clients, "rounds": arguments.rounds, "servers": rows}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def _turn(contestant: Contestant, body: Body, store: Path, folder: Path, load: Load, *, seconds: int) -> Figures:
    files = folder / "files"  # Ray's paths of sockets are long: a deeper folder would be too much for the system
    files.mkdir(exist_ok=True)
    with (
        running(
            replace(contestant, environment={**contestant.environment, "RAY_TMPDIR": str(folder)}),
            lambda server: server.post(body.data, body.content_type),
            checkpoint=folder / "seeded.safetensors",
            store=store,
            log=folder / "log",
        ) as server,
        server.turn(),
    ):
        measure(server, load, [body], seconds=1, folder=files)  # it warms up
        return measure(server, load, [body], seconds=seconds, folder=files)


def _row(figures: list[Figures], baseline: list[Figures]) -> dict[str, float]:
    rate, base = (statistics.median(each.requests_per_second for each in some) for some in (figures, baseline))
    rates = [each.requests_per_second for each in figures]
    return {
        "requests_per_second": round(rate, 1),
        "of_flambeau": round(rate / base, 3),
        "spread": round((max(rates) - min(rates)) / rate, 3),
        "p99_ms": round(statistics.median(each.p99 or 0.0 for each in figures), 1),
        "cpu_us": round(statistics.median(each.cpu_us for each in figures), 1),
        "failed": sum(each.failed for each in figures),
    }


def _print(rows: dict[str, dict[str, float]], *, clients: int) -> None:
    heads = ("requests/s", "ratio", "spread", "p99 ms", "CPU µs", "failed")
    table = Table("server", *heads, title=f"{clients} clients, one 28x28 PNG each")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:g}" for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
