"""The container's health check asks where the server really listens. A folder shows it one server of this machine."""

import os
import socket
import subprocess
import sys
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


@pytest.mark.parametrize(("host", "asked"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("::", "::1")])  # noqa: S104
def test_it_asks_at_the_address_of_the_server(proc: Path, host: str, asked: str, tmp_path: Path) -> None:
    with serving(tmp_path, "--front-ends", "0", "--host", host) as server:
        show(proc, server)
        assert list(find_servers(proc)) == [(asked, server.port)]
        assert main(proc) == 0


def test_a_server_that_does_not_answer_and_another_program_that_listens_are_told_apart(
    proc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listens = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); "
    (tmp_path / "app.py").write_text(f"{listens} s.accept()[0].close(); input()")
    command = [sys.executable, "-m", "app"]
    with (
        socket.create_server(("127.0.0.1", 0)),
        subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as silent,
    ):
        assert silent.stdout is not None
        port = int(silent.stdout.readline())
        (proc / str(silent.pid)).symlink_to(f"/proc/{silent.pid}")
        assert list(find_servers(proc)) == [("127.0.0.1", port)]
        assert main(proc) == 1
        silent.communicate("")
    assert f"no answer from 127.0.0.1:{port}" in capsys.readouterr().err


def test_it_is_a_command_that_needs_nothing_but_the_standard_library() -> None:
    imported = (
        "import sys; before = {*sys.modules}; import app.processes.healthcheck; print(*({*sys.modules} - before))"
    )
    ended = subprocess.run([sys.executable, "-c", imported], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in ended.stdout.split()} <= sys.stdlib_module_names | {"app"}
