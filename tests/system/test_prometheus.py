"""The server beside Prometheus, as deploy/compose sets both up: what is scraped, and what people are told by it."""

import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from app.telemetry.metrics import Metrics
from tests.support.server import PROJECT, ServerProcess
from tests.support.waiting import block_until

FOLDER = PROJECT / "deploy" / "compose"
CONFIGURATION = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
COMPOSE = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())
SCRAPED = CONFIGURATION["scrape_configs"][0]

Query = Callable[[str], list[float]]


def test_what_is_scraped_is_the_service_of_the_project_s_own_compose_file_at_its_port() -> None:
    base = COMPOSE["services"]["app"]["extends"]
    assert (FOLDER / base["file"]).resolve() == PROJECT / "docker-compose.yml"
    service = yaml.safe_load((FOLDER / base["file"]).read_text())["services"][base["service"]]
    port = service["ports"][0].rpartition(":")[2]
    assert SCRAPED["static_configs"] == [{"targets": [f"app:{port}"]}]


def test_what_is_mounted_is_there_and_where_it_is_looked_for() -> None:
    mounted = dict(each.split(":")[:2] for each in COMPOSE["services"]["prometheus"]["volumes"] if each.startswith("."))
    assert all((FOLDER / path).is_file() for path in mounted)
    assert "/etc/prometheus/prometheus.yml" in mounted.values()
    assert {f"/etc/prometheus/{each}" for each in CONFIGURATION["rule_files"]} <= set(mounted.values())


def test_every_alert_asks_for_a_metric_and_a_label_that_there_are() -> None:
    exposition = Metrics().exposition().decode()
    for alert in ALERTS:
        for name in re.findall(r"flambeau_\w+", alert["expr"]):
            assert f"# TYPE {name} " in exposition, name
    assert {alert["expr"] for alert in ALERTS if "up{" in alert["expr"]} == {f'up{{job="{SCRAPED["job_name"]}"}} == 0'}


@pytest.fixture
def prometheus(server: ServerProcess, tmp_path: Path) -> Iterator[Query]:
    """Prometheus with our configuration, which reads the shared server; asks it for the values of an expression."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    targets = [server.url.removeprefix("http://")]
    scraped = SCRAPED | {
        "static_configs": [{"targets": targets}],
        "scrape_interval": "200ms",
        "scrape_timeout": "200ms",
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(CONFIGURATION | {"scrape_configs": [scraped]}))
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    command = [program, "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, stderr=log) as process,
        httpx2.Client(base_url=f"http://{address}") as client,
    ):

        def answers(path: str) -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return client.get(path).status_code == 200
            except httpx2.TransportError:
                return False

        def query(expression: str) -> list[float]:
            found = client.get("/api/v1/query", params={"query": expression}).json()
            assert found["status"] == "success", found
            return [float(each["value"][1]) for each in found["data"]["result"]]

        try:
            block_until(lambda: answers("/-/ready"))
            yield query
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_real_prometheus_reads_the_server_and_none_of_the_alerts_that_say_it_is_ill(prometheus: Query) -> None:
    block_until(lambda: prometheus("up") == [1.0])
    block_until(lambda: prometheus("flambeau_served_version") != [])
    assert sorted(prometheus("flambeau_served_version")) == [1.0, 2.0]
    assert prometheus("flambeau_store_unreadable") == [0.0]
    for alert in ALERTS:
        assert prometheus(alert["expr"]) == [], alert["alert"]
