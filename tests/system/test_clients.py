"""The clients that people have: what they send when they are given a file and an address is answered."""

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.checkpoints import checkpoint, png, publish
from tests.support.raw import request
from tests.support.server import PATIENCE, PROJECT, ServerProcess, serving
from tests.system import clients_check

pytestmark = pytest.mark.process

ADDRESS = "http://127.0.0.1:8000"
EXAMPLES = re.findall(r"```(\w+)\n(.*?)```", (PROJECT / "docs" / "ask.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("clients")
    publish(folder, 1, checkpoint(), model="digits")
    with serving(folder, "--device", "cpu") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that are sent."""
    (tmp_path / "seven.png").write_bytes(png(7))
    (tmp_path / "three.png").write_bytes(png(3))
    return tmp_path


def run(folder: Path, *command: str) -> Any:
    """The JSON document that a program prints. Skips where there is no such program."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} here")
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return json.loads(ended.stdout)


def test_the_examples_show_each_request_in_each_language() -> None:
    assert [language for language, _ in EXAMPLES] == ["sh", "python", "js"] * 2


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_documents_is_answered(one_model: ServerProcess, folder: Path, number: int) -> None:
    language, text = EXAMPLES[number]
    text = text.replace(ADDRESS, one_model.url)
    if "import requests" in text:
        pytest.importorskip("requests")
    commands = {
        "sh": ("sh", "-c", text.replace("curl ", "curl --silent --fail ")),
        "python": (sys.executable, "-c", text),
        "js": ("node", "--input-type=module", "--eval", text),
    }
    answer = run(folder, *commands[language])
    if number < 3:
        assert len(answer["predictions"]) == 5
    else:
        assert [result["filename"] for result in answer["results"]] == ["seven.png", "three.png"]
        assert all("predictions" in result for result in answer["results"])


@pytest.mark.parametrize(
    "flags",
    [
        ("-T", "seven.png"),
        ("-X", "PUT", "--data-binary", "@seven.png"),
        ("--data-binary", "@seven.png"),
        ("--data-binary", "@seven.png", "-H", "Content-Type:"),
        ("--data-binary", "@seven.png", "-H", "Content-Type: application/json"),
        ("--data-binary", "@seven.png", "-H", "Transfer-Encoding: chunked"),
        ("--data-binary", "@seven.png", "-H", "Expect: 100-continue"),
        ("-F", "image=@seven.png"),
        ("-F", "files[]=@seven.png"),
        ("-F", "data=<seven.png"),
        ("-X", "PUT", "-F", "file=@seven.png"),
    ],
)
def test_curl_is_answered(one_model: ServerProcess, folder: Path, flags: tuple[str, ...]) -> None:
    answer = run(folder, "curl", "--silent", "--max-time", str(PATIENCE), *flags, f"{one_model.url}/predict")
    assert len(answer["predictions"]) == 5


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("-d", "@seven.png"), "unsupported_content_type", "--data-binary"),
        (("-d", "seven.png"), "unsupported_content_type", "name of a file"),
        (("-F", "file=seven.png"), "bad_image", "name of a file"),
        (("-F", "image=seven.png"), "no_file", "name of a file"),
        (("-F", "left=@seven.png", "-F", "right=@three.png"), "no_file", "'left', 'right'"),
        (("-T", "empty.png"), "no_file", "the body is empty"),
        (("--data-binary", "@seven.png", "-H", "Content-Encoding: gzip"), "unsupported_content_encoding", "gzip"),
    ],
)
def test_what_curl_was_told_wrongly_is_said_in_words(
    one_model: ServerProcess, folder: Path, flags: tuple[str, ...], code: str, said: str
) -> None:
    (folder / "empty.png").write_bytes(b"")
    problem = run(folder, "curl", "--silent", "--max-time", str(PATIENCE), *flags, f"{one_model.url}/predict")
    assert problem["code"] == code
    assert said in problem["detail"]


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_urllib_is_answered(one_model: ServerProcess, method: str) -> None:
    asked = urllib.request.Request(f"{one_model.url}/predict", png(), method=method)  # noqa: S310  loopback
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:  # noqa: S310  loopback
        assert len(json.load(answer)["predictions"]) == 5


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_requests_and_httpx_are_answered(one_model: ServerProcess, method: str) -> None:
    requests = pytest.importorskip("requests")
    url = f"{one_model.url}/predict"
    for answer in (
        requests.request(method, url, data=png(), timeout=PATIENCE),
        requests.request(method, url, data=iter([png()[:100], png()[100:]]), timeout=PATIENCE),
        requests.request(method, url, files={"image": png()}, timeout=PATIENCE),
        requests.request(method, url, files={"data": ("sieben β.png", png())}, timeout=PATIENCE),
        httpx2.request(method, url, content=png(), timeout=PATIENCE),
        httpx2.request(method, url, files=[("images", png())], timeout=PATIENCE),
    ):
        assert answer.status_code == 200, answer.text


def test_one_that_closes_its_sending_half_is_answered_each_time(one_model: ServerProcess) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", one_model.port), timeout=PATIENCE) as client:
            client.sendall(request(body=png()))
            client.shutdown(socket.SHUT_WR)
            received = b""
            while data := client.recv(1 << 16):
                received += data
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_where_generated_clients_cannot_be_checked_one_line_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert clients_check.main() == 0
    assert capsys.readouterr().out == "clients-check cannot run here: there is no node\n"
