"""`benchmarks.gpu.run` runs where there is no GPU, names what fails and keeps the rest, and judges its targets."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.gpu.ceilings import Decoding, Forward
from benchmarks.gpu.engine import Engine
from benchmarks.gpu.over_http import Http
from benchmarks.gpu.report import Ceilings, Row, findings
from tests.support.server import PROJECT

SMALL = (
    "--device",
    "cpu",
    "--networks",
    "mnist_cnn",
    "--precisions",
    "fp32",
    "--batches",
    "1",
    "4",
    "--seconds",
    "0.2",
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
    return folder


def _run(*arguments: str, photos: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.gpu.run", *SMALL, "--photos", str(photos), *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.slow
def test_every_stage_measures_something_on_a_cpu(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    ended = _run("--clients", "2", "--json", str(file), photos=photos)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(file.read_text())
    assert [row["batch"] for row in found["forward"]] == [1, 4]
    assert len(found["decoding"]) >= 1
    assert [row["items"] for row in found["engine"]] == [1, 32]
    closed, at_a_rate = found["http"]
    assert closed["rate"] is None
    assert at_a_rate["rate"] == pytest.approx(0.7 * closed["images_per_second"], abs=1e-3)
    assert [row["failed"] for row in found["http"]] == [{}, {}]
    rates = [row["images_per_second"] for stage in ("forward", "engine", "http") for row in found[stage]]
    assert all(rate > 0 for rate in rates)
    assert found["failures"] == {}


@pytest.mark.slow
def test_a_stage_that_fails_is_named_and_what_others_measured_is_kept(photos: Path, tmp_path: Path) -> None:
    for photo in photos.iterdir():
        photo.write_bytes(b"no image")
    file = tmp_path / "figures.json"
    ended = _run("--stages", "decoding", "forward", "--json", str(file), photos=photos)
    assert ended.returncode == 1
    assert "these bytes are no image" in ended.stderr
    found = json.loads(file.read_text())
    assert list(found["failures"]) == ["decoding"]
    assert len(found["forward"]) == 2


def test_the_best_of_each_is_judged_beside_its_ceiling() -> None:
    rows: list[Row] = [
        Forward("resnet50", "fp32", 1, 500.0, 2.0),
        Forward("resnet50", "fp32", 64, 4000.0, 16.0),
        Decoding("16 processes", 5000.0),
        Decoding("GPU", 9000.0, on_gpu=True),
        Engine("resnet50", "fp32", 64, 1, 3000.0, 80.0),
        Engine("resnet50", "fp32", 64, 32, 3900.0, 99.0),
        _http(8, None, 1000.0),
        _http(512, None, 3500.0),
        _http(512, 2450.0, 2450.0),
    ]
    assert [(each.what, round(each.value, 3), each.met) for each in findings(rows)] == [
        ("resnet50, fp32, engine: of its ceiling", 0.975, True),
        ("resnet50, fp32, http: of its ceiling", 0.875, False),
        ("resnet50, fp32, http: GPU busy, %", 88.0, False),
        ("resnet50, fp32, http: p99 at 2,450 a second, ms", 20.0, True),
    ]
    assert Ceilings(rows).decoding == 5000.0


def _http(clients: int, rate: float | None, images_per_second: float) -> Http:
    return Http("resnet50", "fp32", clients, rate, images_per_second, 10.0, 20.0, 88.0, 900.0, {}, 0.3)
