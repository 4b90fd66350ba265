"""The server as a whole: its start, signals, exit codes, and what it says. Several processes: see `test_supervisor`."""

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.support.checkpoints import PHOTOS, checkpoint, png, publish
from tests.support.raw import connection, request
from tests.support.server import PATIENCE, PROJECT, ServerProcess, serving
from tests.support.waiting import block_until, until


def run(*flags: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "app", *flags],
        cwd=PROJECT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.slow
def test_one_line_says_the_address_the_models_and_the_device(tmp_path: Path) -> None:
    publish(tmp_path, 3, checkpoint())
    with serving(tmp_path, "--device", "cpu") as server:
        (line,) = [event for event in server.events if "address" in event]
    assert line["event"] == "ready"
    assert line["models"] == "digits 3"
    assert line["device"] == "cpu"
    assert line["address"].startswith("http://127.0.0.1:")


@pytest.mark.slow
def test_sigterm_ends_the_one_process_with_0(tmp_path: Path) -> None:
    publish(tmp_path, 1, checkpoint())
    with serving(tmp_path, "--front-ends", "0") as server:
        assert httpx2.post(f"{server.url}/predict", files={"file": png()}).status_code == 200
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.slow
def test_ctrl_c_ends_the_one_process_with_0(tmp_path: Path) -> None:
    with serving(tmp_path, "--front-ends", "0") as server:
        assert server.stop(signal.SIGINT) == 0


@pytest.mark.slow
def test_all_that_a_server_says_from_start_to_end_is_events(tmp_path: Path) -> None:
    publish(tmp_path, 1, checkpoint(architecture="resnet18", preprocess=PHOTOS))
    with serving(tmp_path) as server:
        server.stop()
        server.wait_for(lambda event: event["event"] == "ended")
    assert [event["event"] for event in server.events] == ["serving", "ready", "ended"]


@pytest.mark.slow
def test_an_empty_store_is_live_but_not_ready_and_names_the_training_command(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        live, ready = httpx2.get(f"{server.url}/health/live"), httpx2.get(f"{server.url}/health/ready")
        predict = httpx2.post(f"{server.url}/predict", files={"file": png()})
    assert live.status_code == 200
    assert ready.status_code == predict.status_code == 503
    assert "python -m training strokes" in ready.json()["detail"]
    assert "python -m training strokes" in predict.json()["detail"]
    assert "retry-after" in predict.headers


@pytest.mark.process
def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = run("--store", str(tmp_path), "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 2
    assert "Address already in use" in ended.stderr
    assert "--port" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_clear_line_of_the_one_process(tmp_path: Path) -> None:
    ended = run("--store", str(tmp_path), "--device", "abacus", "--front-ends", "0")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "'abacus'" in ended.stderr
    assert "cpu" in ended.stderr


@pytest.mark.process
def test_a_misspelt_setting_is_refused_with_the_nearest_one() -> None:
    ended = run(environment={"FLAMBEAU_PROT": "9000"})
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "FLAMBEAU_PORT" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("front_ends", ["0", "1"])
def test_a_service_of_our_name_in_kubernetes_changes_nothing(tmp_path: Path, front_ends: str) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    environment = {
        "HOME": str(tmp_path),
        "FLAMBEAU_SERVICE_HOST": "10.96.11.7",
        "FLAMBEAU_SERVICE_PORT": "80",
        "FLAMBEAU_PORT": "tcp://10.96.11.7:80",
        "FLAMBEAU_PORT_80_TCP": "tcp://10.96.11.7:80",
        "FLAMBEAU_PORT_80_TCP_ADDR": "10.96.11.7",
        "FLAMBEAU_GPU_PORT": "tcp://10.96.11.8:80",
    }
    with serving(Path("~/store"), "--front-ends", front_ends, environment=environment) as server:
        assert httpx2.post(f"{server.url}/predict", files={"file": png()}).status_code == 200
        assert server.stop() == 0


@pytest.mark.process
def test_help_lists_every_setting_with_its_default() -> None:
    ended = run("--help", environment={"COLUMNS": "200"})
    assert ended.returncode == 0
    assert "--max-batch " in ended.stdout
    assert "(default: 8000)" in ended.stdout


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_request_that_had_begun_at_sigterm_is_answered(tmp_path: Path) -> None:
    publish(tmp_path, 1, checkpoint())
    upload = request(body=png())
    with serving(tmp_path) as server:
        async with connection(server.port) as client:
            await client.send(upload[:-10])
            await asyncio.to_thread(is_admitted, server)
            server.process.send_signal(signal.SIGTERM)
            await nobody_listens(server.port)
            await client.send(upload[-10:])
            answer = await client.response()
        assert answer.status_code == 200
        assert answer.json()["model"] == "digits"
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.slow
@pytest.mark.anyio
async def test_what_is_not_over_when_the_grace_period_is_gets_a_problem_document(tmp_path: Path) -> None:
    publish(tmp_path, 1, checkpoint())
    with serving(tmp_path, "--grace-seconds", "0.2") as server:
        async with connection(server.port) as client:
            await client.send(request(body=png())[:-10])
            await asyncio.to_thread(is_admitted, server)
            server.process.send_signal(signal.SIGTERM)
            answer = await client.response()
        assert (answer.status_code, answer.json()["code"]) == (503, "draining")
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_shells_limit_of_open_files_is_none_of_connections(tmp_path: Path) -> None:
    """It is often 1024, for the sake of programs that use select()."""
    publish(tmp_path, 1, checkpoint())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with contextlib.AsyncExitStack() as several:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        try:
            server = several.enter_context(serving(tmp_path, "--device", "cpu"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(150):
            client = await several.enter_async_context(connection(server.port))
        await client.send(request(body=png()))
        assert (await client.response()).status_code == 200


@pytest.mark.slow
def test_an_engine_that_fails_ends_the_process_with_1(tmp_path: Path) -> None:
    publish(tmp_path, 1, checkpoint())
    breaks = (
        "import sys, app.lifecycle.storage\n"
        "def broken(*_, **__): raise RuntimeError('a bug')\n"
        "app.lifecycle.storage.list_models = broken\n"
        "from app.__main__ import main\n"
        f"sys.exit(main(['--store', {str(tmp_path)!r}, '--port', '0', '--front-ends', '0']))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", breaks], cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == 1
    assert "the engine has failed" in ended.stderr
    assert "RuntimeError: a bug" in ended.stderr


@pytest.mark.slow
def test_an_error_while_it_serves_is_a_traceback_and_1_whatever_its_type(tmp_path: Path) -> None:
    """It is a fault of the program, and nothing that a person could put right first."""
    breaks = (
        "import sys, app.http.server\n"
        "async def broken(self): raise ValueError('a bug')\n"
        "app.http.server.Server.main_loop = broken\n"
        "from app.__main__ import main\n"
        f"sys.exit(main(['--store', {str(tmp_path)!r}, '--port', '0', '--front-ends', '0']))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", breaks], cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert ended.stderr.endswith("ValueError: a bug\n")


def is_admitted(server: ServerProcess) -> None:
    """Returns when the server counts a request besides the one that asks."""
    block_until(lambda: "flambeau_requests_in_flight 2.0" in httpx2.get(f"{server.url}/metrics").text)


async def nobody_listens(port: int) -> None:
    """Returns when a connection is refused."""

    async def is_refused() -> bool:
        try:
            async with connection(port):
                return False
        except ConnectionError:
            return True

    await until(is_refused)
