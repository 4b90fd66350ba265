"""Weights from elsewhere are published as a server takes them."""

import argparse
import hashlib
import io
import unicodedata
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console

from app.inference.verification import verify
from classifier.architectures import meta_network
from classifier.checkpoint import Checkpoint
from classifier.manifest import Calibration, OutOfDistribution
from classifier.preprocess import Preprocess
from classifier.progress import Progress
from tests.support import hub
from tests.support.checkpoints import DIGITS, PHOTOS, checkpoint, png, saying
from tests.support.own_code import GREY, TRAINED
from tests.support.program_checkpoints import program_checkpoint
from tests.support.tutorial import tutorial_file
from training.commands.import_weights import import_weights
from training.errors import TrainingError
from training.networks import own_code
from training.networks.pretrained import preprocess_of
from training.publishing import sidecar
from training.recipes.builtin import builtin

LABELS = ("ants", "bees", "wasps")


def _calibrated(content: Checkpoint) -> Checkpoint:
    return saying(
        content,
        calibration=Calibration(temperature=1.0 / 3),
        out_of_distribution=OutOfDistribution(method="energy", threshold=2.302585092994046),
    )


def _said_of(path: Path, **options: Any) -> tuple[Path, list[str]]:
    """The version that is published of a file, and what was said meanwhile."""
    console = Console(file=io.StringIO())
    published = import_weights(path, store=path.parent / "store", progress=Progress(console), **options)
    assert isinstance(console.file, io.StringIO)
    return published, console.file.getvalue().splitlines()


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
    own = _calibrated(checkpoint(preprocess=DIGITS.model_copy(update={"resizing": "box"})))
    own.save(tmp_path / "1.safetensors")
    published = import_weights(tmp_path / "1.safetensors", store=tmp_path / "store", name="again")
    manifest = Checkpoint.load(published).manifest
    assert (manifest.labels, manifest.preprocess) == (own.manifest.labels, own.manifest.preprocess)
    assert manifest.calibration == own.manifest.calibration
    assert manifest.out_of_distribution == own.manifest.out_of_distribution
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
    with pytest.raises(TrainingError, match="mnist_cnn cannot take images of 4x4x1"):
        import_weights(path, labels=LABELS, store=store, settings=["preprocess.resize=[4,4]"])
    with pytest.raises(TrainingError, match="no weights under --weights 'model_ema'"):
        import_weights(path, labels=LABELS, store=store, entry="model_ema")
    assert not store.exists()


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_weights_whose_logits_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = {name: tensor.mul(1e30) for name, tensor in hub.random_weights(meta_network("mnist_cnn", 3)).items()}
    torch.save(weights, tmp_path / "net.pth")
    with pytest.raises(TrainingError, match=r"net\.pth: reference\.logits holds values that are not finite"):
        import_weights(tmp_path / "net.pth", architecture="mnist_cnn", labels=LABELS, store=tmp_path / "store")


def test_a_file_in_which_a_byte_was_changed_is_refused(tmp_path: Path) -> None:
    path = tutorial_file(tmp_path, "mnist_cnn")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(TrainingError, match="damaged"):
        import_weights(path, labels=LABELS, store=tmp_path / "store")


def _weights(architecture: str = "mnist_cnn", *, seed: int = 0) -> dict[str, torch.Tensor]:
    return hub.random_weights(meta_network(architecture, 3), seed=seed)


def _as_scripts_save(tmp_path: Path) -> dict[str, Any]:
    """Dictionaries as the best-known training scripts save them, of one and the same network."""
    weights, mean = _weights(), _weights(seed=1)
    arguments = argparse.Namespace(model="mnist_cnn", lr=0.1, output_dir=tmp_path, started=datetime.now(UTC))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9).state_dict()
    averaged = {"n_averaged": torch.tensor(5)} | {f"module.{name}": tensor for name, tensor in mean.items()}
    lightning = {f"model.{name}": tensor for name, tensor in weights.items()} | {"criterion.weight": torch.ones(3)}
    return {
        "references": {"model": weights, "model_ema": averaged, "optimizer": optimizer, "args": arguments},
        "tutorial": {"epoch": 5, "model_state_dict": weights, "optimizer_state_dict": optimizer, "loss": 0.4},
        "cifar": {"net": {f"module.{name}": tensor for name, tensor in weights.items()}, "acc": np.float64(93.1)},
        "nested": {"checkpoint": {"weights": weights, "step": 3}, "path": Path("a/b")},
        "timm": {"arch": "mnist_cnn", "state_dict": weights, "state_dict_ema": mean, "version": 2},
        "lightning": {"state_dict": lightning, "hyper_parameters": {"lr": 0.1}, "callbacks": {}, "loops": {}},
        "averaged": {"n_averaged": torch.tensor(5)} | {f"module.{n}": t for n, t in weights.items()},
        "scores": {"params": weights, "best": np.float32(0.9), "curve": np.arange(3.0), "log": defaultdict(list)},
    }


SCRIPTS = ["references", "tutorial", "cifar", "nested", "timm", "lightning", "averaged", "scores"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_well_known_script_saves_is_published(script: str, tmp_path: Path) -> None:
    torch.save(_as_scripts_save(tmp_path)[script], tmp_path / "net.pth")
    published, said = _said_of(tmp_path / "net.pth", architecture="mnist_cnn", labels=LABELS)
    assert _has(published, _weights())
    assert all(line.startswith("net.pth: ") for line in said)
    assert any("took the weights under" in line for line in said) == (script != "averaged")
    assert any("left out" in line for line in said)


def _has(published: Path, weights: dict[str, torch.Tensor]) -> bool:
    return all(tensor.equal(weights[name]) for name, tensor in Checkpoint.load(published).network.items())


def test_a_running_mean_is_named_and_can_be_published_in_place_of_the_weights(tmp_path: Path) -> None:
    torch.save(_as_scripts_save(tmp_path)["references"], tmp_path / "net.pth")
    published, said = _said_of(tmp_path / "net.pth", labels=LABELS)
    assert _has(published, _weights())
    assert "net.pth: it holds a running mean of the weights, too: --weights model_ema takes that" in said
    assert "net.pth: says that it is of mnist_cnn" in said
    published, said = _said_of(tmp_path / "net.pth", labels=LABELS, entry="model_ema")
    assert _has(published, _weights(seed=1))
    assert said[0].startswith("net.pth: took the weights under 'model_ema', which are a running mean; left out 'model'")


@pytest.mark.slow
def test_the_labels_in_a_file_are_taken_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"arch": "mnist_cnn", "model": _weights(), "class_to_idx": {"bees": 1, "ants": 0, "wasps": 2}}, path)
    published, _ = _said_of(path)
    assert Checkpoint.load(published).manifest.labels == LABELS
    assert _said_of(path, labels=LABELS)[0].stem == "2"
    with pytest.raises(TrainingError, match="class_to_idx and --labels contradict each other: class 1 is 'bees' and"):
        _said_of(path, labels=("ants", "wasps", "bees"))
    with pytest.raises(TrainingError, match="contradict each other: 3 labels and 2"):
        _said_of(path, labels=("ants", "bees"))
    composed, decomposed = (tuple(unicodedata.normalize(form, label) for label in "éöa") for form in ("NFC", "NFD"))
    torch.save({"arch": "mnist_cnn", "model": _weights(), "classes": decomposed}, path)
    assert Checkpoint.load(_said_of(path, labels=composed)[0]).manifest.labels == decomposed
    torch.save({"arch": "mnist_cnn", "model": _weights(), "classes": LABELS, "class_to_idx": {"a": 0, "b": 1}}, path)
    with pytest.raises(TrainingError, match="class_to_idx and classes contradict each other"):
        _said_of(path)
    torch.save({"arch": "mnist_cnn", "model": _weights(), "class_to_idx": {"a": 1, "b": 2}}, path)
    with pytest.raises(TrainingError, match="--labels is needed"):
        _said_of(path)


def test_a_checkpoint_of_ours_refuses_labels_that_contradict_it(tmp_path: Path) -> None:
    checkpoint().save(tmp_path / "1.safetensors")
    with pytest.raises(TrainingError, match="its manifest and --labels contradict each other: 10 labels and 3"):
        _said_of(tmp_path / "1.safetensors", labels=LABELS)


@pytest.mark.slow
def test_a_checkpoint_of_ours_that_holds_its_network_is_to_be_copied(tmp_path: Path) -> None:
    program_checkpoint(tmp_path).save(tmp_path / "1.safetensors")
    with pytest.raises(TrainingError, match=r"holds its network: copy it to .*/NAME/NUMBER\.safetensors"):
        _said_of(tmp_path / "1.safetensors")
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_the_preprocess_can_be_told_in_whole_or_in_part_and_what_is_guessed_is_said(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(_weights("squeezenet1_1"), path)
    options: dict[str, Any] = {"architecture": "squeezenet1_1", "labels": LABELS}
    published, said = _said_of(path, settings=["preprocess.resize=[64,64]"], **options)
    usual = preprocess_of("squeezenet1_1")
    assert usual is not None
    expected = usual.model_copy(update={"resize": (64, 64), "crop": None})
    assert Checkpoint.load(published).manifest.preprocess == expected
    assert [line for line in said if "Guessed, as is usual for squeezenet1_1: mode=RGB, mean=" in line]
    published, said = _said_of(path, preprocess=PHOTOS, **options)
    assert Checkpoint.load(published).manifest.preprocess == PHOTOS
    assert said == []


def test_other_programs_documents_beside_a_file_change_nothing(tmp_path: Path) -> None:
    torch.save(_weights(), tmp_path / "net.pth")
    (tmp_path / "net.pth.json").write_text('{"labels": ["a", "b", "c"]}')
    published, said = _said_of(tmp_path / "net.pth", architecture="mnist_cnn", labels=LABELS)
    assert Checkpoint.load(published).manifest.labels == LABELS
    assert "is not one that export wrote" in said[0]


SET_GREY = [
    *("preprocess.mode=L", "preprocess.resize=[28,28]", "preprocess.crop=none"),
    *("preprocess.mean=[0.5]", "preprocess.std=[0.5]"),
]


def _weights_of(net: str, path: Path, **options: Any) -> dict[str, torch.Tensor]:
    """Saves random weights for the network, and returns them."""
    weights = own_code.build(own_code.load(net).architecture, 3, (1, 28, 28), options).state_dict()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, path)
    return weights


@pytest.mark.slow
def test_weights_for_somebody_s_own_network_are_published_with_the_code_and_a_server_takes_them(
    net: str, tmp_path: Path
) -> None:
    weights = _weights_of(net, tmp_path / "net.pth", width=6)
    published, said = _said_of(
        tmp_path / "net.pth", network=net, labels=LABELS, settings=[*SET_GREY, "network.width=6"]
    )
    assert published == tmp_path / "store" / "my_net-net" / "1.safetensors"
    assert verify(published, device=torch.device("cpu"), max_items=3).manifest.architecture == "my_net.py:Net"
    own = Checkpoint.load(published)
    assert own.manifest.preprocess == Preprocess.model_validate(GREY | {"interpolation": "bilinear"})
    assert own.manifest.code is not None
    assert (own.manifest.code.file, own.manifest.code.text) == ("my_net.py", TRAINED)
    assert own.manifest.program is not None
    assert own.network.keys() == weights.keys()
    assert all(own.network[name].equal(tensor) for name, tensor in weights.items())
    assert any("Guessed, as is usual for ImageNet: interpolation=bilinear, background=255" in line for line in said)


def test_how_images_are_prepared_for_somebody_s_own_network_is_guessed_with_a_word(net: str, tmp_path: Path) -> None:
    _weights_of(net, tmp_path / "net.pth")
    said = io.StringIO()
    with pytest.raises(TrainingError, match=r"my_net\.py"):  # it takes one channel
        import_weights(
            tmp_path / "net.pth",
            network=net,
            labels=LABELS,
            store=tmp_path / "store",
            progress=Progress(Console(file=said, width=300)),
        )
    assert "Guessed, as is usual for ImageNet: mode=RGB, resize=256, crop=[224, 224]" in said.getvalue()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("architecture", ["evil:run", "my_net.py:Net", "evil.py:run"])
def test_no_code_is_run_because_a_file_names_it(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("evil.py", "my_net.py"):
        (tmp_path / name).write_text("raise SystemExit('the code of a file was run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    torch.save({"arch": architecture, "state_dict": {"fc.weight": torch.ones(3, 4)}}, tmp_path / "net.pth")
    with pytest.raises(TrainingError, match="Code is run only if you name it: --network"):
        import_weights(tmp_path / "net.pth", labels=LABELS, store=tmp_path / "store")


@pytest.mark.slow
def test_an_export_of_somebody_s_own_network_asks_for_its_code(net: str, tmp_path: Path) -> None:
    _weights_of(net, tmp_path / "net.pth")
    beside = sidecar.Sidecar(
        architecture="my_net.py:Net",
        labels=LABELS,
        preprocess=Preprocess.model_validate(GREY),
        calibration=Calibration(temperature=0.5),
    )
    sidecar.write(tmp_path / "net.pth", beside)
    with pytest.raises(
        TrainingError, match=r"says that it is of .*my_net\.py:Net.*--network, and where that code lies"
    ):
        import_weights(tmp_path / "net.pth", store=tmp_path / "store")
    manifest = Checkpoint.load(import_weights(tmp_path / "net.pth", network=net, store=tmp_path / "store")).manifest
    assert (manifest.labels, manifest.temperature) == (LABELS, 0.5)
    assert manifest.preprocess == Preprocess.model_validate(GREY)


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        ("return self.fc(self.features(images)).softmax(1)", "ends in softmax: delete that step"),
        ("return self.fc(self.features(images)), images", "returns a tuple of 2"),
        ("return {'logits': self.fc(self.features(images))}", "returns a dict of 1"),
        ("return self.features(images)", "4 logits, the data has 3 classes"),
        ("return self.fc(self.features(images)) / 0", "values that are not finite"),
        ("return self.fc(self.features(images)) + torch.rand(1)", "other logits each time"),
        ("return self.fc(images)", r"my_net\.py:"),
        ("raise ValueError('not today')", "not today"),
    ],
)
def test_what_somebody_s_own_network_may_not_answer_is_one_line_with_the_place(
    forward: str, said: str, tmp_path: Path
) -> None:
    text = TRAINED.replace("return self.fc(self.features(images))", forward)
    (tmp_path / "my_net.py").write_text(text)
    net = f"{tmp_path / 'my_net.py'}:Net"
    _weights_of(net, tmp_path / "net.pth")
    with pytest.raises(TrainingError, match=said) as caught:
        import_weights(
            tmp_path / "net.pth",
            network=net,
            labels=LABELS,
            store=tmp_path / "store",
            preprocess=Preprocess.model_validate(GREY),
        )
    assert "my_net.py" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_weights_that_do_not_fit_somebody_s_own_network_are_refused(net: str, tmp_path: Path) -> None:
    _weights_of(net, tmp_path / "net.pth", width=6)
    options: dict[str, Any] = {"store": tmp_path / "store", "preprocess": Preprocess.model_validate(GREY)}
    with pytest.raises(TrainingError, match=r"do not fit my_net\.py:Net: 3 of another shape, such as features\.0\."):
        import_weights(tmp_path / "net.pth", network=net, labels=LABELS, **options)
    with pytest.raises(TrainingError, match="has 3 classes, 2 labels were given"):
        import_weights(tmp_path / "net.pth", network=net, labels=LABELS[:2], settings=["network.width=6"], **options)
    with pytest.raises(TrainingError, match="depth"):
        import_weights(tmp_path / "net.pth", network=net, labels=LABELS, settings=["network.depth=6"], **options)
    with pytest.raises(TrainingError, match="name one network"):
        import_weights(tmp_path / "net.pth", network=net, architecture="resnet18", labels=LABELS, **options)
    with pytest.raises(TrainingError, match="--network names code of your own"):
        import_weights(tmp_path / "net.pth", architecture=net, labels=LABELS, **options)
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_a_network_of_logarithms_of_probabilities_is_served_without_the_last_step(tmp_path: Path) -> None:
    text = TRAINED.replace(
        "return self.fc(self.features(images))", "return self.fc(self.features(images)).log_softmax(1)"
    )
    (tmp_path / "my_net.py").write_text(text)
    net = f"{tmp_path / 'my_net.py'}:Net"
    _weights_of(net, tmp_path / "net.pth")
    published, said = _said_of(
        tmp_path / "net.pth", network=net, labels=LABELS, preprocess=Preprocess.model_validate(GREY)
    )
    assert any("log_softmax" in line for line in said)
    assert bool((Checkpoint.load(published).reference.logits.logsumexp(1).abs() > 1e-3).all())
