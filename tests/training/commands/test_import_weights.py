"""Weights from elsewhere are published as a server takes them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torchvision import models

from app.inference.verification import verify
from classifier.architectures import meta_network
from classifier.checkpoint import Checkpoint
from tests.support import hub
from tests.support.checkpoints import DIGITS, checkpoint, png
from tests.support.images import noise
from tests.support.tutorial import tutorial_file
from training.commands.import_weights import import_pretrained, import_weights, labels_from
from training.errors import TrainingError
from training.networks.pretrained import preprocess_of
from training.recipes.builtin import builtin

LABELS = ("ants", "bees", "wasps")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5", "mnist_cnn"])
def test_weights_of_the_tutorials_form_are_published_and_a_server_takes_them(architecture: str, tmp_path: Path) -> None:
    path = tutorial_file(tmp_path, architecture, prefix="module.")
    published = import_weights(path, labels=LABELS, store=tmp_path / "store")
    assert published == tmp_path / "store" / architecture / "1.safetensors"
    manifest = verify(published, device=torch.device("cpu"), max_items=2).manifest
    assert manifest.architecture == architecture
    assert manifest.labels == LABELS
    assert manifest.preprocess == (preprocess_of(architecture) or builtin("mnist", "mnist_cnn").preprocess)
    assert (manifest.metrics, manifest.provenance) == (None, None)
    assert manifest.imported is not None
    assert manifest.imported.source == "model_best.pth.tar"
    assert manifest.imported.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest.imported.versions["torch"] == torch.__version__.partition("+")[0]
    expected = hub.random_weights(meta_network(architecture, 3))
    assert all(tensor.equal(expected[name]) for name, tensor in Checkpoint.load(published).network.items())


def test_a_bare_state_dict_needs_its_architecture_and_its_labels_to_be_named(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(hub.random_weights(meta_network("mnist_cnn", 3)), path)
    with pytest.raises(TrainingError, match="does not say which network it is of: --architecture is needed"):
        import_weights(path, labels=LABELS, store=tmp_path)
    with pytest.raises(TrainingError, match="does not say what its classes are called: --labels is needed"):
        import_weights(path, architecture="mnist_cnn", store=tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    published = import_weights(path, architecture="mnist_cnn", labels=LABELS, store=tmp_path, name="mine")
    assert published == tmp_path / "mine" / "1.safetensors"


def test_a_foreign_safetensors_file_is_published(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(hub.random_weights(meta_network("mnist_cnn", 3)), path)
    published = import_weights(path, architecture="mnist_cnn", labels=LABELS, store=tmp_path / "store")
    assert Checkpoint.load(published).manifest.labels == LABELS


def test_a_checkpoint_of_ours_is_published_with_all_it_says(tmp_path: Path) -> None:
    own = checkpoint(preprocess=DIGITS.model_copy(update={"resizing": "box"}))
    own.save(tmp_path / "1.safetensors")
    published = import_weights(tmp_path / "1.safetensors", store=tmp_path / "store", name="again")
    manifest = Checkpoint.load(published).manifest
    assert (manifest.labels, manifest.preprocess) == (own.manifest.labels, own.manifest.preprocess)
    assert (manifest.model, manifest.architecture) == ("again", "mnist_cnn")


def test_who_names_the_architecture_knows_better_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.pth.tar"
    torch.save({"arch": "resnet18", "state_dict": hub.random_weights(meta_network("mnist_cnn", 3))}, path)
    published = import_weights(path, architecture="mnist_cnn", labels=LABELS, store=tmp_path / "store")
    assert Checkpoint.load(published).manifest.architecture == "mnist_cnn"


def test_example_images_go_into_the_reference_batch(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for seed in range(3):
        (tmp_path / "images" / f"{seed}.png").write_bytes(png(seed))
    path = tutorial_file(tmp_path, "mnist_cnn")
    published = import_weights(
        path, labels=LABELS, store=tmp_path / "store", preprocess=DIGITS, examples=tmp_path / "images"
    )
    expected = torch.from_numpy(
        np.stack([DIGITS.to_pixels(Image.open(tmp_path / "images" / f"{i}.png")) for i in range(3)])
    )
    assert Checkpoint.load(published).reference.pixels.equal(expected)


def test_what_does_not_fit_is_refused_and_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    path, store = tutorial_file(tmp_path, "mnist_cnn"), tmp_path / "store"
    with pytest.raises(TrainingError, match="the network in the file has 3 classes, 2 labels were given"):
        import_weights(path, labels=LABELS[:2], store=store)
    with pytest.raises(TrainingError, match=r"the weights do not fit resnet18: 101 missing: .*; 7 unexpected: "):
        import_weights(path, architecture="resnet18", labels=LABELS, store=store)
    with pytest.raises(TrainingError, match="--name 'Not A Name'"):
        import_weights(path, labels=LABELS, store=store, name="Not A Name")
    with pytest.raises(TrainingError, match="there is no image in"):
        import_weights(path, labels=LABELS, store=store, examples=_empty(tmp_path))
    assert not store.exists()


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_weights_whose_logits_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = {name: tensor.mul(1e30) for name, tensor in hub.random_weights(meta_network("mnist_cnn", 3)).items()}
    torch.save(weights, tmp_path / "net.pth")
    with pytest.raises(TrainingError, match=r"net\.pth: reference\.logits holds values that are not finite"):
        import_weights(tmp_path / "net.pth", architecture="mnist_cnn", labels=LABELS, store=tmp_path / "store")


@pytest.mark.slow
def test_torchvisions_weights_are_published_with_their_labels_and_preprocess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = hub.cache("shufflenet_v2_x0_5", hub.random_weights(meta_network("shufflenet_v2_x0_5", 1000)))
    published = import_pretrained("shufflenet_v2_x0_5", store=tmp_path / "store")
    assert published == tmp_path / "store" / "shufflenet_v2_x0_5" / "1.safetensors"
    predictor = verify(published, device=torch.device("cpu"), max_items=2)
    assert predictor.manifest.labels[:2] == ("tench", "goldfish")
    assert predictor.manifest.preprocess == preprocess_of("shufflenet_v2_x0_5")
    assert predictor.manifest.imported is not None
    assert predictor.manifest.imported.source == "torchvision ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    assert predictor.manifest.imported.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    # What the server answers is what torchvision itself would say.
    weights = models.ShuffleNet_V2_X0_5_Weights.DEFAULT
    image = Image.fromarray(noise(250, 320))
    network = models.get_model("shufflenet_v2_x0_5", weights=weights).eval()
    with torch.inference_mode():
        expected = network(weights.transforms()(image)[None])
    logits = predictor.logits([predictor.manifest.preprocess.to_pixels(image)])
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_head_that_nobody_has_trained_is_not_even_downloaded(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="alexnet_transfer begins with alexnet's features, but nobody has trained"):
        import_pretrained("alexnet_transfer", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "text",
    ["ants\nbees\nwasps\n", "ants\nbees\nwasps", "ants\r\nbees\r\nwasps\r\n\r\n", "\ufeff ants \nbees\nwasps\n\n \n"],
)
def test_labels_are_the_lines_of_a_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert labels_from(tmp_path / "labels.txt") == LABELS


def test_labels_may_be_in_any_language(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("Ameisen, große\nпчёлы\n蜂\n", encoding="utf-8")
    assert labels_from(tmp_path / "labels.txt") == ("Ameisen, große", "пчёлы", "蜂")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ants\n\nbees\n", "line 2 is empty"),
        (b"\nants\nbees\n", "line 1 is empty"),
        (b"ants\nbees\nwasps\nbees\n", "lines 2 and 4 are the same: 'bees'"),
        (b"ants\n", "has one label, 'ants': at least two are needed"),
        (b"", "line 1 is empty"),
        (b"ants\n" + b"b" * 257 + b"\n", "line 2 has 257 characters, 256 are the most"),
        (b"ants\nbe\xe9s\n", "is not a text in UTF-8: byte 8 is 0xe9"),
    ],
)
def test_labels_that_cannot_be_used_are_named_by_their_lines(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(TrainingError, match=message) as caught:
        labels_from(tmp_path / "labels.txt")
    assert "\n" not in str(caught.value)


def test_a_label_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"labels\.txt: No such file"):
        labels_from(tmp_path / "labels.txt")


def test_a_file_in_which_a_byte_was_changed_is_refused(tmp_path: Path) -> None:
    path = tutorial_file(tmp_path, "mnist_cnn")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(TrainingError, match="damaged"):
        import_weights(path, labels=LABELS, store=tmp_path / "store")


def test_a_label_that_cannot_be_printed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("ants\nb\x1b[31mees\n")
    with pytest.raises(TrainingError, match="line 2"):
        labels_from(tmp_path / "labels.txt")
