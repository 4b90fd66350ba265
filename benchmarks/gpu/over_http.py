"""Measures what reaches users of a GPU: the whole server under HTTP clients that send photos."""

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
from benchmarks.harness.contestants import Contestant
from benchmarks.harness.load import body_of
from benchmarks.harness.processes import Server, running
from benchmarks.harness.seeded import store_of
from classifier.cores import usable_cores

PART = 0.7  # latency is measured at this part of the server's best rate
CORES_FOR_ONE = 8  # so many cores get one process of clients, which sends 10,000 photos a second or more


@dataclass(frozen=True, slots=True)
class Http:
    """What `python -m app` did, with one photo in each request.

    Args:
        rate: how many requests per second were due. None is a closed loop.
        p50, p99: milliseconds until a request was answered. None if nothing was answered.
        busy: the percentage of the time in which the GPU computed something. None if it is not known.
        cpu_us: microseconds of CPU for a request, of all the server's processes.
        failed: the number of failed requests by reason, see `benchmarks.harness.clients.Outcome`.
        clients_cpu: the part of a core that the busiest process of clients used. Near 1, the clients are the limit.
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
    """Measures closed loops with each number of clients, and then a fixed rate, which is a part of the best one."""
    front_ends = max(1, usable_cores() - 1)
    with store_of(network) as store:
        for precision in precisions:
            contestant = Contestant(
                "flambeau",
                f"-m app --port {{port}} --store {{store}} --device {device} --precision {precision}"
                f" --front-ends {front_ends} --log-level warning",
            )
            checkpoint = store / network / "1.safetensors"
            with (
                running(contestant, _ask, checkpoint=checkpoint, store=store, log=store.parent / "log") as server,
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
    """Divides the clients among processes. Returns what each process has seen."""
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
