"""`make container-check` where it cannot run: one line that says why, and exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import PROJECT
from tests.system.container.checks import CHECKS

ENGINE = ("dockerd", "containerd", "runc", "iptables")


@pytest.mark.process
@pytest.mark.parametrize(
    ("programs", "said"),
    [
        ((), "there is no docker: apt-get install docker.io debootstrap"),
        (("docker",), "there is no dockerd, containerd, runc, iptables: apt-get install docker.io"),
        (("docker", *ENGINE), "dockerd does not start: it lacks something"),
    ],
)
def test_what_the_machine_lacks_is_one_line(programs: tuple[str, ...], said: str, tmp_path: Path) -> None:
    if programs and os.getuid() != 0:
        pytest.skip("another line comes first where the user is not root")
    for name in programs:
        (tmp_path / name).write_text("#!/bin/sh\necho it lacks something\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    ended = _check("--folder", str(tmp_path / "kept"), path=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1
    assert said in ended.stderr


@pytest.mark.process
def test_help_says_what_it_needs_and_each_check_what_it_checks(tmp_path: Path) -> None:
    ended = _check("--help", path=tmp_path)
    assert ended.returncode == 0
    assert "apt-get install docker.io debootstrap" in ended.stdout
    assert all(check.__doc__ for check in CHECKS)


def _check(*words: str, path: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.system.container", *words]
    environment = os.environ | {"PATH": str(path)}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
