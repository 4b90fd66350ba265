"""A run from recipe to published version: reproducible, resumable, and honest about what it measured."""

import importlib.metadata
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classifier.checkpoint import Checkpoint, Header
from classifier.normalize import normalizer
from classifier.preprocess import Preprocess
from classifier.progress import Progress
from tests.support.runs import KINDS, Train, interrupt, same_weights
from training.commands.evaluate import evaluate
from training.data.dataset import load_dataset
from training.errors import Interrupted, TrainingError
from training.evaluation.logits import logits_of
from training.evaluation.score import Score
from training.recipes.builtin import builtin
from training.recipes.recipe import Recipe


@pytest.mark.slow
def test_a_run_publishes_a_checkpoint_that_says_what_it_is(run: Train, tiny: Recipe) -> None:
    path = run(name="my-digits")
    assert (path.name, path.parent.name) == ("1.safetensors", "my-digits")
    manifest = Checkpoint.load(path).manifest
    assert manifest.model == "my-digits"
    assert manifest.metrics is not None
    assert (manifest.metrics.split, manifest.metrics.samples) == ("test", 150)
    assert manifest.metrics.accuracy > 0.3
    provenance = manifest.provenance
    assert provenance is not None
    assert provenance.dataset.samples == 700
    recipe = Recipe.model_validate(provenance.recipe)
    assert recipe.precision in ("fp32", "bf16")  # what "auto" came to here
    assert recipe.replace(precision="auto") == tiny
    assert provenance.versions["torch"] == importlib.metadata.version("torch")
    assert provenance.created.utcoffset() is not None
    assert provenance.parent is None


@pytest.mark.slow
def test_the_measured_figures_come_out_again_to_the_last_digit(run: Train, tmp_path: Path) -> None:
    path = run()
    manifest = Checkpoint.load(path).manifest
    again = evaluate(path, data=tmp_path, runs=tmp_path / "runs", device="cpu")
    assert again.metrics == manifest.metrics
    assert again.evaluation.per_class == manifest.per_class
    assert again.evaluation.confusion.equal(Checkpoint.load(path).figures["confusion"])


@pytest.mark.slow
def test_the_reference_batch_is_repeated_by_the_published_weights(run: Train, tiny: Recipe) -> None:
    checkpoint = Checkpoint.load(run())
    reference = checkpoint.reference
    assert len(reference.encoded) == 8
    for png, pixels in zip(reference.encoded, reference.pixels.numpy(), strict=True):
        assert np.array_equal(tiny.preprocess.to_pixels(Image.open(io.BytesIO(png))), pixels)
    logits = checkpoint.build()(normalizer(tiny.preprocess, device=torch.device("cpu"))(reference.pixels))
    assert torch.allclose(logits, reference.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_gives_others(run: Train, tiny: Recipe) -> None:
    first, second, other = run(), run(), run(tiny.replace(seed=1))
    assert same_weights(first, second)
    assert not same_weights(first, other)


@pytest.mark.slow
def test_training_leaves_the_caller_s_random_numbers_alone(run: Train) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run()
    assert torch.rand(4).equal(expected)


@pytest.mark.slow
@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
def test_a_resumed_run_gives_bit_for_bit_the_weights_of_one_that_never_stopped(
    run: Train, tiny: Recipe, changes: dict[str, Any]
) -> None:
    recipe = tiny.replace(**({"epochs": 3} | changes))
    whole = run(recipe)
    for stop in ("epoch 2/", "epoch 3/"):
        assert "--resume" in interrupt(run, stop, recipe)
        assert same_weights(run(recipe, resume=True), whole)


@pytest.mark.slow
def test_a_run_that_is_cut_off_between_its_two_files_resumes_bit_for_bit(
    run: Train, tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tiny)
    replace, seen = Path.replace, 0

    def cut_off(self: Path, target: Path) -> Path:
        nonlocal seen
        seen += target.name == "checkpoint.pth.tar"
        if seen == 2:  # the second epoch's best is written, its state is not
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", cut_off)
        with pytest.raises(Interrupted, match="1 of 2 epochs"):
            run(tiny)
    assert same_weights(run(tiny, resume=True), whole)


@pytest.mark.slow
def test_a_new_run_leaves_nothing_of_the_one_before_it_to_resume(run: Train, tiny: Recipe) -> None:
    run(tiny)
    assert "nothing is kept" in interrupt(run, "epoch 1/")
    with pytest.raises(TrainingError, match="nothing to resume"):
        run(tiny, resume=True)


@pytest.mark.slow
def test_a_best_epoch_of_another_run_is_not_published(run: Train, tiny: Recipe, tmp_path: Path) -> None:
    recipe = tiny.replace(epochs=3)
    folder = tmp_path / "runs" / "strokes"
    interrupt(run, "epoch 2/", recipe)
    first_epoch_s = (folder / "model_best.pth.tar").read_bytes()
    provenance = Checkpoint.load(run(recipe)).manifest.provenance
    assert provenance is not None
    assert provenance.epoch > 1
    (folder / "model_best.pth.tar").write_bytes(first_epoch_s)
    with pytest.raises(TrainingError, match="is damaged"):
        run(recipe, resume=True)


@pytest.mark.slow
def test_a_resumed_run_with_dropout_is_the_same_too(run: Train, tiny: Recipe) -> None:
    pixels = Preprocess(mode="RGB", resize=(32, 32), crop=None, mean=(0.1,) * 3, std=(0.3,) * 3)
    source = {"kind": "strokes", "samples": 60, "test_samples": 10}
    recipe = tiny.replace(
        architecture="mobilenet_v3_small", preprocess=pixels.model_dump(), source=source, held_out=10, batch_size=25
    )
    whole = run(recipe)
    interrupt(run, "epoch 2/", recipe)
    assert same_weights(run(recipe, resume=True), whole)


@pytest.mark.slow
def test_ctrl_c_says_what_stands(run: Train, tmp_path: Path) -> None:
    assert "nothing is kept" in interrupt(run, "epoch 1/")
    assert "1 of 2 epochs are kept" in interrupt(run, "epoch 2/")
    assert not (tmp_path / "store" / "strokes").exists()


@pytest.mark.slow
def test_ctrl_c_while_publishing_keeps_all_epochs_for_resume(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as pressed:
        pressed.setattr("os.link", press)
        with pytest.raises(Interrupted, match=r"all epochs are kept.*--resume"):
            run()
    assert run(resume=True).name == "1.safetensors"


@pytest.mark.slow
def test_ctrl_c_while_pictures_are_drawn_says_what_is_published(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("PIL.ImageFont.truetype", press)
    with pytest.raises(
        Interrupted, match=r"1\.safetensors is published; only the pictures and the summary are missing"
    ) as caught:
        run(pictures=True)
    assert "--resume" not in str(caught.value)


@pytest.mark.slow
def test_there_is_nothing_to_resume_before_the_first_epoch(run: Train) -> None:
    interrupt(run, "epoch 1/")
    with pytest.raises(TrainingError, match="nothing to resume"):
        run(resume=True)


@pytest.mark.slow
def test_a_run_that_is_over_is_published_again(run: Train) -> None:
    first = run()
    second = run(resume=True)
    assert (first.name, second.name) == ("1.safetensors", "2.safetensors")
    assert same_weights(first, second)


@pytest.mark.slow
def test_the_state_of_another_run_is_refused_with_the_difference(run: Train, tiny: Recipe) -> None:
    interrupt(run, "epoch 2/")
    with pytest.raises(TrainingError, match=r"of another run \(lr 0.05 there, 0.02 here\)"):
        run(tiny.replace(lr=0.02), resume=True)


@pytest.mark.slow
def test_a_damaged_state_is_refused(run: Train, tmp_path: Path) -> None:
    interrupt(run, "epoch 2/")
    state = tmp_path / "runs" / "strokes" / "checkpoint.pth.tar"
    sound = state.read_bytes()
    for damaged in (sound[: len(sound) // 2], b"", b"junk"):
        state.write_bytes(damaged)
        with pytest.raises(TrainingError, match="is damaged"):
            run(resume=True)


@pytest.mark.slow
def test_the_best_epoch_is_published_not_the_last(run: Train, tiny: Recipe) -> None:
    source = {"kind": "strokes", "samples": 400, "test_samples": 50}
    # Without a schedule's end to calm it down, the last epoch is one of many.
    recipe = tiny.replace(source=source, held_out=300, epochs=8, batch_size=100, lr=0.5, warm_up=0.9)
    said = io.StringIO()
    progress = Progress(console=type(Progress.silent().console)(file=said, width=200))
    provenance = Checkpoint.load(run(recipe, progress=progress)).manifest.provenance
    held_out = [
        float(line.split("held out ")[1].split("%")[0])
        for line in said.getvalue().splitlines()
        if "epoch " in line and "held out" in line and "/8" in line
    ]
    assert len(held_out) == 8
    assert provenance is not None
    assert held_out[provenance.epoch - 1] == max(held_out)
    assert max(held_out) > held_out[-1]  # or else this showed nothing


@pytest.mark.slow
def test_a_run_from_a_checkpoint_names_it_and_does_not_get_worse(run: Train, tiny: Recipe) -> None:
    first = run(tiny.replace(epochs=4))
    second = run(tiny.replace(epochs=1), parent=first)
    before, after = (Checkpoint.load(path).manifest for path in (first, second))
    assert after.provenance is not None
    assert after.provenance.parent == f"strokes/1 {Header.read(first).sha256}"
    assert before.metrics is not None
    assert after.metrics is not None
    assert after.metrics.accuracy >= before.metrics.accuracy - 0.02


@pytest.mark.slow
def test_a_parent_that_does_not_fit_is_refused(run: Train, tiny: Recipe, tmp_path: Path) -> None:
    parent = run()
    finer = tiny.preprocess.model_copy(update={"mean": (0.5,)})
    with pytest.raises(TrainingError, match=r"--from strokes/1: its preprocess"):
        run(tiny.replace(preprocess=finer.model_dump()), parent=parent)
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"junk")
    with pytest.raises(TrainingError, match=r"junk\.safetensors"):
        run(parent=junk)
    with pytest.raises(TrainingError, match="no such file"):
        run(parent=tmp_path / "none.safetensors")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_and_publishes_nothing(run: Train, tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"after a peak rate of 1e\+06: try a lower --lr, e\.g\. 0\.05"):
        run(tiny.replace(lr=1e6))
    assert not (tmp_path / "store" / "strokes").exists()


@pytest.mark.parametrize("name", ["Upper", ".hidden", "a/b", "", "x" * 65, "..", "new\nline"])
def test_a_name_that_is_no_model_s_is_refused_before_anything_is_done(run: Train, tmp_path: Path, name: str) -> None:
    with pytest.raises(TrainingError, match="--name"):
        run(name=name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta", "cpu:7", "", "vulkan"])
def test_a_device_that_is_not_there_is_refused(run: Train, device: str) -> None:
    with pytest.raises(TrainingError, match="no device"):
        run(device=device)


def test_the_default_recipe_is_not_the_tests(tiny: Recipe) -> None:
    assert builtin("strokes").source != tiny.source


@pytest.mark.cuda
def test_a_run_on_cuda_publishes_weights_whose_figures_hold_on_the_cpu(
    run: Train, tiny: Recipe, tmp_path: Path
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    checkpoint = Checkpoint.load(run(device="cuda"))
    dataset = load_dataset(tiny, folder=tmp_path, scratch=tmp_path / "runs", progress=Progress.silent())
    normalize = normalizer(tiny.preprocess, device=torch.device("cpu"))
    network = checkpoint.build()
    logits = logits_of(
        network, dataset.test, forward=lambda images: network(normalize(images)), device=torch.device("cpu")
    )
    score = Score.of(logits, dataset.test.targets)
    assert checkpoint.manifest.metrics is not None
    assert score.accuracy == pytest.approx(checkpoint.manifest.metrics.accuracy, abs=0.01)
