"""One real server process for all tests that need no other one, and what the answers of any server are checked by."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import httpx2
import pytest

from app.api.errors import PROBLEMS
from tests.checkpoints import checkpoint, publish
from tests.server import ServerProcess, serving

MAX_FILES = 4


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
def torch_as_it_was() -> Iterator[None]:
    """Who computes sets torch's threads for its process, which here is that of all tests."""
    import torch  # here: what tests the HTTP side alone need not wait for it

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class Answer(Protocol):
    """What the HTTP client's and our own raw answers have in common."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Any: ...
    def json(self) -> Any: ...


CheckProblem = Callable[[Answer, str], str]


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
