"""A checkpoint measured again."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from app.inference.verification import verify
from classifier.checkpoint import Checkpoint
from classifier.progress import Progress
from tests.support.checkpoints import saying, to_pixels
from tests.support.digits import write_mnist
from tests.support.photo_files import write_folder
from tests.support.program_checkpoints import program_checkpoint
from tests.support.runs import Train
from training.commands.evaluate import evaluate
from training.errors import TrainingError
from training.recipes.builtin import builtin
from training.recipes.recipe import Recipe


@pytest.fixture
def path(run: Train, tmp_path: Path) -> Path:
    folder = write_mnist(tmp_path / "data", train=300, test=80)
    return run(builtin("mnist").replace(epochs=1, held_out=50), data=folder)


def said(path: Path, data: Path, runs: Path) -> str:
    file = io.StringIO()
    evaluate(path, data=data, runs=runs, device="cpu", progress=Progress(Console(file=file, width=120)))
    return file.getvalue()


@pytest.mark.slow
def test_the_figures_stand_beside_the_manifest_s_and_are_the_same(path: Path, tmp_path: Path) -> None:
    table = said(path, tmp_path / "data", tmp_path / "runs")
    accuracy = Checkpoint.load(path).manifest.metrics
    assert accuracy is not None
    assert table.count(str(accuracy.accuracy)) == 2
    assert "differs" not in table
    assert "fingerprints" not in table


@pytest.mark.slow
def test_data_with_one_test_set_only_are_measured_on_it_whatever_is_asked_for(path: Path, tmp_path: Path) -> None:
    before = Checkpoint.load(path).manifest.metrics
    assert evaluate(path, data=tmp_path / "data", runs=tmp_path, device="cpu", test=True).metrics == before


@pytest.mark.slow
def test_other_data_are_told_from_those_it_was_trained_on(path: Path, tmp_path: Path) -> None:
    other = write_mnist(tmp_path / "other", train=310, test=70)
    table = said(path, other, tmp_path / "runs")
    assert "the fingerprints differ" in table
    assert "differs" in table


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    for name in ("junk.safetensors", "none.safetensors"):
        with pytest.raises(TrainingError, match=name) as caught:
            evaluate(tmp_path / name, data=tmp_path, runs=tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_network_whose_code_is_not_there_is_measured_as_it_is_served(tmp_path: Path) -> None:
    own = program_checkpoint(tmp_path)
    own.save(tmp_path / "1.safetensors")
    folder = write_folder(tmp_path / "photos" / "val", **dict.fromkeys(own.manifest.labels, 2))
    write_folder(tmp_path / "photos" / "train", **dict.fromkeys(own.manifest.labels, 2))
    measured = evaluate(tmp_path / "1.safetensors", data=folder.parent, runs=tmp_path / "runs", device="cpu")
    predictor = verify(tmp_path / "1.safetensors", device=torch.device("cpu"), max_items=4)
    files = sorted(folder.glob("*/*.jpg"))
    served = [int(predictor.logits([to_pixels(file.read_bytes())]).argmax()) for file in files]
    right = [label == int(file.parent.name) for file, label in zip(files, served, strict=True)]
    assert len(files) == measured.metrics.samples == 20
    assert measured.metrics.accuracy == pytest.approx(sum(right) / 20)


@pytest.mark.slow
def test_what_was_trained_here_is_measured_without_the_code_of_its_network(
    run: Train, tiny: Recipe, tmp_path: Path
) -> None:
    provenance = Checkpoint.load(run()).manifest.provenance
    assert provenance is not None
    planted = tmp_path / "planted.py"
    planted.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nNet = None\n")
    recipe = provenance.recipe | {"name": "scratch", "architecture": f"{planted}:Net"}
    own = program_checkpoint(tmp_path, preprocess=tiny.preprocess)
    own = saying(own, architecture=f"{planted}:Net", provenance=provenance.model_copy(update={"recipe": recipe}))
    own.save(tmp_path / "1.safetensors")
    measured = evaluate(tmp_path / "1.safetensors", data=tmp_path, runs=tmp_path / "runs", device="cpu")
    assert measured.metrics.samples == 150
    assert not (tmp_path / "ran").exists()
