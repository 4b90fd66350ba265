"""What `GET /metrics` shows, for all processes of a server. Counting is adding to a plain number. Imports no torch."""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from app.telemetry.connections import OPEN, OPENED, Connections, connections
from app.telemetry.counters import SharedCounters, series, total

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128)

# By name: what the metric says, and its labels.
_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "flambeau_requests": ("Requests answered", ("method", "route", "status")),
    "flambeau_errors": ("Answers that are problems, by code", ("code",)),
    OPENED: ("Connections opened", ()),
    "flambeau_loads": ("Versions that passed and went live", ("model",)),
    "flambeau_refusals": ("Versions that were refused", ("model",)),
    "flambeau_restarts": ("Restarts of a process that had ended", ("process",)),
}
_GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "flambeau_requests_in_flight": ("Requests being answered", ()),
    OPEN: ("Connections that are open", ()),
    "flambeau_waiting_items": ("Images waiting for a batch", ()),
    "flambeau_served_version": ("The version that answers", ("model",)),
    "flambeau_store_unreadable": ("1 while the store cannot be read, 0 while it can", ()),
}
# The same, and the upper bounds of the buckets.
_HISTOGRAMS: dict[str, tuple[str, tuple[str, ...], tuple[float, ...]]] = {
    "flambeau_stage_seconds": ("Time of one request in each stage", ("stage",), _SECONDS),
    "flambeau_batch_seconds": ("Time to compute one batch", (), _SECONDS),
    "flambeau_batch_items": ("Images in one batch", (), _ITEMS),
}


class Metrics:
    """All metrics of one process. Everything here is called on its event loop.

    Args:
        memory: where each process of this server keeps its numbers, by its name; see `app.telemetry.counters`. None
            means that this is the only process.
        process: its name, the same after it was started again.
    """

    def __init__(self, memory: Mapping[str, int] | None = None, process: str = "") -> None:
        self._memory = memory
        self._counts = counts = SharedCounters(None if memory is None else memory[process])
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Exposed(self._total))
        self._slots: dict[tuple[str, ...], int] = {}
        for name in counts.items():  # an earlier process of this name left what was true when it ended
            if json.loads(name)[0] in _GAUGES:
                counts.values[counts.slot(name)] = 0
        self.waiting_items: Callable[[], float] = lambda: 0
        self._in_flight = self._slot("flambeau_requests_in_flight")
        self._waiting = self._slot("flambeau_waiting_items")
        self._open, self._opened = self._slot(OPEN), self._slot(OPENED)
        self.upload_seconds = self._histogram("flambeau_stage_seconds", "upload")
        self.decode_seconds = self._histogram("flambeau_stage_seconds", "decode")
        self.answer_seconds = self._histogram("flambeau_stage_seconds", "queue_and_compute")
        self.compute_seconds = self._histogram("flambeau_batch_seconds")
        self.batch_items = self._histogram("flambeau_batch_items")

    def connected(self) -> None:
        """Counts a connection that has been opened."""
        self._counts.values[self._open] += 1
        self._counts.values[self._opened] += 1

    def disconnected(self) -> None:
        """Counts a connection that has been closed."""
        self._counts.values[self._open] -= 1

    def connections(self) -> Connections:
        """Returns how many connections all processes have."""
        return connections(self._total())

    def began(self) -> None:
        """Counts a request that has begun."""
        self._counts.values[self._in_flight] += 1

    def ended(self) -> None:
        """Counts a request that is over, answered or not."""
        self._counts.values[self._in_flight] -= 1

    def answered(self, method: str, route: str, status: int, problem: str | None) -> None:
        """Counts an answer, and its error code if it is a problem document."""
        self._add("flambeau_requests", method, route, str(status))
        if problem is not None:
            self.error(problem)

    def error(self, code: str) -> None:
        """Counts a problem, of a whole request or of one image, by its error code."""
        self._add("flambeau_errors", code)

    def refused(self, model: str) -> None:
        """Counts a version that was refused."""
        self._add("flambeau_refusals", model)

    def went_live(self, model: str, version: int) -> None:
        """Counts a version that was loaded, and notes that it answers now."""
        self._add("flambeau_loads", model)
        self._counts.values[self._slot("flambeau_served_version", model)] = version

    def store_is_readable(self, readable: bool) -> None:
        """Notes whether the last look at the store's own folder came to an end."""
        self._counts.values[self._slot("flambeau_store_unreadable")] = not readable

    def note_waiting(self) -> None:
        """Notes what `waiting_items` says now, for other processes that are asked for the metrics."""
        self._counts.values[self._waiting] = self.waiting_items()

    def exposition(self) -> bytes:
        """Returns the metrics of all processes in Prometheus's text format."""
        self.note_waiting()
        return generate_latest(self._registry)

    def _total(self) -> dict[str, float]:
        return self._counts.items() if self._memory is None else total(self._memory.values())

    def _add(self, *name: str) -> None:
        slot = self._slots.get(name)
        self._counts.values[self._slot(*name) if slot is None else slot] += 1

    def _slot(self, *name: str) -> int:
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = self._counts.slot(series(*name))
        return slot

    def _histogram(self, name: str, *labels: str) -> Callable[[float], None]:
        bounds, values = _HISTOGRAMS[name][2], self._counts.values
        slots = [self._slot(name, *labels, str(i)) for i in range(len(bounds) + 1)]
        sum_slot = self._slot(name, *labels, "sum")

        def observe(value: float) -> None:
            values[slots[bisect_left(bounds, value)]] += 1
            values[sum_slot] += value

        return observe


class _Exposed(Collector):
    """Makes the families that Prometheus knows of numbers by their names."""

    def __init__(self, numbers: Callable[[], dict[str, float]]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        by_family: dict[str, dict[tuple[str, ...], float]] = {}
        for name, value in self._numbers().items():
            family, *labels = json.loads(name)
            by_family.setdefault(family, {})[tuple(labels)] = value
        for name, (documentation, labels) in _COUNTERS.items():
            counter = CounterMetricFamily(name, documentation, labels=labels)
            for values, number in by_family.get(name, {}).items():
                counter.add_metric(values, number)
            yield counter
        for name, (documentation, labels) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, documentation, labels=labels)
            for values, number in by_family.get(name, {}).items():
                if number or not labels:  # 0 was left by an earlier process, see Metrics
                    gauge.add_metric(values, number)
            yield gauge
        for name, (documentation, labels, bounds) in _HISTOGRAMS.items():
            yield _histogram_family(name, documentation, labels, bounds, by_family.get(name, {}))


def _histogram_family(
    name: str,
    documentation: str,
    labels: tuple[str, ...],
    bounds: tuple[float, ...],
    numbers: dict[tuple[str, ...], float],
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, documentation, labels=labels)
    limits = [*map(floatToGoString, bounds), "+Inf"]
    for values in dict.fromkeys(values[:-1] for values in numbers):
        counts = accumulate(numbers[(*values, str(i))] for i in range(len(limits)))
        family.add_metric(values, list(zip(limits, counts, strict=True)), numbers[(*values, "sum")])
    return family
