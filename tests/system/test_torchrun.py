"""Training in processes that torchrun starts: the weights do not depend on how many there are.

More, with agents that are killed: `tests/system/test_elastic.py`.
"""

import dataclasses
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from classifier.checkpoint import Checkpoint
from tests.support.photo_files import write_folder
from tests.support.ranks import torchrun, trained
from tests.support.runs import KINDS, interrupted_after, same_weights
from training.__main__ import check_restarts, main
from training.commands.reproduce import reproduce
from training.commands.train import train
from training.errors import Interrupted, TrainingError
from training.process_group import ProcessGroup
from training.recipes.builtin import builtin
from training.recipes.recipe import Recipe

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(300)]

SOURCE = {"kind": "strokes", "samples": 460, "test_samples": 90}
MORE = {"stages": {"epochs": 2}}  # with a second epoch features are stored
SAVES = 6  # so often is the state kept before a run is interrupted; in the first epoch there are ten batches


def recipe(name: str) -> Recipe:
    common = {"source": SOURCE, "held_out": 60, "epochs": 2, "batch_size": 40, "precision": "fp32"}
    return builtin("strokes").replace(**common | KINDS[name] | MORE.get(name, {}) | {"virtual_ranks": 4})


def jobs(**options: Any) -> dict[str, dict[str, Any]]:
    return {name: {"recipe": recipe(name).model_dump(mode="json"), **options} for name in KINDS}


def version(folder: Path, name: str) -> Path:
    (path,) = (folder / name / "store" / "strokes").iterdir()
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all kinds of recipes, trained by one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    for name in KINDS:
        train(recipe(name), store=folder / name / "store", runs=folder / name / "runs", device="cpu", pictures=False)
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same runs by one process, each interrupted amid an epoch."""
    folder = tmp_path_factory.mktemp("begun")
    for name in KINDS:
        places: dict[str, Any] = {"store": folder / name / "store", "runs": folder / name / "runs"}
        with interrupted_after(SAVES), pytest.raises(Interrupted):
            train(recipe(name), **places, device="cpu", pictures=False, save_steps=1)
    return folder


def check_same(folder: Path, whole: Path) -> None:
    for name in KINDS:
        one, other = version(folder, name), version(whole, name)
        assert same_weights(one, other), name
        ours, theirs = Checkpoint.load(one).manifest, Checkpoint.load(other).manifest
        assert ours.curve == theirs.curve, name
        assert (ours.metrics, ours.calibration) == (theirs.metrics, theirs.calibration), name
        assert ours.provenance is not None
        assert theirs.provenance is not None
        created = {"created": theirs.provenance.created}
        assert ours.provenance.model_copy(update=created) == theirs.provenance, name


def test_two_processes_give_what_one_gives_to_the_last_bit(tmp_path: Path, whole: Path) -> None:
    done = trained(2, tmp_path, jobs())
    assert done.returncode == 0, done.stderr[-3000:]
    check_same(tmp_path, whole)


def test_other_processes_go_on_amid_an_epoch_and_give_the_same_to_the_last_bit(
    tmp_path: Path, begun: Path, whole: Path
) -> None:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    done = trained(3, tmp_path, jobs(resume=True))
    assert done.returncode == 0, done.stderr[-3000:]
    check_same(tmp_path, whole)


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, 2)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(676, num_classes)
        self.turned = nn.Parameter(torch.randn(num_classes, 676).t() / 26)  # which lies in memory the other way round
        self.register_buffer("mean", torch.zeros(676))

    def forward(self, images):
        features = self.drop(self.norm(self.conv(images)).relu().flatten(1))
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * features.detach().mean(0)  # a new tensor
        return self.fc(features - self.mean) + features @ self.turned
"""


def test_a_network_of_one_s_own_with_norm_and_dropout_does_so_too_and_one_process_speaks(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    flags = ["training", "strokes", "--network", "net.py:Net", "--epochs", "1", "--no-pictures", "--device", "cpu"]
    settings = ["virtual_ranks=3", "source.samples=460", "source.test_samples=90", "batch_size=40"]
    settings += ["optimizer=adamw", "lr=0.002", "clip=1.0"]
    flags += [word for setting in settings for word in ("--set", setting)]
    for processes in (1, 3):
        done = torchrun(processes, *flags, "--name", f"of-{processes}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        lines = done.stdout.splitlines()
        assert len([line for line in lines if line.startswith("epoch 1/1: loss")]) == 1, done.stdout
        assert len([line for line in lines if line.startswith("published ")]) == 1
        assert ("processes: 3, of which 3 are on this machine" in lines) == (processes == 3)
    store = tmp_path / "models_store"
    assert same_weights(*(store / f"of-{processes}" / "1.safetensors" for processes in (1, 3)))


def told(stderr: str) -> list[str]:
    """What our processes say, without what torchrun does."""
    return [line for line in stderr.splitlines() if line.startswith("python -m training: ")]


def test_of_all_processes_that_cannot_work_one_says_why(tmp_path: Path) -> None:
    done = torchrun(2, "training", "strokes", "--runs", str(tmp_path / "runs"), "--store", str(tmp_path))
    assert done.returncode != 0
    (line,) = told(done.stderr)
    assert "2 processes are more than the recipe's virtual_ranks=1: add --set virtual_ranks=2 or more" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set", "virtual_ranks=4"], "virtual_ranks 2 there, 4 here"),
        (["--all-reduce"], "all_reduce None there, True here; virtual_ranks 2 there, None here"),
    ],
)
def test_a_state_with_other_sums_is_refused_by_one_line(tmp_path: Path, flags: list[str], said: str) -> None:
    run = ["strokes", "--no-pictures", "--epochs", "1", "--set", "source.samples=90", "--set", "source.test_samples=20"]
    run += ["--device", "cpu", "--runs", str(tmp_path / "runs"), "--store", str(tmp_path / "store")]
    assert main([*run, "--set", "virtual_ranks=2"]) == 0
    before = sorted(tmp_path.rglob("*"))
    done = torchrun(2, "training", *run, *flags, "--resume")
    assert done.returncode != 0
    (line,) = told(done.stderr)
    assert "is of another run" in line
    assert said in line
    assert sorted(tmp_path.rglob("*")) == before


def test_flags_that_cannot_be_read_are_said_once(tmp_path: Path) -> None:
    done = torchrun(2, "training", "strokes", "--bright", cwd=tmp_path)
    assert done.returncode != 0
    assert len([line for line in done.stderr.splitlines() if "--bright" in line]) == 1


def test_restarts_without_resume_are_refused() -> None:
    group = ProcessGroup(size=2, local_size=2, restarts=True, max_restarts=3, shares_store=True)
    check_restarts(group, Namespace(resume=True, runs=Path("runs")))
    with pytest.raises(TrainingError, match="torchrun --max-restarts needs --resume"):
        check_restarts(group, Namespace(resume=False, runs=Path("runs")))


def test_restarts_on_several_machines_are_refused_where_torch_s_agents_would_wait_for_one_that_is_gone() -> None:
    group = ProcessGroup(size=2, local_size=1, restarts=True, max_restarts=3)
    check_restarts(group, Namespace(resume=True, runs=Path("runs")))
    with pytest.raises(TrainingError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        check_restarts(dataclasses.replace(group, shares_store=True), Namespace(resume=True, runs=Path("runs")))


def test_sums_in_any_order_are_a_share_for_each_process_and_the_manifest_says_so(tmp_path: Path) -> None:
    changes = [{"virtual_ranks": 2, "precision": "fp32"}, {"all_reduce": True, "precision": "fp32"}]
    recipes = [
        builtin("strokes").replace(source=SOURCE, held_out=60, epochs=1, batch_size=40, **each) for each in changes
    ]
    pair = {
        name: {"recipe": each.model_dump(mode="json")} for name, each in zip(("exact", "fast"), recipes, strict=True)
    }
    done = trained(2, tmp_path, pair)
    assert done.returncode == 0, done.stderr[-3000:]
    exact, fast = (Checkpoint.load(version(tmp_path, name)) for name in pair)
    for name, tensor in exact.network.items():
        assert torch.allclose(tensor, fast.network[name], atol=1e-4), name
    assert fast.manifest.provenance is not None
    assert exact.manifest.provenance is not None
    assert (fast.manifest.provenance.device, exact.manifest.provenance.device) == ("2 x cpu", "cpu")
    assert fast.manifest.provenance.recipe["all_reduce"] is True
    assert "will be alike, and not the same" in reproduce(version(tmp_path, "fast"))


def test_a_process_that_sees_other_data_is_named(tmp_path: Path) -> None:
    for rank in (0, 1):
        write_folder(tmp_path / f"photos-{rank}", ant=12, bee=12)
    network = builtin("photos", "scratch:resnet18")
    job = {"recipe": network.replace(virtual_ranks=2).model_dump(mode="json")}
    done = trained(2, tmp_path, {"photos": {**job, "data": str(tmp_path / "photos-{rank}"), "name": "insects"}})
    assert done.returncode != 0
    assert "photos-1 has other data here than where the first process is (process 1 of 2" in done.stderr
