"""GET /models, GET /models/{model} and POST /models/{model}/reload, through HTTP."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from classifier.manifest import Code, Manifest
from tests.support import programs
from tests.support.answers import CheckProblem
from tests.support.checkpoints import DIGITS, checkpoint, png, publish, saying
from tests.support.server import ServerProcess, serving


def test_all_models_are_listed_by_name_with_all_their_versions_the_newest_first(client: httpx2.Client) -> None:
    models = client.get("/models").json()["models"]
    assert [(model["name"], model["served_version"]) for model in models] == [("digits", 2), ("letters", 1)]
    versions = [(version["version"], version["state"]) for version in models[0]["versions"]]
    assert versions == [(3, "refused"), (2, "ready"), (1, "available")]


def test_a_model_is_what_it_is_in_the_list(client: httpx2.Client) -> None:
    for model in client.get("/models").json()["models"]:
        assert client.get(f"/models/{model['name']}").json() == model


def test_the_served_version_tells_what_it_was_made_of_and_where_it_is(client: httpx2.Client) -> None:
    _, served, _ = client.get("/models/digits").json()["versions"]
    assert served["reason"] is None
    assert served["architecture"] == "mnist_cnn"
    assert served["labels"] == list("0123456789")
    assert served["input"] == DIGITS.model_dump(mode="json")
    assert served["device"] == "cpu"
    assert served["file_size"] > 100_000
    assert len(served["sha256"]) == 64
    loaded_at = datetime.fromisoformat(served["loaded_at"])
    assert timedelta() <= datetime.now(UTC) - loaded_at < timedelta(hours=1)


def test_what_a_manifest_does_not_say_is_null(client: httpx2.Client) -> None:
    _, served, _ = client.get("/models/digits").json()["versions"]
    assert [served[name] for name in ("metrics", "calibration", "out_of_distribution", "provenance")] == [None] * 4


def test_whatever_a_manifest_may_say_is_shown(client: httpx2.Client) -> None:
    """But for the format's number, and the model's name, which is the folder's; `preprocess` is called `input`."""
    _, served, _ = client.get("/models/digits").json()["versions"]
    assert set(Manifest.model_fields) - {"format", "model", "preprocess"} <= set(served)


def test_one_that_is_not_loaded_tells_what_its_file_says_and_no_device(client: httpx2.Client) -> None:
    *_, available = client.get("/models/digits").json()["versions"]
    assert available["labels"] == list("0123456789")
    assert (available["device"], available["loaded_at"], available["reason"]) == (None, None, None)


def test_a_refused_one_tells_why_and_nothing_it_cannot_know(client: httpx2.Client) -> None:
    refused = client.get("/models/digits").json()["versions"][0]
    assert refused["reason"]
    assert refused["file_size"] == len(b"no checkpoint")
    assert (refused["architecture"], refused["labels"], refused["input"], refused["sha256"]) == (None,) * 4


def test_a_reload_that_finds_nothing_new_says_what_is_served(client: httpx2.Client) -> None:
    answer = client.post("/models/letters/reload")
    assert answer.status_code == 200
    assert answer.json() == {"model": "letters", "served_version": 1, "changed": False, "refused": []}


def test_a_reload_whose_newest_file_is_refused_is_a_conflict_with_the_reason(client: httpx2.Client) -> None:
    answer = client.post("/models/digits/reload")
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert (document["model"], document["served_version"], document["changed"]) == ("digits", 2, False)
    (refused,) = document["refused"]
    assert refused["version"] == 3
    assert refused["reason"] == client.get("/models/digits").json()["versions"][0]["reason"]


@pytest.mark.slow
def test_a_version_says_whether_its_network_is_a_program_and_of_which_code_it_was_made(tmp_path: Path) -> None:
    text = "class Net: ..."
    code = Code(file="own.py", sha256=hashlib.sha256(text.encode()).hexdigest(), text=text)
    own = saying(programs.checkpoint(), code=code)
    publish(tmp_path, 1, checkpoint(1))
    publish(tmp_path, 2, own)
    publish(tmp_path, 3, b"no checkpoint")
    with serving(tmp_path, "--device", "cpu", "--front-ends", "1") as server:
        refused, exported, named = httpx2.get(f"{server.url}/models/digits").json()["versions"]
    assert own.manifest.program is not None
    assert exported["state"] == "ready"
    assert exported["architecture"] == "own.py:Net"
    assert exported["program"] == "exported"
    assert exported["exported"] == own.manifest.program.model_dump(mode="json")
    assert exported["code"] == {"file": code.file, "sha256": code.sha256}  # without the text
    assert (named["program"], named["exported"], named["code"]) == ("named", None, None)
    assert (refused["program"], refused["exported"], refused["code"]) == (None, None, None)


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[tuple[ServerProcess, Path]]:
    """A server of `digits` 1 with a front-end, and the file of that version."""
    path = publish(tmp_path, 1, checkpoint(1))
    with serving(tmp_path, "--device", "cpu", "--front-ends", "1", "--poll-seconds", "3600") as server:
        yield server, path


def sha256(server: ServerProcess) -> str:
    told: str = httpx2.get(f"{server.url}/models/digits").json()["versions"][0]["sha256"]
    return told


@pytest.mark.slow
def test_a_reload_sees_a_checkpoint_that_was_copied_over_the_served_one_with_its_times(
    changing: tuple[ServerProcess, Path], tmp_path: Path
) -> None:
    server, path = changing
    before, times = sha256(server), path.stat()
    shutil.copy(publish(tmp_path / "elsewhere", 1, checkpoint(2)), path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    answer = httpx2.post(f"{server.url}/models/digits/reload")
    # Whoever comes first, this look or the watcher's: what is told is what is served.
    assert (answer.status_code, answer.json()["served_version"]) == (200, 1)
    server.wait_for(lambda event: event["event"] == "serving" and event.get("was") == 1)
    assert sha256(server) not in (before, None)
    again = httpx2.post(f"{server.url}/models/digits/reload").json()
    assert again == {"model": "digits", "served_version": 1, "changed": False, "refused": []}


@pytest.mark.slow
def test_a_served_file_that_is_damaged_under_its_header_is_reported_and_answers_go_on(
    changing: tuple[ServerProcess, Path],
) -> None:
    server, path = changing
    whole, times = path.read_bytes(), path.stat()
    damaged = path.with_name(".damaged")
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    damaged.replace(path)
    answer = httpx2.post(f"{server.url}/models/digits/reload")
    assert (answer.status_code, answer.json()["served_version"], answer.json()["changed"]) == (409, 1, False)
    (version,) = httpx2.get(f"{server.url}/models/digits").json()["versions"]
    assert (version["state"], version["reason"]) == ("refused", answer.json()["refused"][0]["reason"])
    assert "does not match its hash" in version["reason"]
    assert 'flambeau_refusals_total{model="digits"} 1.0' in httpx2.get(f"{server.url}/metrics").text
    server.wait_for(lambda event: event["event"] == "refused" and event["reason"] == version["reason"])
    assert httpx2.post(f"{server.url}/predict", files={"file": png()}).json()["version"] == 1
    assert httpx2.get(f"{server.url}/health/ready").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("front_ends", ["0", "1"])
def test_what_the_store_passes_over_is_told_in_the_list_in_readiness_and_in_the_log(
    tmp_path: Path, check_problem: CheckProblem, front_ends: str
) -> None:
    publish(tmp_path, 1, checkpoint(1), model="ResNet50")
    publish(tmp_path / "mnist", 1, checkpoint(1), model="1")
    with serving(tmp_path, "--device", "cpu", "--front-ends", front_ends) as server:
        document = httpx2.get(f"{server.url}/models").json()
        (beside,), (model,) = document["passed_over"], document["models"]
        assert (beside["path"], model["name"]) == ("ResNet50", "mnist")
        assert "lower-case: call it resnet50" in beside["reason"]
        (within,) = model["passed_over"]
        assert within["path"] == "mnist/1/1.safetensors"
        for answer in (
            httpx2.get(f"{server.url}/health/ready"),
            httpx2.post(f"{server.url}/predict", files={"file": png()}),
        ):
            detail = check_problem(answer, "not_ready")
            assert beside["reason"] in detail
            assert within["reason"] in detail
            assert "empty" not in detail
        for answer in (
            httpx2.get(f"{server.url}/models/ResNet50"),
            httpx2.post(f"{server.url}/models/ResNet50/reload"),
        ):
            assert beside["reason"] in check_problem(answer, "model_not_found")
        told = [(event["path"], event["reason"]) for event in server.events if event["event"] == "passed over"]
        assert told == [(beside["path"], beside["reason"]), (within["path"], within["reason"])]
        (tmp_path / "ResNet50").rename(tmp_path / "resnet50")
        server.wait_for(lambda event: event["event"] == "serving")
        assert httpx2.get(f"{server.url}/models").json()["passed_over"] == []


@pytest.mark.slow
def test_a_store_that_is_not_there_is_said_to_be_not_there_and_served_when_it_is(
    tmp_path: Path, check_problem: CheckProblem
) -> None:
    store = tmp_path / "late"
    with serving(store, "--device", "cpu", "--poll-seconds", "0.1") as server:
        assert f"{store} is not there" in check_problem(httpx2.get(f"{server.url}/health/ready"), "not_ready")
        publish(store, 1, checkpoint(1))
        server.wait_for(lambda event: event["event"] == "serving")
        assert httpx2.get(f"{server.url}/health/ready").json()["served"] == {"digits": 1}
        assert [event["event"] for event in server.events].count("the store is not there") == 1


@pytest.mark.slow
def test_a_reload_that_takes_longer_than_the_deadline_is_told_so_and_goes_on(
    tmp_path: Path, check_problem: CheckProblem
) -> None:
    publish(tmp_path, 1, checkpoint(1))
    with serving(tmp_path, "--device", "cpu", "--deadline-seconds", "0.000001") as server:
        publish(tmp_path, 2, checkpoint(2))
        detail = check_problem(httpx2.post(f"{server.url}/models/digits/reload"), "deadline_exceeded")
        assert "GET /models" in detail
        server.wait_for(lambda event: event["event"] == "serving" and event["version"] == 2)
