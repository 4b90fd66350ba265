"""The Makefile tells in one line what a machine lacks."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.server import PATIENCE, PROJECT


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
    ended = subprocess.run(
        ["make", "demo", f"PYTHON={python}"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},  # of the outer make
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode != 0
    assert said in ended.stdout
    assert len(ended.stdout.splitlines()) == 1
    assert not (tmp_path / ".venv").exists()
