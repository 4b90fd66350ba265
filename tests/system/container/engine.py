"""Engines of containers: the docker that answers, or one of our own that ends with the check."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.container.errors import CannotCheck

PATIENCE = 60.0  # seconds until an engine answers, or has ended
_LOOK = 0.2  # seconds between two looks at it
_PROGRAMS = ("dockerd", "containerd", "runc", "iptables")


@dataclass(frozen=True, slots=True)
class Engine:
    """Runs the command line of one engine: docker's, or podman's, which takes the same words.

    Args:
        command: what each command begins with.
        environment: variables for it, beside this process's own.
        folder: where it runs; None: where this process does.
        is_ours: the check started it, or keeps its images in a folder of its own, and may name images as it likes.
    """

    command: tuple[str, ...] = ("docker",)
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    is_ours: bool = False

    def call(self, *words: str, text: str = "", may_fail: bool = False) -> "subprocess.CompletedProcess[str]":
        """Runs one command to its end; `text` is its standard input.

        Raises: AssertionError if it fails, unless it may.
        """
        ended = subprocess.run(
            [*self.command, *words],
            cwd=self.folder,
            env=os.environ | self.environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        said = f"{self.command[0]} {' '.join(words)}: {ended.stderr.strip()[-1000:]}"
        assert may_fail or ended.returncode == 0, said
        return ended

    def call_to(self, log: Path, *words: str) -> int:
        """Runs one long command, whose output goes to `log`, and returns its exit code."""
        with log.open("w") as file:
            return subprocess.run(
                [*self.command, *words],
                cwd=self.folder,
                env=os.environ | self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        """Starts one command, for whoever has something else to do until it ends."""
        return subprocess.Popen(
            [*self.command, *words],
            cwd=self.folder,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def state(self, name: str) -> Any:
        """Returns what `inspect` says of a container's state."""
        return json.loads(self.call("inspect", "--format", "{{json .State}}", name).stdout)

    def log(self, name: str) -> str:
        """Returns the last lines that a container wrote."""
        ended = self.call("logs", "--tail", "15", name, may_fail=True)
        return ended.stdout + ended.stderr

    def answers(self) -> bool:
        """Says whether an engine is there."""
        return self.call("version", may_fail=True).returncode == 0


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
    host, log = f"unix://{folder / 'docker.sock'}", folder / "dockerd.log"
    # BuildKit needs a plug-in that Debian's docker.io does not bring; the engine's own builder does it, too.
    ours = Engine(environment={"DOCKER_HOST": host, "DOCKER_BUILDKIT": "0"}, is_ours=True)
    command = ["dockerd", "--bridge=none", "--iptables=false", "--data-root", str(folder / "data")]
    command += ["--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid"), "--host", host]
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
        unmount(folder)


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").splitlines() or ["it says nothing"])[-1][:300]


def unmount(folder: Path) -> None:
    """Takes away what an engine left mounted in its folder: the more the less it ended by itself."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((point for point in points if Path(point).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", point], check=False)
