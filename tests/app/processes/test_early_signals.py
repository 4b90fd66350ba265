"""Signals that come before anything is served, or when nothing is any more.

In the first seconds much is imported. The import is held up until the test has sent one.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.checkpoints import checkpoint, publish
from tests.support.server import PATIENCE, PROJECT, serving
from tests.support.waiting import block_until

pytestmark = pytest.mark.process

WENT_ON = 9
HOLD_UP = f"""
import os, sys
class HoldUp:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["HELD_UP"]:
            print("importing", file=sys.stderr, flush=True)
            while os.read(0, 1):
                pass
            os._exit({WENT_ON})
sys.meta_path.insert(0, HoldUp())
"""

# As podman leaves it in a container that it has started again: what a parent has blocked, its child has blocked.
ALL_BLOCKED = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
if "PENDING" in os.environ:
    os.kill(os.getpid(), signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])
"""

AS_PROCESS_1 = ("unshare", "--pid", "--fork", "--kill-child")


@pytest.fixture
def importing(tmp_path: Path) -> "Importing":
    (tmp_path / "sitecustomize.py").write_text(HOLD_UP)
    return Importing(tmp_path)


class Importing:
    """Starts a module of the project, which is held up before it imports one that takes long."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def __call__(self, held_up: str, *command: str) -> Iterator["subprocess.Popen[str]"]:
        environment = {**os.environ, "PYTHONPATH": str(self._folder), "HELD_UP": held_up}
        environment.pop("COVERAGE_PROCESS_CONFIG", None)  # it is asked for by another sitecustomize
        with subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stderr is not None
                assert process.stderr.readline() == "importing\n"
                yield process
            finally:
                process.kill()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Lets the import go on, and returns the exit code and what was said."""
    _, said = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def server(*flags: str) -> list[str]:
    return [sys.executable, "-m", "app", "--port", "0", *flags]


def children(process: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("held_up", ["pydantic", "uvloop", "torch"])
def test_a_signal_ends_a_server_that_is_still_importing_with_0(
    importing: Importing, held_up: str, number: signal.Signals
) -> None:
    with importing(held_up, *server("--front-ends", "0")) as process:
        process.send_signal(number)
        assert ended(process) == (0, "")


@pytest.mark.parametrize("held_up", ["pydantic", "torch"])
def test_it_does_so_as_process_1_of_a_container_too(importing: Importing, held_up: str) -> None:
    """To that process the system gives no signal that it has no handler for."""
    if sys.platform != "linux" or subprocess.run([*AS_PROCESS_1, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespace of processes can be made here")
    with importing(held_up, *AS_PROCESS_1, *server("--front-ends", "0")) as process:
        block_until(lambda: len(children(process.pid)) == 1)
        (first,) = children(process.pid)
        os.kill(first, signal.SIGTERM)
        assert ended(process) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("module", "held_up"), [("engine", "torch"), ("engine", "uvloop"), ("front_end", "uvloop")])
def test_a_child_that_is_still_importing_leaves_signals_to_its_parent(
    importing: Importing, module: str, held_up: str, number: signal.Signals
) -> None:
    """A service manager sends one to every process at once."""
    with importing(held_up, sys.executable, "-m", f"app.processes.{module}") as process:
        process.send_signal(number)
        assert ended(process) == (WENT_ON, "")


@pytest.mark.parametrize("front_ends", ["0", "1"])
def test_signals_that_a_parent_has_blocked_are_obeyed(front_ends: str, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    blocked, flags = (sys.executable, "-c", ALL_BLOCKED), ("--device", "cpu", "--front-ends", front_ends)
    with serving(tmp_path / "store", *flags, within=blocked) as running:
        assert running.stop(signal.SIGTERM) == 0


def test_a_signal_that_came_while_it_was_blocked_ends_a_server_with_0() -> None:
    command = [sys.executable, "-c", ALL_BLOCKED, *server("--front-ends", "0")]
    done = subprocess.run(command, cwd=PROJECT, env={**os.environ, "PENDING": ""}, timeout=PATIENCE, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("front_ends", ["0", "1"])
def test_a_second_signal_that_comes_at_the_very_end_does_not_spoil_the_exit_code(
    front_ends: str, number: signal.Signals, tmp_path: Path
) -> None:
    """Python takes a while to end. An impatient person, or two service managers, send more than one."""
    (tmp_path / "sitecustomize.py").write_text(f"import atexit, signal; atexit.register(signal.raise_signal, {number})")
    publish(tmp_path / "store", 1, checkpoint())
    environment = {"PYTHONPATH": str(tmp_path), "COVERAGE_PROCESS_CONFIG": ""}
    flags = ("--device", "cpu", "--front-ends", front_ends)
    with serving(tmp_path / "store", *flags, environment=environment) as running:
        assert running.stop(number) == 0
