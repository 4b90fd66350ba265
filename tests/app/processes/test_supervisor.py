"""The real processes of one server: what dies comes back, what is told to end ends, and nothing is left behind."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from app.processes.announce import address_of
from app.processes.restarts import RestartPolicy
from app.processes.supervisor import Supervisor
from app.settings import Settings
from tests.app.telemetry.test_metrics import samples
from tests.support.checkpoints import checkpoint, png, publish
from tests.support.raw import Connection, connection, request
from tests.support.server import PATIENCE, PROJECT, ServerProcess, serving
from tests.support.waiting import block_until
from tests.system.test_process import nobody_listens

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="there is no /proc to find processes in")

COUNTED = [
    ("flambeau_requests_total", frozenset({("method", "POST"), ("route", "/predict"), ("status", "200")})),
    ("flambeau_stage_seconds_count", frozenset({("stage", "decode")})),
    ("flambeau_batch_items_sum", frozenset[tuple[str, str]]()),
    ("flambeau_served_version", frozenset({("model", "digits")})),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Two front-ends and the engine. Each test leaves as many processes as it found."""
    store = tmp_path_factory.mktemp("store")
    publish(store, 1, checkpoint())
    with serving(store, "--device", "cpu", "--front-ends", "2") as process:
        yield process


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a server would make temporary files."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish(tmp_path / "store", 1, checkpoint())
    return tmp_path / "store"


def run(*command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def those_of(server: ServerProcess, module: str) -> list[int]:
    """Returns those of its processes that run this module and have not ended."""
    found = []
    for child in children(server.process.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if module.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def engine_of(server: ServerProcess) -> int:
    (engine,) = those_of(server, "app.processes.engine")
    return engine


def front_ends_of(server: ServerProcess) -> list[int]:
    return those_of(server, "app.processes.front_end")


def state(process: int) -> str:
    """Returns the letter that `ps` shows, or "gone" if the process has ended, even if its parent has yet to notice."""
    try:
        letter = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    return "gone" if letter in "ZX" else letter


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """Stops a process until the block is left."""
    os.kill(process, signal.SIGSTOP)
    try:
        block_until(lambda: state(process) in ("T", "gone"))
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    block_until(lambda: state(process) == "gone")


def predict(url: str) -> httpx2.Response:
    return httpx2.post(f"{url}/predict", files={"file": png()}, timeout=PATIENCE)


def until_it_predicts(server: ServerProcess) -> None:
    block_until(lambda: predict(server.url).status_code == 200)


def counted(server: ServerProcess) -> list[float]:
    numbers = samples(httpx2.get(f"{server.url}/metrics", timeout=PATIENCE).text)
    return [numbers.get(name, 0) for name in COUNTED]


def restarts(server: ServerProcess) -> dict[str, float]:
    """Returns how often each process was started again."""
    numbers = samples(httpx2.get(f"{server.url}/metrics", timeout=PATIENCE).text)
    return {dict(labels)["process"]: value for (name, labels), value in numbers.items() if "restarts_total" in name}


@contextlib.asynccontextmanager
async def connected_to_a_front_end_other_than(stopping: int, server: ServerProcess) -> AsyncIterator[Connection]:
    with stopped(stopping):
        client = connection(server.port)
        opened = await client.__aenter__()
        await opened.send(request("/health/live", method="GET"))
        assert (await opened.response(method="GET")).status_code == 200
    try:
        yield opened
    finally:
        await client.__aexit__(None, None, None)


@pytest.mark.slow
def test_each_front_end_tells_the_sums_over_all(server: ServerProcess) -> None:
    first, second = front_ends_of(server)
    before = counted(server)
    with stopped(first):
        for _ in range(3):
            assert predict(server.url).status_code == 200
    with stopped(second):
        for _ in range(2):
            assert predict(server.url).status_code == 200
        told_by_the_first = counted(server)
    with stopped(first):
        assert counted(server) == told_by_the_first == [*(number + 5 for number in before[:3]), 1]


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_front_end_that_is_killed_is_started_again_while_the_other_one_answers_on(
    server: ServerProcess,
) -> None:
    killed, other = front_ends_of(server)
    upload = request(body=png())
    before, restarts_before = counted(server), restarts(server)
    assert restarts_before.keys() == {"engine", "front-end-0", "front-end-1"}
    async with (
        connected_to_a_front_end_other_than(other, server) as lost,
        connected_to_a_front_end_other_than(killed, server) as kept,
    ):
        for client in (lost, kept):
            await client.send(upload)
            assert (await client.response()).status_code == 200
            await client.send(upload[:-10])
        with stopped(other):  # the one that is killed has seen it all
            assert counted(server)[0] == before[0] + 2
        kill(killed)
        with contextlib.suppress(ConnectionError):
            assert await lost.rest() == b""
        await kept.send(upload[-10:])
        assert (await kept.response()).status_code == 200
    await asyncio.to_thread(server.wait_for, lambda event: event.get("code") == -signal.SIGKILL)
    block_until(lambda: len(front_ends_of(server)) == 2)
    with stopped(other):
        await asyncio.to_thread(until_it_predicts, server)
        assert counted(server) == [*(number + 4 for number in before[:3]), 1]  # what the dead one counted, too
        assert sum(restarts(server).values()) == sum(restarts_before.values()) + 1
        assert restarts(server)["engine"] == restarts_before["engine"]


@pytest.mark.slow
@pytest.mark.anyio
async def test_an_engine_process_that_is_killed_comes_back_and_loses_only_what_it_held(server: ServerProcess) -> None:
    engine = engine_of(server)
    before = counted(server)
    async with connection(server.port) as client, connection(server.port) as patient:
        with stopped(engine):
            await client.send(request(body=png()))
            await asyncio.to_thread(block_until, lambda: in_flight(server) == 2)  # with the one that asks
            kill(engine)
        answers = [await client.response()]
        block_until(lambda: len(those_of(server, "app.processes.engine")) == 1)
        with stopped(engine_of(server)):  # so that it stays absent while the answers are looked at
            await patient.send(request(body=png()))
            for path in ("/health/ready", "/models", "/models/digits"):
                await client.send(request(path, method="GET"))
                answers.append(await client.response(method="GET"))
            await client.send(request("/health/live", method="GET"))
            assert (await client.response(method="GET")).status_code == 200
        assert (await patient.response()).status_code == 200  # it has waited
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert answer.headers["retry-after"]
    assert httpx2.get(f"{server.url}/health/ready").status_code == 200
    after = counted(server)
    assert (after[0], after[2:]) == (before[0] + 1, [before[2] + 1, 1])


def in_flight(server: ServerProcess) -> float:
    numbers = samples(httpx2.get(f"{server.url}/metrics", timeout=PATIENCE).text)
    return numbers["flambeau_requests_in_flight", frozenset()]


@pytest.mark.slow
def test_when_the_supervisor_is_killed_nothing_is_left(store: Path, temporary: Path) -> None:
    with serving(store, "--device", "cpu", "--front-ends", "2") as server:
        processes = children(server.process.pid)
        assert len(processes) == 3
        server.process.kill()
        server.wait_for(lambda event: event["event"] == "ended")
    assert [state(each) for each in processes] == ["gone"] * 3
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_with_0_and_nothing_is_left(number: signal.Signals, store: Path, temporary: Path) -> None:
    with serving(store, "--device", "cpu", "--front-ends", "2") as server:
        processes = children(server.process.pid)
        assert predict(server.url).status_code == 200
        assert server.stop(number) == 0
        server.wait_for(lambda event: event["event"] == "ended")
    assert [event["event"] for event in server.events] == ["serving", "ready", "ended"]
    assert [state(each) for each in processes] == ["gone"] * 3
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_signal_that_reaches_every_process_at_once_lets_them_finish_all_the_same(store: Path) -> None:
    """This is how systemd ends a service."""
    upload = request(body=png())
    with serving(store, "--device", "cpu", "--front-ends", "1") as server:
        async with connection(server.port) as client:
            await client.send(upload[:-10])
            await asyncio.to_thread(block_until, lambda: in_flight(server) == 2)  # with the one that asks
            for process in (*children(server.process.pid), server.process.pid):
                os.kill(process, signal.SIGTERM)
            await nobody_listens(server.port)
            await client.send(upload[-10:])
            assert (await client.response()).status_code == 200
        assert server.process.wait(PATIENCE) == 0
        server.wait_for(lambda event: event["event"] == "ended")
    assert [event["event"] for event in server.events] == ["serving", "ready", "ended"]


@pytest.mark.slow
@pytest.mark.parametrize("started", [1, 2])
def test_a_signal_while_the_processes_are_being_started_ends_all_with_0(
    started: int, store: Path, temporary: Path
) -> None:
    command = [sys.executable, "-m", "app", "--store", str(store), "--port", "0", "--front-ends", "2"]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) as server:
        try:
            block_until(lambda: len(children(server.pid)) >= started)
            server.terminate()
            assert server.communicate(timeout=PATIENCE)[1] == ""
        finally:
            server.kill()
    assert server.returncode == 0
    assert list(temporary.iterdir()) == []


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each engine process ends at once."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'app.processes.engine' in sys.orig_argv:\n    os._exit(7)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.mark.slow
def test_an_engine_process_that_cannot_live_ends_the_server_with_1(store: Path, no_engine: None) -> None:
    ended = run(sys.executable, "-m", "app", "--store", str(store), "--port", "0")
    assert ended.returncode == 1
    *again, last = ended.stderr.splitlines()
    assert all("process=engine code=7" in line for line in [*again, last])
    assert "again and again" in last
    assert len(again) == 2


@pytest.mark.process
def test_the_supervisor_is_small_and_imports_neither_torch_nor_numpy_nor_pillow() -> None:
    ended = run(sys.executable, "-c", "import sys, app.__main__; print(*sys.modules)")
    assert "app.processes.supervisor" in ended.stdout.split()
    assert not {"torch", "numpy", "PIL"} & set(ended.stdout.split())


class StopsWhileItWaits(RestartPolicy):
    """Would wait for an hour, and sends the signal to stop as the wait begins."""

    def ended(self) -> float | None:
        os.kill(os.getpid(), signal.SIGTERM)
        return 3600.0


@pytest.mark.process
def test_a_signal_ends_a_server_that_waits_before_it_starts_a_process_again(store: Path, no_engine: None) -> None:
    settings = Settings(store=store, device="cpu")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = address_of(settings.host, listener)
        supervisor = Supervisor(
            settings, front_ends=1, listener=listener, address=address, restart_policy=StopsWhileItWaits
        )
        assert asyncio.run(supervisor.run()) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_a_process_that_cannot_be_started_again_ends_the_server_with_one_line_and_1(store: Path) -> None:
    with serving(store, "--device", "cpu", "--front-ends", "1") as server:
        (front_end,) = front_ends_of(server)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, hard))
        kill(front_end)
        server.wait_for(lambda event: event["event"] == "ended")
        assert server.process.wait(PATIENCE) == 1
    last = server.events[-2]
    assert (last["event"], last["process"]) == ("a process cannot be started again", "front-end-0")
    assert "Too many open files" in last["error"]


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_line_however_many_front_ends_there_are(store: Path, temporary: Path) -> None:
    ended = run(sys.executable, *["-m", "app", "--store", str(store), "--device", "abacus", "--front-ends", "2"])
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "'abacus'" in ended.stderr
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_no_front_ends_is_one_process_that_answers_and_needs_no_temporary_folder(store: Path, temporary: Path) -> None:
    with serving(store, "--device", "cpu", "--front-ends", "0") as server:
        assert children(server.process.pid) == []
        assert list(temporary.iterdir()) == []
        assert predict(server.url).status_code == 200
        assert counted(server) == [1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("blocks", [0, 8])
def test_where_there_is_no_room_to_count_in_one_line_says_what_to_do(blocks: int, store: Path, temporary: Path) -> None:
    """A limit of the size of files bounds memory without a file as well."""
    server = [sys.executable, "-m", "app", "--store", str(store), "--port", "0", "--front-ends", "1"]
    ended = run("sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh", *server)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert "ulimit" in ended.stderr
    assert "TMPDIR" in ended.stderr
    assert "--front-ends 0" in ended.stderr
    assert list(temporary.iterdir()) == []


READ_ONLY = """
for folder in / /tmp /var/tmp /dev/shm; do
    mount --bind $folder $folder && mount -o remount,bind,ro $folder || exit 77
done
cd "$PWD"  # which is below the mounts now
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.usefixtures("unmeasured")
def test_a_file_system_that_can_only_be_read_is_enough_for_all_processes_and_for_their_restarts(store: Path) -> None:
    within = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh"]
    if sys.platform != "linux" or run(*within, "true").returncode:
        pytest.skip("no file system can be mounted here")
    assert run(*within, "sh", "-c", "! touch /tmp/x /dev/shm/x x").returncode == 0
    with serving(store, "--device", "cpu", "--front-ends", "1", within=within) as server:
        assert predict(server.url).status_code == 200
        for process in (engine_of(server), *front_ends_of(server)):
            kill(process)
        until_it_predicts(server)
        assert counted(server)[0] >= 2


@pytest.mark.slow
def test_a_folder_of_temporary_files_that_is_cleaned_changes_nothing(store: Path, temporary: Path) -> None:
    """systemd-tmpfiles does so after ten days."""
    with serving(store, "--device", "cpu", "--front-ends", "1") as server:
        assert predict(server.url).status_code == 200
        before = counted(server)
        shutil.rmtree(temporary)
        assert counted(server) == before
        kill(engine_of(server))
        until_it_predicts(server)
        kill(front_ends_of(server)[0])
        until_it_predicts(server)
        assert counted(server)[0] == before[0] + 2
        assert set(restarts(server).values()) == {1}
        assert server.stop() == 0
