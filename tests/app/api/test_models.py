"""GET /models, GET /models/{model} and POST /models/{model}/reload, through HTTP."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from classifier.manifest import Manifest
from tests.support.answers import CheckProblem
from tests.support.checkpoints import DIGITS, checkpoint, publish
from tests.support.server import serving


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
def test_a_reload_that_takes_longer_than_the_deadline_is_told_so_and_goes_on(
    tmp_path: Path, check_problem: CheckProblem
) -> None:
    publish(tmp_path, 1, checkpoint(1))
    with serving(tmp_path, "--device", "cpu", "--deadline-seconds", "0.000001") as server:
        publish(tmp_path, 2, checkpoint(2))
        detail = check_problem(httpx2.post(f"{server.url}/models/digits/reload"), "deadline_exceeded")
        assert "GET /models" in detail
        server.wait_for(lambda event: event["event"] == "serving" and event["version"] == 2)
