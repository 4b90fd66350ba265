"""Docker's engine: the one that answers, or one of our own that ends with the check."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.system.container.errors import CannotCheck

PATIENCE = 60.0  # seconds until an engine answers, or has ended
_LOOK = 0.2  # seconds between two looks at it
_PROGRAMS = ("dockerd", "containerd", "runc", "iptables")


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs docker's command line against one engine.

    Args:
        socket: where the engine listens; None: where docker looks by itself.
    """

    socket: Path | None = None

    @property
    def is_ours(self) -> bool:
        """Says whether the check started it, and may name images as it likes."""
        return self.socket is not None

    def docker(self, *words: str, text: str = "", may_fail: bool = False) -> "subprocess.CompletedProcess[str]":
        """Runs one command to its end; `text` is its standard input.

        Raises: AssertionError if it fails, unless it may.
        """
        ended = subprocess.run(
            ["docker", *words], env=self._environment(), input=text, capture_output=True, text=True, check=False
        )
        assert may_fail or ended.returncode == 0, f"docker {' '.join(words)}: {ended.stderr.strip()[-1000:]}"
        return ended

    def docker_to(self, log: Path, *words: str) -> int:
        """Runs one long command, whose output goes to `log`, and returns its exit code."""
        with log.open("w") as file:
            return subprocess.run(
                ["docker", *words], env=self._environment(), stdout=file, stderr=subprocess.STDOUT, check=False
            ).returncode

    def answers(self) -> bool:
        """Says whether an engine is there."""
        return self.docker("version", may_fail=True).returncode == 0

    def _environment(self) -> dict[str, str]:
        # BuildKit needs a plug-in that Debian's docker.io does not bring; the engine's own builder does it, too.
        ours = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"} if self.socket else {}
        return os.environ | ours


@contextmanager
def engine(folder: Path, *, own: bool) -> Iterator[Engine]:
    """Gives an engine.

    Args:
        folder: where an engine of our own keeps images.
        own: start one even if another answers.

    Raises: CannotCheck if there is none, and none can be started.
    """
    if shutil.which("docker") is None:
        raise CannotCheck("there is no docker: apt-get install docker.io debootstrap (or Docker of another source)")
    if not own and Engine().answers():
        yield Engine()
        return
    if os.getuid() != 0:
        raise CannotCheck("no docker engine answers, and only root can start one: start docker, or use sudo")
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        raise CannotCheck(f"no docker engine answers, and there is no {', '.join(missing)}: apt-get install docker.io")
    with _started(folder) as ours:
        yield ours


@contextmanager
def _started(folder: Path) -> Iterator[Engine]:
    folder.mkdir(parents=True, exist_ok=True)
    ours, log = Engine(folder / "docker.sock"), folder / "dockerd.log"
    command = ["dockerd", "--bridge=none", "--iptables=false", "--data-root", str(folder / "data")]
    command += [
        "--exec-root",
        str(folder / "exec"),
        "--pidfile",
        str(folder / "pid"),
        "--host",
        f"unix://{ours.socket}",
    ]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        give_up = time.monotonic() + PATIENCE
        while not ours.answers():
            if process.poll() is not None or time.monotonic() > give_up:
                raise CannotCheck(f"dockerd does not start: {_last_line(log)}")
            time.sleep(_LOOK)
        yield ours
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _unmount(folder)


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").splitlines() or ["it says nothing"])[-1][:300]


def _unmount(folder: Path) -> None:
    """Takes away what an engine left mounted: a network namespace if it ended by itself, more if it was killed."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((point for point in points if Path(point).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", point], check=False)
