"""The Makefile: what a machine lacks is one line, and so is what each target does."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.server import PATIENCE, PROJECT

MAKEFILE = (PROJECT / "Makefile").read_text()
TARGETS = list(dict.fromkeys(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)))


@pytest.mark.process
@pytest.mark.parametrize(
    ("fails_on", "said"),
    [("sys.version_info", "flambeau needs Python 3.11 or newer"), ("import venv", "apt-get install python3-venv")],
)
def test_a_python_that_will_not_do_is_one_clear_line(fails_on: str, said: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$2" in *"{fails_on}"*) exit 1;; esac\nexit 0\n')
    python.chmod(0o755)
    ended = _make("demo", f"PYTHON={python}", folder=tmp_path)
    assert ended.returncode != 0
    assert said in ended.stdout
    assert len(ended.stdout.splitlines()) == 1
    assert not (tmp_path / ".venv").exists()


@pytest.mark.process
def test_help_has_a_line_for_each_target() -> None:
    lines = _make("help").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["make", target] for target in TARGETS]
    assert all(len(line.split()) > 2 for line in lines)


def test_every_target_is_made_whatever_files_there_are() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)
    assert phony.split() == TARGETS


@pytest.mark.process
def test_coverage_is_the_suite_measured_then_its_floor() -> None:
    plain, measured, alias = (_steps(*words) for words in (["test"], ["test", "COVERAGE=1"], ["coverage"]))
    assert plain == ["python -m pytest --numprocesses 2 --dist loadfile"]
    assert measured == [
        "coverage erase",
        "python -m coverage run -m pytest --numprocesses 2 --dist loadfile",
        "coverage combine --quiet",
        "coverage report",
    ]
    assert alias == measured


def test_what_every_change_must_pass_is_make_targets() -> None:
    steps = [line for line in (PROJECT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    assert steps == ["make check", "make test COVERAGE=1", "make test-cluster", "make demo"]


def test_the_fast_tests_are_those_that_contributing_says() -> None:
    (marks,) = re.findall(r'-m "(not .*)"', MAKEFILE)
    assert f'-m "{marks}"' in (PROJECT / "CONTRIBUTING.md").read_text()


def _steps(*words: str) -> list[str]:
    """What make would do with the tools of its environment, which is taken to be installed."""
    lines = _make("--dry-run", "--old-file=.venv/installed", *words).stdout.splitlines()
    return [line.removeprefix(".venv/bin/") for line in lines if line.startswith(".venv/bin/")]


def _make(*words: str, folder: Path = PROJECT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", *words],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "COVERAGE"))},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
