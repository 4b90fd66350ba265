"""Simulates what many servers do to one store behind a URL: while nothing happens, and when a version is published.

    python -m benchmarks.scale.store_load [--json FILE]

Servers are started together, as a rollout does it, and poll for an hour. Then a version is published. Each server
finds it when it polls next, reads its header, and fetches it. The store gives so many bytes a second to all, in equal
shares, and to none more than its own connection carries. What a server does afterwards (verifying, 0.1 to 2 s) is left
out, as the store has no part in it.

What was measured here: a poll is one request and one for each model; a new version costs one request for its header
and one for its content (`tests/app/lifecycle/test_remote_storage.py`); one server fetched 45 MB in 0.10 s over
loopback, from a real S3 server. The bandwidth of the store is an assumption, and named as one.
"""

import argparse
import heapq
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results" / "store_load.json"
SERVERS = (1, 10, 100, 1000)
SHORTEST_WAITS = (1.0, 0.9, 0.5, 0.0)  # the shortest wait, in parts of the longest; 1: there is no jitter
_WINDOW = 0.1  # seconds, in which requests are counted for the peak


@dataclass(frozen=True, slots=True)
class Setup:
    """Says who asks, and how much there is to fetch.

    Args:
        shortest_wait: each wait is a random part of `poll_seconds`, from this one to all of it.
        connection_bytes: bytes a second that one server can take.
        store_bytes: bytes a second that the store gives to all (assumed).
    """

    servers: int
    shortest_wait: float
    poll_seconds: float = 10.0
    models: int = 1
    version_bytes: float = 45e6
    connection_bytes: float = 450e6
    store_bytes: float = 1.25e9
    started_within_seconds: float = 1.0
    idle_seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Load:
    """Is what the store sees.

    Args:
        requests_a_second: on average, while nothing happens.
        peak_requests: in the busiest tenth of a second of the hour, the first minute left out.
        fetched_bytes: by all servers, for one version.
        most_fetching: servers that fetch at the same time.
        first_seconds, last_seconds: from publishing until the first, and until the last server has it.
    """

    requests_a_second: float
    peak_requests: int
    fetched_bytes: float
    most_fetching: int
    first_seconds: float
    last_seconds: float


def simulate(setup: Setup, seed: int = 0) -> Load:
    """Returns what the store sees, for one draw of all waits."""
    draw = random.Random(seed)
    requests_a_poll = 1 + setup.models
    windows: Counter[int] = Counter()
    found: list[float] = []
    polls = 0
    for _ in range(setup.servers):
        at = draw.uniform(0, setup.started_within_seconds)
        while at < setup.idle_seconds:
            polls += 1
            windows[int(at / _WINDOW)] += requests_a_poll
            at += setup.poll_seconds * draw.uniform(setup.shortest_wait, 1)
        found.append(at - setup.idle_seconds)
    settled = [count for window, count in windows.items() if window * _WINDOW >= 60]
    ends, most = fetched(sorted(found), setup)
    return Load(
        requests_a_second=polls * requests_a_poll / setup.idle_seconds,
        peak_requests=max(settled),
        fetched_bytes=setup.servers * setup.version_bytes,
        most_fetching=most,
        first_seconds=ends[0],
        last_seconds=ends[-1],
    )


def fetched(begins: Sequence[float], setup: Setup) -> tuple[list[float], int]:
    """Returns when each of those who begin to fetch then is done, and how many fetch at once.

    All who fetch have equal shares, so what each has got since the beginning is the same function of time, `got`. One
    is done when it has grown by a version's bytes.
    """
    now = got = 0.0
    most = 0
    waiting, done, due = list(reversed(begins)), [], list[float]()
    while waiting or due:
        most = max(most, len(due))
        share = min(setup.connection_bytes, setup.store_bytes / max(1, len(due)))
        until_done = (due[0] - got) / share if due else float("inf")
        if waiting and waiting[-1] - now < until_done:
            got += share * (waiting[-1] - now) if due else 0.0
            now = waiting.pop()
            heapq.heappush(due, got + setup.version_bytes)
        else:
            now += until_done
            got = heapq.heappop(due)
            done.append(now)
    return done, most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    columns = {"servers": 8, "waits from": 12, "requests/s": 12, "peak in 0.1 s": 15, "fetching": 10, "first s": 9}
    print("".join(f"{name:>{width}}" for name, width in columns.items()) + f"{'last s':>9}")
    for servers in SERVERS:
        for shortest in SHORTEST_WAITS:
            setup = Setup(servers, shortest)
            load = simulate(setup)
            rows.append({"setup": asdict(setup), "load": asdict(load)})
            print(
                f"{servers:>8,}{shortest:>12g}{load.requests_a_second:>12.1f}{load.peak_requests:>15,}"
                f"{load.most_fetching:>10,}{load.first_seconds:>9.2f}{load.last_seconds:>9.2f}"
            )
    arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
