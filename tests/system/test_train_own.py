"""Networks of a person's own are trained like those that are built in: recipes, stages, resuming, starting weights."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from classifier.checkpoint import Checkpoint, Header
from classifier.progress import Progress
from tests.support.own_code import SMALL
from tests.support.photo_files import write_folder
from tests.support.runs import CtrlC, Said, Train, same_weights
from training.__main__ import main
from training.commands.evaluate import evaluate
from training.commands.reproduce import reproduce
from training.errors import Interrupted, TrainingError
from training.networks import own_code
from training.recipes.builtin import builtin
from training.recipes.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_net.py"
    path.write_text(SMALL)
    return path


def own(file: Path, tiny: Recipe, family: str = "scratch", *, name: str = "Small", **changes: Any) -> Recipe:
    """The recipe of that family for the network in the file, as small as a run gets."""
    recipe = builtin("strokes", family, network=own_code.load(f"{file}:{name}").architecture)
    small = {"source": tiny.source.model_dump(), "held_out": 100, "epochs": 2, "batch_size": 32}
    return recipe.replace(**(small | changes))


def test_the_checkpoint_holds_the_program_and_the_code(run: Train, tiny: Recipe, file: Path) -> None:
    path = run(own(file, tiny, network={"width": 6}))
    checkpoint = Checkpoint.load(path)
    manifest = checkpoint.manifest
    assert (manifest.architecture, manifest.format) == ("my_net.py:Small", 2)
    assert manifest.program is not None
    assert manifest.code is not None
    assert (manifest.code.file, manifest.code.text) == ("my_net.py", SMALL)
    assert checkpoint.network["body.0.weight"].shape[0] == 6
    assert str(file.parent) not in manifest.to_json()
    assert manifest.provenance is not None
    assert manifest.provenance.recipe["network"] == {"width": 6}
    assert b"/my_net.py" not in path.read_bytes()


def test_it_is_measured_again_without_the_code(run: Train, tiny: Recipe, file: Path, tmp_path: Path) -> None:
    path = run(own(file, tiny))
    file.unlink()
    own_code._KNOWN.clear()
    again = evaluate(path, data=tmp_path, runs=tmp_path / "runs", device="cpu")
    assert again.metrics == Header.read(path).manifest.metrics


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": {"shift": 1}},
        {"ema": 0.9, "clip": 1.0},
        {"trainable": "head", "unfreeze": {"epochs": 2, "lr": 0.01}, "epochs": 1, "ema": 0.5},
    ],
    ids=["shift", "ema", "stages"],
)
def test_a_resumed_run_gives_bit_for_bit_the_weights_of_one_that_never_stopped(
    run: Train, tiny: Recipe, file: Path, changes: dict[str, Any]
) -> None:
    recipe = own(file, tiny, **({"epochs": 3} | changes))
    whole = run(recipe)
    for stop in ("epoch 2/", "epoch 3/"):
        with pytest.raises(Interrupted):
            run(recipe, progress=CtrlC(Progress.silent().console, stop))
        assert same_weights(run(recipe, resume=True), whole)


def test_the_same_file_in_another_folder_resumes(run: Train, tiny: Recipe, file: Path, tmp_path: Path) -> None:
    recipe = own(file, tiny)
    whole = run(recipe)
    with pytest.raises(Interrupted):
        run(recipe, progress=CtrlC(Progress.silent().console, "epoch 2/"))
    (tmp_path / "moved").mkdir()
    moved = Path(shutil.move(file, tmp_path / "moved" / "my_net.py"))
    assert same_weights(run(own(moved, tiny), resume=True), whole)


def test_changed_code_does_not_resume(run: Train, tiny: Recipe, file: Path) -> None:
    with pytest.raises(Interrupted):
        run(own(file, tiny), progress=CtrlC(Progress.silent().console, "epoch 2/"))
    file.write_text(f"{SMALL}\n# changed\n")
    with pytest.raises(TrainingError, match=r"trained with other code: my_net\.py is not what it was; take the change"):
        run(own(file, tiny), resume=True)


def test_a_backbone_is_taken_over_and_its_features_are_stored(
    run: Train, tiny: Recipe, file: Path, tmp_path: Path
) -> None:
    first = run(own(file, tiny))
    second = run(own(file, tiny, "transfer", epochs=3), parent=first, name="transferred")
    assert len(list((tmp_path / "runs" / "features").glob("*.npy"))) == 2
    before, after = Checkpoint.load(first), Checkpoint.load(second)
    assert before.network["body.0.weight"].equal(after.network["body.0.weight"])
    assert not before.network["fc.weight"].equal(after.network["fc.weight"])
    assert after.manifest.provenance is not None
    assert str(after.manifest.provenance.parent).startswith("strokes/1 ")


def test_fine_tuning_has_two_stages(run: Train, tiny: Recipe, file: Path) -> None:
    first = run(own(file, tiny))
    recipe = own(file, tiny, "finetune", epochs=1, unfreeze={"epochs": 1, "lr": 0.01})
    second = run(recipe, parent=first, name="tuned")
    curve = Checkpoint.load(second).manifest.curve
    assert curve is not None
    assert len(curve) == 2


def test_training_goes_on_with_a_checkpoint(run: Train, tiny: Recipe, file: Path) -> None:
    first = run(own(file, tiny))
    went_on = run(own(file, tiny, epochs=1, lr=1e-6, lr_continued=1e-6, augment={}), parent=first)
    before, after = Checkpoint.load(first), Checkpoint.load(went_on)
    assert torch.allclose(before.network["fc.weight"], after.network["fc.weight"], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": {"width": 8}}, r"its weights do not fit my_net\.py:Small: .*size mismatch"),
        (
            {"name": "Other"},
            r"architecture: my_net\.py:Small, this recipe's: my_net\.py:Other; .* --recipe transfer",
        ),
    ],
)
def test_weights_of_another_network_are_refused(
    run: Train, tiny: Recipe, file: Path, changes: dict[str, Any], said: str
) -> None:
    file.write_text(f"{SMALL}\n\nclass Other(Small):\n    pass\n")
    first = run(own(file, tiny))
    with pytest.raises(TrainingError, match=said):
        run(own(file, tiny, **changes), parent=first)


def test_tied_weights_are_trained_averaged_and_taken_over(run: Train, tiny: Recipe, file: Path) -> None:
    tied = "        self.again = nn.Conv2d(width, width, 1)\n        self.more = self.again\n"
    used = "self.more(self.again(self.body(images)))"
    file.write_text(SMALL.replace("        self.pool", f"{tied}        self.pool").replace("self.body(images)", used))
    first = run(own(file, tiny, ema=0.9))
    with pytest.raises(Interrupted):
        run(own(file, tiny, ema=0.9), progress=CtrlC(Progress.silent().console, "epoch 2/"))
    assert same_weights(run(own(file, tiny, ema=0.9), resume=True), first)
    for recipe in (own(file, tiny, epochs=1), own(file, tiny, "transfer", epochs=1)):
        assert run(recipe, parent=first).is_file()


@pytest.mark.parametrize("family", ["transfer", "finetune"])
def test_what_starts_from_weights_needs_a_checkpoint(run: Train, tiny: Recipe, file: Path, family: str) -> None:
    with pytest.raises(TrainingError, match=r"name a checkpoint of my_net\.py:Small by --from"):
        run(own(file, tiny, family))


def test_a_network_for_one_number_of_classes_has_no_head_to_find(run: Train, tiny: Recipe, file: Path) -> None:
    file.write_text(SMALL.replace("num_classes, in_channels=1", "in_channels=1").replace("num_classes", "10"))
    with pytest.raises(TrainingError, match=r"nothing in it depends on num_classes: name .* e.g. --set trainable=fc"):
        run(own(file, tiny, trainable="head"))
    assert run(own(file, tiny, trainable="fc", epochs=1)).is_file()


def test_what_the_constructor_has_frozen_stays_as_it_is(run: Train, tiny: Recipe, file: Path) -> None:
    frozen = "        self.body[0].weight.requires_grad = False\n        nn.init.ones_(self.body[0].weight)\n"
    file.write_text(SMALL.replace("        self.pool", f"{frozen}        self.pool"))
    weights = Checkpoint.load(run(own(file, tiny, ema=0.5))).network
    assert bool((weights["body.0.weight"] == 1).all())
    assert not bool((weights["body.0.bias"] == 0).all())


def test_helpers_of_the_file_are_named(run: Train, tiny: Recipe, file: Path, said: Said) -> None:
    (file.parent / "widths_of_mine.py").write_text("WIDTH = 4\n")
    file.write_text(f"from widths_of_mine import WIDTH\n{SMALL}")
    path = run(own(file, tiny, epochs=1), progress=said.progress)
    assert "my_net.py imports widths_of_mine.py: the checkpoint will hold the text of my_net.py alone" in str(said)
    assert "# it also imports widths_of_mine.py, which is not in the checkpoint" in reproduce(path, file.parent)


def test_the_printed_command_and_the_written_file_give_the_same_weights(
    run: Train, tiny: Recipe, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run(own(file, tiny, network={"width": 6}), name="mine")
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    *_, command = reproduce(path).splitlines()
    assert (empty / "my_net.py").read_text() == SMALL
    assert "--network my_net.py:Small --recipe scratch" in command
    words = [*command.split()[3:], "--store", "again", "--runs", "runs", "--device", "cpu", "--no-pictures"]
    assert main(words) == 0
    assert same_weights(path, empty / "again" / "mine" / "1.safetensors")


def test_the_code_is_not_written_over_another_file(run: Train, tiny: Recipe, file: Path, tmp_path: Path) -> None:
    path = run(own(file, tiny, epochs=1))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "my_net.py").write_text("# mine\n")
    for _ in range(2):
        command = reproduce(path, folder)
    assert (folder / "my_net.py").read_text() == "# mine\n"
    (written,) = folder.glob("my_net-*/my_net.py")
    assert written.read_text() == SMALL
    assert f"--network {written}:Small" in command


def test_a_network_for_photos_gets_what_is_usual_for_them(run: Train, tmp_path: Path, file: Path) -> None:
    write_folder(tmp_path / "photos", a=8, b=8)
    recipe = builtin("photos", network=own_code.load(f"{file}:Small").architecture)
    small = recipe.replace(epochs=1, batch_size=4, held_out=4)
    manifest = Checkpoint.load(run(small, data=tmp_path / "photos", workers=1)).manifest
    assert manifest.preprocess.shape == (224, 224, 3)
    assert len(manifest.labels) == 2
