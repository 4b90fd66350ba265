"""Works out how many replicas a load needs, and what the store, the balancer and Prometheus then see.

    python -m benchmarks.scale.sizing

It prints the tables of `docs/scale.md`. What was measured is read from `benchmarks/results`; what is assumed stands
here by its name. Nothing is measured now.
"""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from app.telemetry.metrics import Metrics

RESULTS = Path(__file__).parents[1] / "results"
LOADS = (1e3, 1e5, 1e7)  # images a second

CORES = 2  # of the machine that everything was measured on, and so of a replica
BUSY = 0.7  # assumed: how much of what it can a replica shall do, so that a burst and a lost replica find room
VERSION_BYTES = 45e6  # of a checkpoint of ResNet-18
STORE_BYTES = 1.25e9  # assumed: bytes a second that a store gives to all (10 Gbit/s)
POLLS_A_SECOND = 0.267  # of a replica with one model, in `store_load.json`
SCRAPE_SECONDS = 15  # `deploy/compose/prometheus.yml`


@dataclass(frozen=True, slots=True)
class Work:
    """Is a kind of image and network that was measured.

    Args:
        results: the file with the figures.
        image_bytes: of one image, on average.
    """

    name: str
    results: str
    image_bytes: float

    def rate(self, server: str = "flambeau, front end") -> float:
        """Returns the images a second of a server on two cores, with 32 clients."""
        medians = json.loads((RESULTS / self.results).read_text())["medians"]
        (found,) = (each for each in medians if (each["server"], each["clients"]) == (server, 32))
        return float(found["images_per_second"])


WORKS = (
    Work("28x28 PNG, `mnist_cnn`", "serving.json", 300),
    Work("photo of 0.1 MB, ResNet-18", "serving_photos.json", 114_257),
)
SERVERS = {
    "flambeau": "flambeau, front end",
    "Mosec": "Mosec",
    "LitServe": "LitServe",
    "a plain endpoint": "plain endpoint",
}


def replicas(images_a_second: float, rate: float) -> int:
    """Returns how many replicas do so much, each busy for `BUSY` of its time."""
    return math.ceil(images_a_second / (rate * BUSY))


def core_hours(rate: float) -> float:
    """Returns the core-hours of a million images at full load."""
    return 1e6 / rate * CORES / 3600


def publish_seconds(count: int) -> float:
    """Returns how long the store needs to send a version to all replicas."""
    return count * VERSION_BYTES / STORE_BYTES


def series() -> int:
    """Returns how many time series a replica has that has answered nothing yet."""
    lines = Metrics().exposition().decode().splitlines()
    return sum(not line.startswith("#") for line in lines if line)


def fleet() -> list[str]:
    """Returns the table of loads."""
    titles = (
        "images/s",
        "work",
        "replicas of 2 cores",
        "network in",
        "requests/s of the store",
        "a version reaches all in",
        "Prometheus, samples/s",
    )
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for load in LOADS:
        for work in WORKS:
            count = replicas(load, work.rate())
            cells = [
                f"{load:,.0f}",
                work.name,
                f"{count:,}",
                _bits(load * work.image_bytes),
                f"{count * POLLS_A_SECOND:,.1f}",
                _duration(publish_seconds(count)),
                f"{count * series() / SCRAPE_SECONDS:,.0f}",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def costs() -> list[str]:
    """Returns the table of servers."""
    rows = [
        "| core-hours for a million images | " + " | ".join(SERVERS) + " |",
        "|---" * (1 + len(SERVERS)) + "|",
    ]
    for work in WORKS:
        hours = [core_hours(work.rate(server)) for server in SERVERS.values()]
        rows.append(f"| {work.name} | {' | '.join(f'{each:,.2f}' for each in hours)} |")
    return rows


def _bits(bytes_a_second: float) -> str:
    bits = 8 * bytes_a_second
    for unit, power in (("Tbit/s", 1e12), ("Gbit/s", 1e9), ("Mbit/s", 1e6)):
        if bits >= power:
            return f"{bits / power:,.1f} {unit}"
    return f"{bits / 1e3:,.1f} kbit/s"


def _duration(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def main() -> int:
    print("\n".join(fleet()), "", "\n".join(costs()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
