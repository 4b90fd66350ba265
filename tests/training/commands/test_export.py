"""Published versions are exported as torch.load and torchvision want them."""

from pathlib import Path

import pytest
import torch

from classifier.architectures import meta_network
from classifier.checkpoint import Checkpoint
from tests.support import hub
from tests.support.checkpoints import checkpoint
from tests.support.tutorial import tutorial_file
from training.commands.export import export
from training.commands.import_weights import import_weights
from training.errors import TrainingError

LABELS = ("ants", "bees", "wasps")


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
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["net.pth"]


def test_an_export_comes_back_as_the_same_weights(tmp_path: Path) -> None:
    own = checkpoint()
    own.save(tmp_path / "1.safetensors")
    export(tmp_path / "1.safetensors", tmp_path / "net.pth")
    again = import_weights(
        tmp_path / "net.pth", architecture="mnist_cnn", labels=own.manifest.labels, store=tmp_path / "store"
    )
    assert all(tensor.equal(own.network[name]) for name, tensor in Checkpoint.load(again).network.items())


def test_an_export_overwrites_only_when_told_to(tmp_path: Path) -> None:
    checkpoint().save(tmp_path / "1.safetensors")
    target = tmp_path / "net.pth"
    target.write_text("mine")
    with pytest.raises(TrainingError, match=r"net\.pth is there already"):
        export(tmp_path / "1.safetensors", target)
    assert target.read_text() == "mine"
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
