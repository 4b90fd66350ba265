"""Training with workers in a container: /dev/shm has 64 MB there, less, or is not there at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dev_shm import with_dev_shm
from tests.support.photo_files import write_folder
from tests.support.server import PROJECT

# Four workers make 200 MB before the first batch is taken.
MANY_BATCHES = """
import torch
from training.data.workers import Workers

def batch(number):
    return torch.full((64, 3, 256, 256), number, dtype=torch.uint8)

if __name__ == "__main__":
    for number, images in enumerate(Workers(4, preload=("torch",)).map(batch, range(24))):
        assert images.shape == (64, 3, 256, 256) and (images == number).all()
    print("all came")
"""


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_batches_of_64_come_from_four_workers_where_there_are_64_mb(tmp_path: Path) -> None:
    script = tmp_path / "many_batches.py"
    script.write_text(MANY_BATCHES)
    assert _run("of 64 MB", tmp_path / "dev", str(script)) == "all came\n"


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("shape", ["of 4 kB", "missing"])
def test_photos_are_trained_on_and_evaluated(shape: str, tmp_path: Path) -> None:
    photos, checkpoint = write_folder(tmp_path / "photos", bees=20, ants=20), tmp_path / "photos" / "1.safetensors"
    small = ["--set", "preprocess.resize=32", "--set", "preprocess.crop=[32,32]", "--no-pictures", "--epochs", "1"]
    train = ["photos", str(photos), "--recipe", "scratch:mobilenet_v3_small", "--store", str(tmp_path), *small]
    _run(shape, tmp_path / "dev-1", "-m", "training", *train, "--workers", "2", "--runs", str(tmp_path / "runs"))
    evaluate = ["evaluate", str(checkpoint), "--data", str(photos), "--runs", str(tmp_path / "other")]
    _run(shape, tmp_path / "dev-2", "-m", "training", *evaluate, "--workers", "2")


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_digits_are_drawn(tmp_path: Path) -> None:
    draw = "from training.data.strokes.draw import draw_digits; print(len(draw_digits(6000, seed=0)[1]))"
    assert _run("read-only", tmp_path / "dev", "-c", draw) == "6000\n"


def _run(shape: str, folder: Path, *words: str) -> str:
    """Runs Python where /dev/shm has that shape, and returns what it printed. All must go well, and without a word."""
    command = with_dev_shm(shape, folder, [sys.executable, *words])
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout
