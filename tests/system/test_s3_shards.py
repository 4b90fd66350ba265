"""Training on shards in a bucket of a real S3 server, of which few fit on this machine, whatever fails amid it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from tests.support.photo_files import write
from tests.support.proxy import cutting_proxy
from tests.support.runs import same_weights
from tests.support.s3 import S3Server
from tests.support.server import PATIENCE, PROJECT
from tests.support.shard_files import archive, samples
from tests.support.waiting import block_until

pytestmark = pytest.mark.slow

SHARDS, EACH = 8, 12
TRAIN = [
    *("--recipe", "mnist_cnn", "--epochs", "2", "--batch-size", "8", "--workers", "1", "--device", "cpu"),
    *("--no-pictures", "--set", "source.mixed=2", "--set", "held_out=0.1", "--save-minutes", "0", "--name", "birds"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    def photo(seed: int) -> bytes:
        return write(tmp_path / "one.jpg", seed=seed).read_bytes()

    for i in range(SHARDS):
        archive(tmp_path / "birds" / f"data-{i:03}.tar", samples(photo, EACH * i, EACH))
    return tmp_path / "birds"


@pytest.fixture
def url(s3: S3Server, folder: Path) -> str:
    """The shards of the folder, in a bucket."""
    url = f"{s3.new_url()}/birds"
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    for path in folder.glob("*.tar"):
        files.put_file(str(path), f"{url}/{path.name}")
    return url


@pytest.fixture
def few(folder: Path) -> list[str]:
    """Room for half of the shards, and for what is measured."""
    sizes = [path.stat().st_size for path in folder.glob("*.tar")]
    return ["--cache-gb", str((4 * max(sizes) + sum(sizes) / 3) / 1e9)]


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Starts a training with a folder of its own, in one thread."""

    def started(pattern: str, runs: str, *flags: str) -> "subprocess.Popen[str]":
        places = ["--runs", str(tmp_path / runs), "--store", str(tmp_path / f"store-{runs}")]
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "training", "shards", pattern, *TRAIN, *places, *flags],
            cwd=PROJECT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return started


@pytest.fixture
def whole(folder: Path, started: Callable[..., "subprocess.Popen[str]"], tmp_path: Path) -> Path:
    """What comes of the shards in the folder."""
    return published(started(f"{folder}/*.tar", "whole"), tmp_path / "store-whole")


def published(process: "subprocess.Popen[str]", store: Path) -> Path:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return store / "birds" / "1.safetensors"


def test_a_run_that_is_killed_amid_an_epoch_gives_in_the_end_the_weights_of_the_shards_in_a_folder(
    url: str, few: list[str], whole: Path, started: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    with started(f"{url}/data-{{000..007}}.tar", "s3", *few) as killed:
        block_until((tmp_path / "s3" / "birds" / "partial_epoch.pth.tar").exists)
        killed.kill()
    shards = list((tmp_path / "s3" / "shards" / "0").glob("*.tar"))
    assert 0 < len(shards) < SHARDS
    again = started(f"{url}/data-{{000..007}}.tar", "s3", *few, "--resume")
    assert same_weights(published(again, tmp_path / "store-s3"), whole)


def test_a_network_that_fails_amid_a_run_is_waited_for(
    s3: S3Server,
    url: str,
    few: list[str],
    whole: Path,
    started: Callable[..., "subprocess.Popen[str]"],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with cutting_proxy(s3.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        proxy.bytes_left = 8_000  # a listing is shorter than that, and a shard is longer
        process = started(f"{url}/*.tar", "s3", *few)
        assert process.stdout is not None
        assert any("trying again in 1 s" in line for line in process.stdout)
        proxy.bytes_left = None
        assert same_weights(published(process, tmp_path / "store-s3"), whole)


def test_shards_that_are_not_there_or_a_bucket_that_is_not_are_one_line_and_2(
    url: str, started: Callable[..., "subprocess.Popen[str]"]
) -> None:
    for pattern in (f"{url}/other-*.tar", "s3://no-such-bucket-at-all/data-{0..9}.tar"):
        process = started(pattern, "s3")
        said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2
        line = said.splitlines()[-1]
        assert line.startswith("python -m training: ")
        assert "there is no such shard" in line
