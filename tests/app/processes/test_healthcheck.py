"""The container's health check asks where the server really listens. A folder shows it one server of this machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.processes.healthcheck import find_servers, main
from tests.support.server import PROJECT, ServerProcess, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc to find the server in"),
]


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """As a container's /proc is, without a server."""
    folder = tmp_path / "proc"
    folder.mkdir()
    for name in ("self", "1", str(os.getpid())):
        (folder / name).symlink_to(f"/proc/{name}")
    return folder


def show(proc: Path, server: ServerProcess) -> None:
    (proc / str(server.process.pid)).symlink_to(f"/proc/{server.process.pid}")


@pytest.fixture(params=["0", "1"])
def front_ends(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_passes_while_the_server_lives_and_fails_afterwards(
    proc: Path, front_ends: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store is empty: the server is alive, though not ready. Its port is that of a flag."""
    elsewhere = {"FLAMBEAU_PORT": "9", "http_proxy": "http://127.0.0.1:9"}
    with serving(tmp_path, "--front-ends", front_ends, environment=elsewhere) as server:
        show(proc, server)
        assert list(find_servers(proc)) == [("127.0.0.1", server.port)]
        assert main(proc) == 0
        server.stop()
        assert main(proc) == 1
    assert capsys.readouterr().err == "flambeau: no server listens here\n"


STAND_IN = """
import socket, sys
listener = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.sendall(sys.argv[2].encode() if connection.recv(4096) else b"")
connection.close()
sys.stdin.read()
"""


@contextmanager
def stand_in(proc: Path, host: str, answer: str, *, flags: Sequence[str] = ("-m", "app")) -> Iterator[int]:
    """Starts another `python -m app`, which gives this answer to one request, and yields its port."""
    (proc.parent / "app.py").write_text(STAND_IN)
    command = [sys.executable, *flags, host, answer]
    with subprocess.Popen(
        command, cwd=proc.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        (proc / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate("")


@pytest.mark.parametrize(("host", "asked"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::", "::1")])  # noqa: S104
def test_it_asks_at_the_address_of_the_server(proc: Path, host: str, asked: str) -> None:
    with stand_in(proc, host, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n") as port:
        assert list(find_servers(proc)) == [(asked, port)]
        assert main(proc) == 0


@pytest.mark.parametrize("flags", [("-um", "app"), ("-X", "utf8", "-Bm", "app")])
def test_it_finds_the_server_however_python_was_told_to_run_it(proc: Path, flags: tuple[str, ...]) -> None:
    with stand_in(proc, "127.0.0.1", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", flags=flags) as port:
        assert list(find_servers(proc)) == [("127.0.0.1", port)]
        assert main(proc) == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "answers 500"), ("", "no answer"), ("no HTTP", "no answer")],
)
def test_a_server_that_answers_otherwise_is_not_alive(
    proc: Path, answer: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)), stand_in(proc, "127.0.0.1", answer):  # the first one is no server
        assert main(proc) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_it_is_a_command_that_needs_nothing_but_the_standard_library() -> None:
    imported = (
        "import sys; before = {*sys.modules}; import app.processes.healthcheck; print(*({*sys.modules} - before))"
    )
    ended = subprocess.run([sys.executable, "-c", imported], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in ended.stdout.split()} <= sys.stdlib_module_names | {"app"}
