"""Published versions are exported as torch.load, torch.export.load, torchvision and ONNX runtimes want them."""

import errno
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
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
from classifier.program.network import ProgramNetwork
from classifier.scores import SCORES
from tests.support import hub
from tests.support.checkpoints import DIGITS, PHOTOS, checkpoint, logits, saying
from tests.support.images import noise
from tests.support.program_checkpoints import program_checkpoint
from tests.support.tutorial import tutorial_file
from training.commands.export import export
from training.commands.import_weights import import_weights
from training.errors import TrainingError
from training.networks import pt2
from training.publishing.sidecar import Sidecar

LABELS = ("ants", "bees", "wasps")
CPU = torch.device("cpu")


# A network with a program is a small transformer.
NETWORKS = ["mnist_cnn", "resnet18", "mobilenet_v3_small", "a program"]


def _published(network: str, folder: Path) -> Checkpoint:
    """A version in `folder`, with logits that differ from image to image."""
    if network == "a program":
        own = program_checkpoint(folder)
    else:
        own = checkpoint(architecture=network, preprocess=DIGITS if network == "mnist_cnn" else PHOTOS)
        own = replace(own, network=hub.random_weights(meta_network(network, 10)))
        made = logits(own.build(64), own.manifest.preprocess, own.reference.pixels)
        own = replace(own, reference=replace(own.reference, logits=made))
    own.save(folder / "1.safetensors")
    return own


def _batches(own: Checkpoint) -> list[torch.Tensor]:
    height, width, channels = own.manifest.preprocess.shape
    return [torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(n)) for n in (1, 2, 3, 17)]


def _said(file: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(Path(f"{file}.json").read_text())
    return said


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
    scores = SCORES["energy"](own.build(64)(normalizer(preprocess, device=CPU)(torch.from_numpy(np.stack(images)))))
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


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_an_exported_program_gives_the_same_logits_to_the_last_bit_and_comes_back(network: str, tmp_path: Path) -> None:
    own = _published(network, tmp_path)
    file = tmp_path / "out" / "net.pt2"
    export(tmp_path / "1.safetensors", file)
    theirs = torch.export.load(file).module()
    back = pt2.read(file, file.name)
    ours = ProgramNetwork(back.program, back.tensors)
    served = own.build(64)
    with torch.no_grad():
        for images in _batches(own):
            expected = served(images)
            assert theirs(images).equal(expected)
            assert ours(images).equal(expected)
    assert {name for name in back.tensors if name.startswith("network.")} == {f"network.{name}" for name in own.network}
    assert all(back.tensors[f"network.{name}"].equal(tensor) for name, tensor in own.network.items())
    if own.program is not None:
        assert back.program == own.program
    assert str(tmp_path).encode() not in file.read_bytes()
    assert b"site-packages" not in file.read_bytes()
    assert Sidecar.model_validate(_said(file)).content == "pt2"


@pytest.mark.slow
@pytest.mark.process
def test_an_exported_program_needs_nothing_but_torch(tmp_path: Path) -> None:
    own = _published("a program", tmp_path)
    export(tmp_path / "1.safetensors", tmp_path / "net.pt2")
    images = _batches(own)[-1]
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys, torch; network = torch.export.load('net.pt2').module(); "
        "torch.save(network(torch.load('images.pt')), 'logits.pt'); "
        "assert not {'training', 'classifier', 'app'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True, timeout=100)
    assert torch.allclose(torch.load(tmp_path / "logits.pt"), own.build(64)(images), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_an_onnx_model_gives_the_same_logits_without_a_word(
    network: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime")
    own = _published(network, tmp_path)
    export(tmp_path / "1.safetensors", tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (taken,), (returned,) = session.get_inputs(), session.get_outputs()
    height, width, channels = own.manifest.preprocess.shape
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(float)", ["batch", channels, height, width])
    assert (returned.name, returned.shape) == ("logits", ["batch", 10])
    served = own.build(64)
    for images in _batches(own):
        (values,) = session.run(None, {"images": images.numpy()})
        expected = served(images)
        assert float(expected.std()) > 0.1  # or it would be no wonder
        assert float((torch.from_numpy(values) - expected).abs().max()) < 1e-4 * max(1.0, float(expected.abs().max()))
    for path in (str(tmp_path), "site-packages", "/classifier/"):
        assert path.encode() not in (tmp_path / "net.onnx").read_bytes()


@pytest.mark.slow
def test_an_onnx_model_and_what_lies_beside_it_say_how_images_are_prepared(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    ink = checkpoint(preprocess=DIGITS.model_copy(update={"ink_on_paper": True}))
    own = saying(ink, calibration=Calibration(temperature=1.5))
    own.save(tmp_path / "1.safetensors")
    export(tmp_path / "1.safetensors", tmp_path / "net.onnx")
    properties = {each.key: each.value for each in onnx.load(tmp_path / "net.onnx").metadata_props}
    said = _said(tmp_path / "net.onnx")
    assert properties["note"] == said["note"]
    assert "float32 [n, 1, 28, 28]" in said["note"]
    assert "(levels of ink, brightened as classifier/ink.py does it / 255 - mean) / std" in said["note"]
    assert json.loads(properties["labels"]) == said["labels"] == list("0123456789")
    assert Preprocess.model_validate_json(properties["preprocess"]) == own.manifest.preprocess
    assert json.loads(properties["calibration"]) == said["calibration"] == {"temperature": 1.5}
    assert "sha256" not in properties


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_the_weights_of_a_program_have_the_names_of_its_code_and_need_it(ending: str, tmp_path: Path) -> None:
    own = _published("a program", tmp_path)
    file = tmp_path / f"net.{ending}"
    export(tmp_path / "1.safetensors", file)
    weights = safetensors.torch.load_file(file) if ending == "safetensors" else torch.load(file, weights_only=True)
    assert weights.keys() == own.network.keys() >= {"patches.1.running_mean", "token", "qkv.bias"}
    assert all(tensor.equal(own.network[name]) for name, tensor in weights.items())
    assert "import needs --network" in _said(file)["note"]
    with pytest.raises(TrainingError, match=r"is of str 'net_0\.py:Net'\. Code is run only if you name it"):
        import_weights(file, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_code_that_a_file_names_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nNet = None\n")
    planted = f"{tmp_path / 'planted.py'}:Net"
    torch.save({"arch": planted, "state_dict": checkpoint().network}, tmp_path / "net.pth")
    with pytest.raises(TrainingError, match="Code is run only if you name it"):
        import_weights(tmp_path / "net.pth", labels=tuple("0123456789"), store=tmp_path / "store")
    assert not (tmp_path / "ran").exists()


def test_safetensors_come_back_as_they_were(tmp_path: Path) -> None:
    own = checkpoint()
    own.save(tmp_path / "1.safetensors")
    export(tmp_path / "1.safetensors", tmp_path / "net.safetensors")
    again = Checkpoint.load(import_weights(tmp_path / "net.safetensors", store=tmp_path / "store"))
    assert again.manifest.labels == own.manifest.labels
    assert all(again.network[name].equal(tensor) for name, tensor in own.network.items())


@pytest.mark.slow
def test_the_format_is_told_by_the_ending_unless_it_is_named(tmp_path: Path) -> None:
    checkpoint().save(tmp_path / "1.safetensors")
    export(tmp_path / "1.safetensors", tmp_path / "net.PT2")
    export(tmp_path / "1.safetensors", tmp_path / "net.bin", file_format="pt2")
    export(tmp_path / "1.safetensors", tmp_path / "weights.pt2", file_format="state_dict")
    for name in ("net.PT2", "net.bin"):
        assert "conv2d" in pt2.read(tmp_path / name, name).program.operators
    assert torch.load(tmp_path / "weights.pt2", weights_only=True).keys() == checkpoint().network.keys()


def test_what_onnx_needs_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint().save(tmp_path / "1.safetensors")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    expected = "ONNX needs onnx and onnxscript, not installed here: pip install 'flambeau[onnx]'"
    with pytest.raises(TrainingError, match=re.escape(expected)):
        export(tmp_path / "1.safetensors", tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["1.safetensors"]


@pytest.mark.slow
def test_an_onnx_model_that_computes_something_else_is_not_written(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime")
    own = checkpoint()
    own = replace(own, reference=replace(own.reference, logits=own.reference.logits + 0.01))
    own.save(tmp_path / "1.safetensors")
    with pytest.raises(TrainingError, match=r"onnxruntime's logits are 0\.01.* apart from torch's"):
        export(tmp_path / "1.safetensors", tmp_path / "out" / "net.onnx")
    assert not (tmp_path / "out").exists()
