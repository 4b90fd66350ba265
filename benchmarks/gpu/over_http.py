"""What reaches users of a GPU: the whole server under HTTP clients that send photos."""

import json
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.gpu.utilization import busy_percent, median
from benchmarks.harness import seeded
from benchmarks.harness.barrier import barrier
from benchmarks.harness.clients import Outcome, Plan
from benchmarks.harness.contestants import Competitor
from benchmarks.harness.load import body_of
from benchmarks.harness.processes import Server, running
from benchmarks.harness.seeded import store_of
from classifier.cores import usable_cores

PART = 0.7  # of the most that the server can do, where latency is measured
CORES_FOR_ONE = 8  # one process of clients for so many cores; it sends 10,000 photos a second or more


@dataclass(frozen=True, slots=True)
class Http:
    """`python -m app`, one photo in each request.

    Args:
        rate: requests per second that were due; None: in a closed loop.
        p50, p99: milliseconds; None where nothing was answered.
        cpu_us: microseconds of CPU for a request, of all the server's processes.
        failed: requests by what became of them, as of benchmarks.harness.clients.
        clients_cpu: of the busiest process of clients, at most 1; near 1, the clients are the limit.
    """

    network: str
    precision: str
    clients: int
    rate: float | None
    images_per_second: float
    p50: float | None
    p99: float | None
    busy: float | None
    cpu_us: float
    failed: dict[str, int]
    clients_cpu: float


def http(
    network: str,
    precisions: Sequence[str],
    several_clients: Sequence[int],
    photos: Path,
    *,
    device: str,
    seconds: float,
) -> Iterator[Http]:
    """In closed loops with so many clients; then at a part of the best of their rates."""
    front_ends = max(1, usable_cores() - 1)
    with store_of(network) as store:
        for precision in precisions:
            competitor = Competitor(
                "flambeau",
                f"-m app --port {{port}} --store {{store}} --device {device} --precision {precision}"
                f" --front-ends {front_ends} --log-level warning",
            )
            checkpoint = store / network / "1.safetensors"
            with (
                running(competitor, _ask, checkpoint=checkpoint, store=store, log=store.parent / "log") as server,
                server.turn(),
            ):
                measured = partial(_http, server, network=network, precision=precision, photos=photos, device=device)
                best = 0.0
                for clients in several_clients:
                    figures = measured(clients, rate=None, seconds=seconds)
                    best = max(best, figures.images_per_second)
                    yield figures
                if best:
                    yield measured(max(several_clients), rate=PART * best, seconds=2 * seconds)


def _http(
    server: Server,
    clients: int,
    *,
    rate: float | None,
    seconds: float,
    network: str,
    precision: str,
    photos: Path,
    device: str,
) -> Http:
    spent = -server.cpu_seconds()
    with busy_percent(device) as samples:
        outcomes = _outcomes(server.port, clients, rate=rate, seconds=seconds, photos=photos)
    spent += server.cpu_seconds()
    latencies = [latency for outcome in outcomes for latency in outcome.latencies]
    cuts = statistics.quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else None
    return Http(
        network=network,
        precision=precision,
        clients=clients,
        rate=rate,
        images_per_second=sum(outcome.measured for outcome in outcomes) / seconds,
        p50=cuts[49] if cuts else None,
        p99=cuts[98] if cuts else None,
        busy=median(samples),
        cpu_us=spent / max(1, sum(outcome.answered for outcome in outcomes)) * 1e6,
        failed=dict(sum((Counter(outcome.failed) for outcome in outcomes), Counter())),
        clients_cpu=max(outcome.cpu for outcome in outcomes),
    )


def _outcomes(port: int, clients: int, *, rate: float | None, seconds: float, photos: Path) -> list[Outcome]:
    """Of each process that has some of the clients."""
    processes = min(clients, max(1, usable_cores() // CORES_FOR_ONE))
    plans = [
        Plan(
            port=port,
            photos=str(photos),
            clients=clients // processes + (i < clients % processes),
            rate=None if rate is None else rate / processes,
            warm_up=seconds / 4,
            seconds=seconds,
        )
        for i in range(processes)
    ]
    said = barrier("benchmarks.harness.clients", [[json.dumps(asdict(plan))] for plan in plans])
    return [Outcome(**each) for each in said]


def _ask(server: Server) -> None:
    body = body_of(seeded.drawings(1), form=True)
    server.post(body.data, body.content_type)
