"""One process at a time in a run's folder."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.runs import Said
from tests.support.server import PATIENCE, PROJECT
from tests.support.waiting import block_until
from training.errors import TrainingError
from training.runs.lock import only_run_in

HOLD = """
import pathlib, sys
from training.runs.lock import only_run_in
with only_run_in(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.process
def test_a_second_run_in_the_same_folder_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "digits"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout is not None
    assert first.stdin is not None
    assert first.stdout.readline() == "held\n"
    with pytest.raises(TrainingError, match="another run is at work"), only_run_in(folder):
        pass
    first.kill()  # it cannot tidy up
    first.wait(PATIENCE)
    first.stdin.close()
    first.stdout.close()
    with only_run_in(folder) as held:
        assert held == folder


@pytest.mark.slow
def test_who_has_patience_waits_for_a_run_that_is_ending_and_says_so_once(tmp_path: Path, said: Said) -> None:
    def wait_for_it() -> Path:
        with only_run_in(tmp_path, patience=PATIENCE, progress=said.progress) as folder:
            return folder

    with ThreadPoolExecutor(1) as pool:
        with only_run_in(tmp_path):
            waiting = pool.submit(wait_for_it)
            block_until(lambda: "another process is at work in" in str(said))
            with pytest.raises(TrainingError, match="another run is at work"), only_run_in(tmp_path, patience=0.2):
                pass
            assert not waiting.done()
        assert waiting.result(PATIENCE) == tmp_path
    assert str(said).count("another process is at work in") == 1
