"""`make kube-check` where it cannot run: one line that says why, and exit code 2."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.server import PROJECT

PODMAN = ("podman", "runc", "conmon", "haproxy")


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize(
    ("programs", "said"),
    [
        (("kubectl",), "there is no podman, runc, conmon, haproxy: apt-get install podman runc haproxy debootstrap"),
        (("kubectl", *PODMAN[:3]), "there is no haproxy: apt-get install"),
        (
            ("kubectl", *PODMAN),
            "the base image is made by debootstrap, which is not there: apt-get install debootstrap",
        ),
    ],
)
def test_what_the_machine_lacks_is_one_line(programs: tuple[str, ...], said: str, tmp_path: Path) -> None:
    if len(programs) > len(PODMAN) and (os.getuid() != 0 or find_spec("moto") is None):
        pytest.skip("another line comes first where the user is not root, or the extra cluster is not installed")
    for name in programs:
        (tmp_path / name).write_text('#!/bin/sh\ncase "$*" in *" image inspect "*) exit 1;; esac\n')
        (tmp_path / name).chmod(0o755)
    ended = _check("--folder", str(tmp_path / "kept"), path=tmp_path)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert said in ended.stderr


@pytest.mark.process
@pytest.mark.slow
def test_help_says_what_it_needs(tmp_path: Path) -> None:
    ended = _check("--help", path=tmp_path)
    assert ended.returncode == 0
    assert "apt-get install podman runc haproxy debootstrap" in ended.stdout


def _check(*words: str, path: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.system.kube", *words]
    environment = os.environ | {"PATH": str(path)}
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
