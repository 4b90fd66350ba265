"""`GET /metrics` has what is promised, and counts it."""

from collections.abc import Callable

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.checkpoints import png
from tests.support.engines import ScriptedEngine
from tests.support.http_side import HttpSide, http_side
from tests.support.raw import request
from tests.support.waiting import until

PREDICT = "/predict?model=digits"

Sample = Callable[..., float]


def samples(exposition: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


class Growth:
    """Says how much each series has grown since the object was made."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._before = samples(read())

    def of(self, name: str, **labels: str) -> float:
        key = name, frozenset(labels.items())
        return samples(self._read())[key] - self._before.get(key, 0)


@pytest.fixture
def growth(client: httpx2.Client) -> Growth:
    return Growth(lambda: client.get("/metrics").text)


def value(client: httpx2.Client, name: str, **labels: str) -> float:
    return samples(client.get("/metrics").text)[name, frozenset(labels.items())]


def test_it_is_in_the_text_format_of_prometheus(client: httpx2.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert all(family.documentation for family in text_string_to_metric_families(answer.text))


def test_answers_are_counted_by_method_route_and_status(client: httpx2.Client, growth: Growth) -> None:
    for _ in range(3):
        client.post(PREDICT, files={"file": png()})
    client.post(PREDICT, files={"file": b"x"})
    client.get("/models/digits")
    client.get("/models/none")
    client.head("/models/digits")
    assert growth.of("flambeau_requests_total", method="POST", route="/predict", status="200") == 3
    assert growth.of("flambeau_requests_total", method="POST", route="/predict", status="422") == 1
    assert growth.of("flambeau_requests_total", method="GET", route="/models/{model}", status="200") == 1
    assert growth.of("flambeau_requests_total", method="GET", route="/models/{model}", status="404") == 1
    assert growth.of("flambeau_requests_total", method="HEAD", route="/models/{model}", status="200") == 1


def test_errors_are_counted_by_code(client: httpx2.Client, growth: Growth) -> None:
    client.post(PREDICT, files={"file": b"x"})
    client.post(f"{PREDICT}&version=9", files={"file": png()})
    client.get("/nothing")
    client.delete("/models")
    for code in ("bad_image", "version_not_found", "not_found", "method_not_allowed"):
        assert growth.of("flambeau_errors_total", code=code) == 1


def test_addresses_that_a_client_makes_up_make_no_series(client: httpx2.Client, growth: Growth) -> None:
    for i in range(5):
        client.get(f"/made/up/{i}")
        client.get(f"/models/made-up-{i}")
    assert growth.of("flambeau_requests_total", method="GET", route="none", status="404") == 5
    assert "made" not in client.get("/metrics").text


def test_each_stage_of_a_prediction_is_timed(client: httpx2.Client, growth: Growth) -> None:
    for _ in range(3):
        client.post(PREDICT, files={"file": png()})
    for stage in ("upload", "decode", "queue_and_compute"):
        assert growth.of("flambeau_stage_seconds_count", stage=stage) == 3
        assert growth.of("flambeau_stage_seconds_sum", stage=stage) > 0


def test_batches_are_counted_with_their_images_and_their_time(client: httpx2.Client, growth: Growth) -> None:
    client.post(PREDICT, files=[("file", png(1)), ("file", png(2))])
    assert growth.of("flambeau_batch_items_sum") == 2
    assert growth.of("flambeau_batch_seconds_count") == growth.of("flambeau_batch_items_count") >= 1


def test_what_is_served_loaded_and_refused_is_told_by_model(client: httpx2.Client) -> None:
    assert value(client, "flambeau_served_version", model="digits") == 2
    assert value(client, "flambeau_served_version", model="letters") == 1
    assert value(client, "flambeau_loads_total", model="digits") == 1
    assert value(client, "flambeau_refusals_total", model="digits") >= 1


def test_nothing_waits_where_nothing_is_asked(client: httpx2.Client) -> None:
    assert value(client, "flambeau_waiting_items") == 0
    assert value(client, "flambeau_requests_in_flight") == 1  # the one that asks


@pytest.mark.anyio
async def test_requests_in_flight_are_told_while_they_are() -> None:
    engine = ScriptedEngine()
    engine.gate.clear()

    def in_flight(side: HttpSide) -> float:
        return samples(side.metrics.exposition().decode())["flambeau_requests_in_flight", frozenset()]

    async with http_side(engine) as side, side.connection() as answered, side.connection() as left:
        for client in (answered, left):
            await client.send(request(body=png()))
            await engine.submitted.get()
        assert in_flight(side) == 2
        left.hang_up()
        await engine.cancelled.get()
        engine.gate.set()
        await answered.response()
        await until(lambda: in_flight(side) == 0)


def test_the_errors_of_single_images_are_counted_by_code(client: httpx2.Client, growth: Growth) -> None:
    files = [("file", ("a.png", png())), ("file", ("b.png", b"x")), ("file", ("c.pdf", b"%PDF-1.7"))]
    assert client.post(PREDICT, files=files).status_code == 200
    assert growth.of("flambeau_errors_total", code="bad_image") == 1
    assert growth.of("flambeau_errors_total", code="unsupported_format") == 1


@pytest.mark.anyio
async def test_what_is_refused_before_there_is_a_request_is_counted_too() -> None:
    async with http_side(ScriptedEngine()) as side:
        async with side.connection() as client:
            await client.send(b"no such protocol\r\n\r\n")
            assert (await client.response()).status_code == 400
        growth = samples(side.metrics.exposition().decode())
    assert growth["flambeau_errors_total", frozenset({("code", "bad_request")})] == 1
