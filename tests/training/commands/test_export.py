"""Published versions are exported as torch.load and torchvision want them."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.engine.predictions import ItemAnswer
from app.engine.rows import Item
from app.inference.predictor import Predictor
from app.inference.verification import verify
from classifier.architectures import meta_network
from classifier.checkpoint import Checkpoint
from classifier.manifest import Calibration, OutOfDistribution
from classifier.normalize import normalizer
from classifier.preprocess import Pixels, Preprocess
from classifier.scores import SCORES
from tests.support import hub
from tests.support.checkpoints import DIGITS, PHOTOS, checkpoint, saying
from tests.support.images import noise
from tests.support.tutorial import tutorial_file
from training.commands.export import export
from training.commands.import_weights import import_weights
from training.errors import TrainingError

LABELS = ("ants", "bees", "wasps")
CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["mnist_cnn", "mnasnet0_5"])
def test_what_is_exported_is_what_torch_and_torchvision_load(architecture: str, tmp_path: Path) -> None:
    published = import_weights(tutorial_file(tmp_path, architecture), labels=LABELS, store=tmp_path / "store")
    export(published, tmp_path / "out" / "net.pth")
    state_dict = torch.load(tmp_path / "out" / "net.pth", weights_only=True)
    network = meta_network(architecture, 3)
    network.load_state_dict(state_dict, assign=True)
    expected = hub.random_weights(meta_network(architecture, 3))
    assert all(tensor.equal(expected[name]) for name, tensor in network.state_dict().items())
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"net.pth", "net.pth.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "preprocess"),
    [("mnist_cnn", DIGITS.model_copy(update={"mean": (0.1,), "background": 7})), ("squeezenet1_1", PHOTOS)],
)
def test_an_export_comes_back_and_gives_the_same_answers_to_the_last_bit(
    architecture: str, preprocess: Preprocess, tmp_path: Path
) -> None:
    own = saying(
        checkpoint(architecture=architecture, preprocess=preprocess),
        labels=tuple(f"Ziffer {i}, große" for i in range(10)),
        calibration=Calibration(temperature=1.0 / 3),
    )
    images = [own.manifest.preprocess.to_pixels(Image.fromarray(noise(90, 120, seed=seed))) for seed in range(6)]
    scores = SCORES["energy"](own.build()(normalizer(preprocess, device=CPU)(torch.from_numpy(np.stack(images)))))
    own = saying(own, out_of_distribution=OutOfDistribution(method="energy", threshold=float(scores.median())))
    own.save(tmp_path / "1.safetensors")
    export(tmp_path / "1.safetensors", tmp_path / "out" / "net.pth")
    again = import_weights(tmp_path / "out" / "net.pth", store=tmp_path / "store")
    before, after = (verify(path, device=CPU, max_items=8) for path in (tmp_path / "1.safetensors", again))
    assert before.logits(images).equal(after.logits(images))
    answers = _answers(before, images), _answers(after, images)
    assert answers[0] == answers[1]
    assert {answer.in_distribution for answer in answers[0]} == {True, False}
    assert answers[0][0].predictions[0].label.startswith("Ziffer ")


def _answers(predictor: Predictor, images: list[Pixels]) -> list[ItemAnswer]:
    rows = predictor.predict([Item(pixels, top_k=10) for pixels in images])
    answers = [predictor.row_decoder.decode(row.tolist(), top_k=10) for row in rows]
    return [answer for answer in answers if isinstance(answer, ItemAnswer)]


def test_another_preprocess_leaves_out_what_was_measured_with_the_old_one(tmp_path: Path) -> None:
    own = saying(checkpoint(), calibration=Calibration(temperature=2.0))
    own.save(tmp_path / "1.safetensors")
    export(tmp_path / "1.safetensors", tmp_path / "net.pth")
    again = import_weights(tmp_path / "net.pth", store=tmp_path / "store", settings=["preprocess.background=9"])
    assert Checkpoint.load(again).manifest.calibration is None


def test_weights_and_what_lies_beside_them_must_be_of_one_export(tmp_path: Path) -> None:
    for seed in (0, 1):
        checkpoint(seed).save(tmp_path / f"{seed}.safetensors")
        export(tmp_path / f"{seed}.safetensors", tmp_path / f"{seed}.pth")
    (tmp_path / "0.pth").replace(tmp_path / "1.pth")
    with pytest.raises(TrainingError, match=r"1\.pth\.json was written for other weights than 1\.pth"):
        import_weights(tmp_path / "1.pth", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_labels_beside_the_weights_may_be_changed_and_are_not_contradicted(tmp_path: Path) -> None:
    checkpoint().save(tmp_path / "1.safetensors")
    export(tmp_path / "1.safetensors", tmp_path / "net.pth")
    with pytest.raises(TrainingError, match=r"net\.pth\.json and --labels contradict each other: class 0 is '0' and"):
        import_weights(tmp_path / "net.pth", labels=tuple("abcdefghij"), store=tmp_path / "store")
    beside = tmp_path / "net.pth.json"
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"labels": list("abcdefghij")}))
    again = import_weights(tmp_path / "net.pth", store=tmp_path / "store")
    assert Checkpoint.load(again).manifest.labels == tuple("abcdefghij")


def test_an_export_that_cannot_be_finished_leaves_no_weights_without_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint().save(tmp_path / "1.safetensors")
    rename = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "net.pth":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        export(tmp_path / "1.safetensors", tmp_path / "out" / "net.pth")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["net.pth.json"]


def test_an_export_overwrites_only_when_told_to(tmp_path: Path) -> None:
    checkpoint().save(tmp_path / "1.safetensors")
    target = tmp_path / "net.pth"
    target.write_text("mine")
    with pytest.raises(TrainingError, match=r"net\.pth is there already"):
        export(tmp_path / "1.safetensors", target)
    assert target.read_text() == "mine"
    target.rename(tmp_path / "net.pth.json")
    with pytest.raises(TrainingError, match=r"net\.pth\.json is there already"):
        export(tmp_path / "1.safetensors", target)
    export(tmp_path / "1.safetensors", target, overwrite=True)
    assert torch.load(target, weights_only=True).keys() == checkpoint().network.keys()


def test_an_export_of_what_is_no_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "1.safetensors").write_bytes(b"not one")
    with pytest.raises(TrainingError, match=r"1\.safetensors: not a safetensors file"):
        export(tmp_path / "1.safetensors", tmp_path / "net.pth")
    with pytest.raises(TrainingError, match=r"2\.safetensors: no such file"):
        export(tmp_path / "2.safetensors", tmp_path / "net.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["1.safetensors"]


def test_a_checkpoint_is_not_exported_over_itself(tmp_path: Path) -> None:
    published = import_weights(tutorial_file(tmp_path, "mnist_cnn"), labels=LABELS, store=tmp_path / "store")
    (tmp_path / "link").symlink_to(published)
    for target in (published, tmp_path / "link"):
        with pytest.raises(TrainingError, match="the checkpoint itself"):
            export(published, target, overwrite=True)
    Checkpoint.load(published)
