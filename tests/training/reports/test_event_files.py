"""What TensorBoard reads of a run: as it reads it itself."""

import importlib.util
from pathlib import Path

import pytest

from tests.support.runs import Said, Train, interrupt
from training.recipes.recipe import Recipe
from training.reports.event_files import EventFiles

pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'flambeau[tensorboard]'")
pytestmark = pytest.mark.slow

RECORD = {"loss": 0.5, "held_out_loss": 0.75, "accuracy": 0.25, "held_out_accuracy": 1.0, "images_per_second": 9.0}


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def images(folder: Path) -> set[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    return set(read.Tags()["images"])


def test_each_epoch_is_a_point_of_each_curve(tmp_path: Path, said: Said) -> None:
    with EventFiles(tmp_path, said.progress) as events:
        for epoch in (1, 2, 3):
            events.add_epoch(RECORD | {"epoch": epoch, "loss": epoch / 4})
    found = curves(tmp_path)
    assert found["loss/training"] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    assert found["accuracy/held out"] == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert len(found) == 5
    assert str(said) == ""


def test_what_was_cut_off_is_shown_once_and_a_new_run_begins_anew(tmp_path: Path, said: Said) -> None:
    for after, epochs in ((0, (1, 2, 3)), (2, (3, 4))):  # the third epoch was not kept
        with EventFiles(tmp_path, said.progress, after=after) as events:
            for epoch in epochs:
                events.add_epoch(RECORD | {"epoch": epoch})
    assert [step for step, _ in curves(tmp_path)["loss/training"]] == [1, 2, 3, 4]
    with EventFiles(tmp_path, said.progress) as events:
        events.add_epoch(RECORD | {"epoch": 1})
    assert [step for step, _ in curves(tmp_path)["loss/training"]] == [1]


def test_a_run_writes_its_curves_and_its_pictures_and_goes_on_with_them(
    run: Train, tiny: Recipe, tmp_path: Path
) -> None:
    recipe = tiny.replace(epochs=3)
    interrupt(run, "epoch 3/", recipe)
    run(recipe, resume=True, pictures=True)
    folder = tmp_path / "runs" / "strokes"
    found = curves(folder)
    assert [step for step, _ in found["loss/held out"]] == [1, 2, 3]
    assert images(folder) == {"confusion", "confused", "mistakes", "reliability"}


def test_what_cannot_be_written_is_one_line_and_no_error(tmp_path: Path, said: Said) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    with EventFiles(tmp_path, said.progress) as events:
        events.add_epoch(RECORD | {"epoch": 1})
        events.add_epoch(RECORD | {"epoch": 2})
    assert str(said).startswith("the files for TensorBoard could not be written: ")
    assert str(said).count("\n") == 1


def test_without_tensorboard_nothing_is_written_and_nothing_said(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with EventFiles(tmp_path, said.progress) as events:
        events.add_epoch(RECORD | {"epoch": 1})
    assert list(tmp_path.iterdir()) == []
    assert str(said) == ""
