"""The command that makes a checkpoint again."""

import hashlib
import shlex
from pathlib import Path

import pytest

from classifier.checkpoint import Checkpoint
from classifier.manifest import Code
from tests.support.checkpoints import checkpoint, publish, saying
from tests.support.program_checkpoints import program_checkpoint
from tests.support.runs import Train, same_weights
from training.__main__ import main
from training.commands.reproduce import reproduce
from training.errors import TrainingError
from training.recipes.recipe import Recipe


@pytest.mark.slow
def test_the_printed_command_gives_the_same_weights_bit_for_bit(run: Train, tiny: Recipe, tmp_path: Path) -> None:
    path = run(tiny.replace(ema=0.9, label_smoothing=0.1, seed=3, augment={"shift": 2, "degrees": 5}), name="mine")
    *notes, command = reproduce(path).splitlines()
    assert all(note.startswith("# ") for note in notes)
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "training", "strokes"]
    folders = ["--store", str(tmp_path / "again"), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    assert main([*words[3:], *folders]) == 0
    assert same_weights(path, tmp_path / "again" / "mine" / "1.safetensors")


@pytest.mark.slow
def test_the_notes_say_what_else_it_takes(run: Train) -> None:
    first = run(name="first")
    notes = reproduce(run(name="second", parent=first))
    assert "torch 2." in notes
    assert "on cpu; threads of torch: 1" in notes
    assert "fingerprint" in notes
    assert "--from models_store/first/1.safetensors" in notes


def test_what_was_not_trained_here_is_refused(tmp_path: Path) -> None:
    path = publish(tmp_path, 1, checkpoint())
    with pytest.raises(TrainingError, match="does not say how it was trained"):
        reproduce(path)
    for content in (b"junk", b""):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"1\.safetensors"):
            reproduce(path)
    with pytest.raises(TrainingError, match=r"2\.safetensors"):
        reproduce(path.with_name("2.safetensors"))


@pytest.mark.slow
def test_an_exported_network_that_was_not_trained_here_is_refused_in_the_same_words(tmp_path: Path) -> None:
    path = publish(tmp_path, 1, program_checkpoint(tmp_path))
    with pytest.raises(TrainingError, match="does not say how it was trained"):
        reproduce(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../net.py", "/net.py", "a/net.py", "-net.py", "net\n.py"])
def test_code_with_a_name_that_is_none_of_a_file_is_not_written(
    run: Train, tiny: Recipe, tmp_path: Path, name: str
) -> None:
    manifest = Checkpoint.load(run(tiny.replace(epochs=1))).manifest
    assert manifest.provenance is not None
    recipe = {**manifest.provenance.recipe, "architecture": "net.py:Net", "name": "scratch"}
    text = "raise SystemExit"
    code = Code(file=name, sha256=hashlib.sha256(text.encode()).hexdigest(), text=text)
    provenance = manifest.provenance.model_copy(update={"recipe": recipe})
    path = publish(tmp_path / "hostile", 1, saying(checkpoint(), provenance=provenance, code=code))
    folder = tmp_path / "here"
    folder.mkdir()
    with pytest.raises(TrainingError, match="which is no name of a file"):
        reproduce(path, folder)
    assert not list(folder.iterdir())
