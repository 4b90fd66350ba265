"""Transfer and fine-tuning from end to end: real photos, a checkpoint to start from, and exactly what may change."""

import json
import shutil
from pathlib import Path

import httpx2
import pytest
import torch

from classifier.checkpoint import Checkpoint
from classifier.preprocess import Preprocess
from classifier.progress import Progress
from tests.support import checkpoints
from tests.support.runs import CtrlC, Train, same_weights
from tests.support.server import serving
from training.errors import Interrupted, TrainingError
from training.recipes.builtin import builtin

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SMALL = Preprocess(mode="RGB", resize=72, crop=(64, 64), **IMAGENET)


@pytest.fixture
def photos(shared_data: Path, tmp_path: Path) -> Path:
    """A few real ants and bees."""
    source, folder = shared_data / "hymenoptera", tmp_path / "insects"
    for part, count in (("train", 8), ("val", 2)):
        for label in ("ants", "bees"):
            target = folder / part / label
            target.mkdir(parents=True)
            for path in sorted((source / part / label).glob("*.jpg"))[:count]:
                shutil.copy(path, target)
    return folder


def parent(tmp_path: Path, architecture: str, preprocess: Preprocess) -> Path:
    """A published checkpoint of that architecture: ten classes, weights from a seed."""
    content = checkpoints.checkpoint(architecture=architecture, preprocess=preprocess, model="parent")
    return checkpoints.publish(tmp_path / "store", 1, content, model="parent")


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parent(tmp_path_factory.mktemp("alexnet"), "alexnet", builtin("photos", "alexnet_transfer").preprocess)


def changed_names(before: dict[str, torch.Tensor], path: Path) -> set[str]:
    after = Checkpoint.load(path).network
    return {name for name in after if name not in before or not before[name].equal(after[name])}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe_name", "features", "trained"),
    [
        ("alexnet_transfer", "0.", {"4.weight", "4.bias"}),
        (
            "alexnet_finetune",
            "features.",
            {f"classifier.{layer}.{kind}" for layer in (0, 3, 6) for kind in ("weight", "bias")},
        ),
    ],
)
def test_alexnet_s_features_stay_and_its_new_classifier_is_trained_and_served(
    run: Train, photos: Path, tmp_path: Path, alexnet: Path, recipe_name: str, features: str, trained: set[str]
) -> None:
    recipe = builtin("photos", recipe_name).replace(epochs=1, batch_size=8, augment={})
    path = run(recipe, data=photos, parent=alexnet, workers=0)
    backbone = {
        name.replace("features.", features): tensor
        for name, tensor in Checkpoint.load(alexnet).network.items()
        if name.startswith("features.")
    }
    assert changed_names(backbone, path) == trained
    provenance = Checkpoint.load(path).manifest.provenance
    assert provenance is not None
    assert (path.parent.name, provenance.dataset.name) == ("insects", "insects")

    photo = next((photos / "val" / "bees").iterdir()).read_bytes()
    with serving(tmp_path / "store", "--device", "cpu", "--model", "insects") as server:
        answer = httpx2.post(f"{server.url}/predict", files={"file": photo}, timeout=60).json()
    assert answer["model"] == "insects"
    assert {row["label"] for row in answer["predictions"]} == {"ants", "bees"}


@pytest.mark.slow
@pytest.mark.parametrize("augment", [{}, {"flip": True}], ids=["on stored features", "on images"])
def test_the_head_alone_changes_and_no_statistics_of_a_frozen_norm(
    run: Train, photos: Path, tmp_path: Path, augment: dict[str, object]
) -> None:
    origin = parent(tmp_path, "resnet18", SMALL)
    recipe = builtin("photos", "transfer:resnet18").replace(
        preprocess=SMALL.model_dump(), epochs=2, batch_size=8, augment=augment
    )
    path = run(recipe, data=photos, parent=origin, workers=0)
    assert changed_names(dict(Checkpoint.load(origin).network), path) == {"fc.weight", "fc.bias"}
    assert (tmp_path / "runs" / "features").exists() == (augment == {})


@pytest.mark.slow
def test_a_second_stage_trains_everything(run: Train, photos: Path, tmp_path: Path) -> None:
    origin = parent(tmp_path, "resnet18", SMALL)
    recipe = builtin("photos", "finetune:resnet18").replace(
        preprocess=SMALL.model_dump(), epochs=1, unfreeze={"epochs": 2, "lr": 0.01}, batch_size=8, augment={}
    )
    path = run(recipe, data=photos, parent=origin, workers=0)
    before = dict(Checkpoint.load(origin).network)
    provenance = Checkpoint.load(path).manifest.provenance
    assert provenance is not None
    changed = changed_names(before, path)
    assert changed == (set(before) if provenance.epoch > 1 else {"fc.weight", "fc.bias"})
    lines = (tmp_path / "runs" / "insects" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


@pytest.mark.slow
def test_photos_that_are_cut_and_turned_at_random_give_the_same_weights_when_resumed_and_with_any_workers(
    run: Train, photos: Path
) -> None:
    recipe = builtin("photos", "scratch:resnet18").replace(
        preprocess=SMALL.model_dump(), epochs=2, batch_size=5, augment={"crop": (0.3, 1), "trivial": True, "flip": True}
    )

    whole = run(recipe, data=photos, workers=0)
    with pytest.raises(Interrupted):
        run(recipe, data=photos, workers=0, progress=CtrlC(Progress.silent().console, "epoch 2/"))
    assert same_weights(run(recipe, data=photos, workers=2, resume=True), whole)


@pytest.mark.slow
def test_stored_features_are_used_again_and_never_believed_when_cut_short(
    run: Train, photos: Path, tmp_path: Path
) -> None:
    origin = parent(tmp_path, "resnet18", SMALL)
    recipe = builtin("photos", "transfer:resnet18").replace(preprocess=SMALL.model_dump(), epochs=2, batch_size=8)

    def trained() -> dict[str, torch.Tensor]:
        return dict(Checkpoint.load(run(recipe, data=photos, parent=origin, workers=0)).network)

    first = trained()
    kept = sorted((tmp_path / "runs" / "features").iterdir())
    written = [path.stat().st_mtime_ns for path in kept]
    second = trained()
    assert [path.stat().st_mtime_ns for path in kept] == written
    for path in kept:
        path.write_bytes(path.read_bytes()[:-40])
    third = trained()
    for other in (second, third):
        assert all(first[name].equal(other[name]) for name in first)


@pytest.mark.slow
def test_other_frozen_weights_have_features_of_their_own(run: Train, photos: Path, tmp_path: Path) -> None:
    recipe = builtin("photos", "transfer:resnet18").replace(preprocess=SMALL.model_dump(), epochs=2, batch_size=8)
    for seed in (0, 1):
        content = checkpoints.checkpoint(seed, architecture="resnet18", preprocess=SMALL, model="parent")
        origin = checkpoints.publish(tmp_path / "store", seed + 1, content, model="parent")
        run(recipe, data=photos, parent=origin, workers=0)
    assert len(list((tmp_path / "runs" / "features").iterdir())) == 4


@pytest.mark.slow
def test_a_backbone_of_another_kind_is_refused(run: Train, photos: Path, tmp_path: Path) -> None:
    origin = parent(tmp_path, "resnet18", SMALL)
    recipe = builtin("photos", "alexnet_transfer").replace(epochs=1)
    with pytest.raises(TrainingError, match="cannot start from weights of resnet18"):
        run(recipe, data=photos, parent=origin, workers=0)
