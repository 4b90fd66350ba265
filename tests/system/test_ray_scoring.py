"""`python -m app score --ray` on a cluster of two nodes: the rows of one machine, whatever node ends."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkpoints import PHOTOS, checkpoint, png, publish
from tests.support.cluster import needed
from tests.support.ray_cluster import RayCluster, environment, ray_cluster
from tests.support.server import PATIENCE, PROJECT
from tests.support.waiting import block_until

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

COUNT = 1000


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(nodes=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, one of which is damaged, and a store."""
    folder = tmp_path_factory.mktemp("scored")
    publish(folder / "store", 1, checkpoint(architecture="resnet18", preprocess=PHOTOS))
    for i in range(COUNT):
        (folder / "photos").mkdir(exist_ok=True)
        (folder / "photos" / f"{i:04}.png").write_bytes(png(i % 40, (64, 64), "RGB") if i != 500 else b"no image")
    return folder


@pytest.fixture(scope="module")
def local(folder: Path) -> str:
    """The rows of one machine."""
    process = scoring(folder, "local.jsonl")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return (folder / "local.jsonl").read_text()


def scoring(folder: Path, out: str, *flags: str) -> "subprocess.Popen[str]":
    places = [str(folder / "photos"), "--store", str(folder / "store"), "--out", str(folder / out), "--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, "-m", "app", "score", *places, *flags],
        cwd=PROJECT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_rows_are_those_of_one_machine_bit_for_bit(cluster: RayCluster, folder: Path, local: str) -> None:
    process = scoring(folder, "rows.jsonl", "--ray", cluster.address)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert (folder / "rows.jsonl").read_text() == local


def test_a_node_that_is_killed_amid_it_loses_no_row(cluster: RayCluster, folder: Path, local: str) -> None:
    cluster.add_node()
    process = scoring(folder, "killed.jsonl", "--ray", cluster.address)
    parts = folder / "killed.jsonl.parts"
    block_until(lambda: any(parts.glob("*.jsonl")) or process.poll() is not None)
    cluster.kill_node()
    assert process.poll() is None  # or else it was too late
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert (folder / "killed.jsonl").read_text() == local


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:1", "no Ray cluster answers there"),
        ("nowhere", "no Ray cluster answers there"),
        ("ray://127.0.0.1:10001", "not through ray://"),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line_and_2(folder: Path, address: str, why: str) -> None:
    needed("ray")
    process = scoring(folder, "never.jsonl", "--ray", address)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert why in errors
    assert errors.count("\n") == 1
    assert not list(folder.glob("never*"))


def test_a_node_with_other_versions_or_without_the_images_is_named() -> None:
    needed("ray")
    from app.scoring.errors import ScoringError
    from app.scoring.ray_data import _check_like, _look
    from app.scoring.sources import Source

    ours = _look(Source("photo.png", __file__))
    assert ours[1] == [None]
    _check_like("10.0.0.3", ours, ours)
    with pytest.raises(ScoringError, match=r"node 10\.0\.0\.3 has torch 1\.0, and this machine .*: install the same"):
        _check_like("10.0.0.3", (ours[0] | {"torch": "1.0"}, ours[1]), ours)
    blind = _look(Source("photo.png", "/nowhere/photo.png"))
    with pytest.raises(
        ScoringError, match=r"cannot read what this machine can \(photo\.png: .*a folder that all nodes"
    ):
        _check_like("10.0.0.3", blind, ours)
    _check_like("10.0.0.3", blind, blind)  # it is a row that says so
