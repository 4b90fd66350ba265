"""What all tests share."""

import multiprocessing.util
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from app.http.problems import PROBLEMS
from classifier.progress import Progress
from tests.support.answers import MAX_FILES, Answer, CheckProblem
from tests.support.azure import AzureServer, azure_server
from tests.support.checkpoints import checkpoint, publish
from tests.support.cluster import find_kubectl, find_node_models
from tests.support.google import GoogleServer, google_server
from tests.support.runs import Said, Train
from tests.support.s3 import S3Server, s3_server
from tests.support.server import PROJECT, ServerProcess, serving
from tests.support.variables import set_variables
from training.commands.train import train
from training.recipes.builtin import builtin
from training.recipes.recipe import Recipe


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks the shared server talks to a process, and one that asks an S3 server wants it installed."""
    for item in items:
        asks = set(getattr(item, "fixturenames", ()))
        if {"server", "client"} & asks:
            item.add_marker("process")
        if {"s3", "own_s3", "kubectl", "node_models"} & asks:
            item.add_marker("cluster")


@pytest.fixture(autouse=True)
def _a_test_that_starts_a_process_says_so(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that `make test-fast` starts none."""
    if not any(map(request.node.get_closest_marker, ("process", "browser", "slow"))):
        monkeypatch.setattr(subprocess, "Popen", _Refused)
        monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", _Refused)


class _Refused:
    def __init__(self, *_: Any, **__: Any) -> None:
        pytest.fail("a process is started by a test that is marked neither process nor browser nor slow")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Async tests run on the loop that serves."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> Iterator[None]:
    """Tests say what they set, by `monkeypatch`, which takes it back."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith("FLAMBEAU_"):
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_not_ignored() -> Iterator[None]:
    """A shell starts what runs in the background with Ctrl-C ignored, and processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def _matplotlib_keeps_its_fonts_in_the_project() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(PROJECT / "runs" / "matplotlib"))
        yield


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A real S3 server that this process can ask, and what it starts."""
    set_variables(monkeypatch, _s3_server.environment)
    return _s3_server


@pytest.fixture(scope="session")
def _azure_server() -> Iterator[AzureServer]:
    with azure_server() as server:
        yield server


@pytest.fixture
def azure(_azure_server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> AzureServer:
    """A real server of Azure's blobs that this process can ask, and what it starts."""
    set_variables(monkeypatch, _azure_server.environment)
    return _azure_server


@pytest.fixture(scope="session")
def _google_server() -> Iterator[GoogleServer]:
    with google_server() as server:
        yield server


@pytest.fixture
def google(_google_server: GoogleServer, monkeypatch: pytest.MonkeyPatch) -> GoogleServer:
    """A server of Google's object store that this process can ask, and what it starts."""
    set_variables(monkeypatch, _google_server.environment)
    return _google_server


@pytest.fixture(scope="session")
def node_models() -> Path:
    return find_node_models()


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> str:
    return find_kubectl(tmp_path_factory.mktemp("kubectl"))


@pytest.fixture
def shared_data() -> Path:
    """Real images, where they are at hand; the project holds none of them."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("there is no ../shared/data here")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves `digits` 2, with 1 on disk and 3 refused, and `letters` 1; its limits are small."""
    store = tmp_path_factory.mktemp("store")
    publish(store, 1, checkpoint(1))
    publish(store, 2, checkpoint(2))
    publish(store, 3, b"no checkpoint")
    publish(store, 1, checkpoint(3, model="letters"), model="letters")
    limits = ["--max-upload-mb", "1", "--max-files", str(MAX_FILES), "--max-megapixels", "1"]
    with serving(store, "--device", "cpu", *limits) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """For processes that may write or open no file: coverage would complain of that, amid what they say themselves."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture
def torch_as_it_was() -> Iterator[None]:
    """Who computes sets torch's threads and precision for its process, which here is that of all tests.

    While that precision is set, torch.export cannot ask for it in its own way, and fails.
    """
    threads, of_both = torch.get_num_threads(), (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    precisions = [each.fp32_precision for each in of_both]
    yield
    torch.set_num_threads(threads)
    for each, precision in zip(of_both, precisions, strict=True):
        each.fp32_precision = precision


@pytest.fixture
def check_problem() -> CheckProblem:
    """Checks that an answer is a whole problem document of that code; gives its detail."""

    def check(answer: Answer, code: str) -> str:
        document = answer.json()
        assert document["code"] == code, document
        status, title = PROBLEMS[code]
        assert (answer.status_code, document["status"], document["title"]) == (status, status, title)
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(document) == {"type", "title", "status", "detail", "code", "request_id"}
        assert document["type"] == "about:blank"
        assert document["request_id"] == answer.headers["x-request-id"] != ""
        detail: str = document["detail"]
        assert detail
        return detail

    return check


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch computes in one thread, for all tests of a module."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> Recipe:
    source = {"kind": "strokes", "samples": 700, "test_samples": 150}
    return builtin("strokes").replace(source=source, held_out=100, epochs=2, batch_size=32)


@pytest.fixture
def run(tmp_path: Path, tiny: Recipe) -> Train:
    """`train` in a folder of its own; what is not said is as small as it gets."""

    def run(recipe: Recipe = tiny, **options: Any) -> Path:
        defaults: dict[str, Any] = {"store": tmp_path / "store", "runs": tmp_path / "runs", "device": "cpu"}
        defaults["pictures"] = False  # they take longer than the run
        path: Path = train(recipe, **(defaults | options))
        return path

    return run


@pytest.fixture
def silent() -> Progress:
    return Progress.silent()


@pytest.fixture
def said() -> Said:
    return Said()
