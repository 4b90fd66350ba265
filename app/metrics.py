"""What `GET /metrics` shows, in one place."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "flambeau_requests", "Requests answered", ["method", "route", "status"], registry=registry
        )
        self.errors = Counter("flambeau_errors", "Answers that are problems, by code", ["code"], registry=registry)
        self.in_flight = Gauge("flambeau_requests_in_flight", "Requests being answered", registry=registry)
        stages = Histogram(
            "flambeau_stage_seconds",
            "Time of one request in each stage",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.upload_seconds: Callable[[float], None] = stages.labels("upload").observe
        self.decode_seconds: Callable[[float], None] = stages.labels("decode").observe
        self.answer_seconds: Callable[[float], None] = stages.labels("queue_and_compute").observe
        self.compute_seconds = Histogram(
            "flambeau_batch_seconds", "Time to compute one batch", buckets=_SECONDS, registry=registry
        )
        self.batch_items = Histogram(
            "flambeau_batch_items", "Images in one batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self.waiting_items = Gauge("flambeau_waiting_items", "Images waiting for a batch", registry=registry)
        self.loads = Counter("flambeau_loads", "Versions that passed and went live", ["model"], registry=registry)
        self.refusals = Counter("flambeau_refusals", "Versions that were refused", ["model"], registry=registry)
        self.served_version = Gauge("flambeau_served_version", "The version that answers", ["model"], registry=registry)

    def answered(self, method: str, route: str, status: int, problem: str | None) -> None:
        self.requests.labels(method, route, status).inc()
        if problem is not None:
            self.errors.labels(problem).inc()

    def exposition(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
