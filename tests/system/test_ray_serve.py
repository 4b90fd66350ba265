"""Ray Serve on a cluster of a head and two nodes: all replicas answer, versions go forward only, and a node may die."""

import itertools
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.checkpoints import checkpoint, png, publish
from tests.support.cluster import needed
from tests.support.ray_cluster import RayCluster, environment, ray_cluster
from tests.support.server import PATIENCE, PROJECT
from tests.support.waiting import block_until

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

_SERVE = """
import sys
import ray
from ray import serve
from app.processes.ray_serve import Replicas, application
ray.init(address=sys.argv[1], log_to_driver=False)
serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
serve.run(application(Replicas(store=sys.argv[3], device="cpu", poll_seconds=0.5, min_replicas=2)))
print("serving", flush=True)
sys.stdin.read()
serve.shutdown()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(nodes=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    publish(store, 1, checkpoint(1))
    return store


@pytest.fixture(scope="module")
def url(cluster: RayCluster, store: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, cluster.address, str(port), str(store)],
        cwd=PROJECT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any(line.strip() == "serving" for line in process.stdout)
        yield f"http://127.0.0.1:{port}"
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def client(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url, timeout=PATIENCE) as client:
        yield client


def predicted(client: httpx2.Client, **headers: str) -> httpx2.Response:
    return client.post("/predict", content=png(), headers={"content-type": "image/png", **headers})


def answered_by_one(client: httpx2.Client) -> int:
    """How many predictions the replica has answered that is asked now: each counts its own."""
    lines = client.get("/metrics").text.splitlines()
    predictions = [line for line in lines if line.startswith("flambeau_requests_total") and "/predict" in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in predictions)


def test_every_replica_answers_as_one_server_does(client: httpx2.Client) -> None:
    count = 40
    for _ in range(count):
        answer = predicted(client)
        assert answer.status_code == 200
        assert answer.json()["version"] == 1
    assert 0 < max(answered_by_one(client) for _ in range(20)) < count
    assert client.get("/health/ready").json()["status"] == "ready"
    assert [model["name"] for model in client.get("/models").json()["models"]] == ["digits"]
    assert "/predict" in client.get("/openapi.json").json()["paths"]
    assert client.post("/predict", content=b"no image").json()["code"] == "bad_image"


def test_a_client_that_says_what_it_has_seen_never_gets_an_older_version(client: httpx2.Client, store: Path) -> None:
    publish(store, 2, checkpoint(2))
    seen, answers = 1, Counter[int]()
    for _ in itertools.takewhile(lambda _: answers[2] < 200, itertools.count()):
        answer = predicted(client, **{"Flambeau-Min-Version": str(seen)})
        if answer.status_code == 503:
            assert answer.json()["code"] == "behind"
            assert answer.headers["retry-after"] == "1"
            continue
        assert answer.status_code == 200
        assert answer.json()["version"] >= seen
        seen = answer.json()["version"]
        answers[seen] += 1


def test_a_node_that_is_killed_loses_no_more_than_it_held(cluster: RayCluster, client: httpx2.Client) -> None:
    stop, outcomes = threading.Event(), Counter[int]()

    def ask() -> None:
        with httpx2.Client(base_url=client.base_url, timeout=PATIENCE) as own:
            while not stop.is_set():
                outcomes[predicted(own).status_code] += 1

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    block_until(lambda: outcomes[200] > 50)
    cluster.kill_node()
    before = outcomes[200]
    block_until(lambda: outcomes[200] > before + 200)
    stop.set()
    for thread in asking:
        thread.join()
    assert sum(outcomes.values()) - outcomes[200] <= len(asking) * 2  # what was being answered there


@pytest.mark.parametrize(
    ("said", "code"), [("store='elsewhere', max_batch=16", 0), ("nonsense=1", 2), ("max_batch='many'", 1)]
)
def test_what_is_said_is_a_setting_of_the_server_or_refused(said: str, code: int) -> None:
    needed("ray")
    script = f"from app.processes.ray_serve import Replicas; assert Replicas({said}).settings.max_batch == 16"
    ended = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, check=False)
    assert ended.returncode == code, ended.stderr
