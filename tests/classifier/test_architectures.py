"""The networks: the seeds' own exactly, torchvision's by their names, and what is said when torchvision is broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from classifier.architectures import build, skeleton
from tests.server import PROJECT


def test_mnist_cnn_has_the_seeds_parameters() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in build("mnist_cnn", 10).state_dict().items()}
    assert shapes == {
        "conv1.weight": (16, 1, 5, 5),
        "conv1.bias": (16,),
        "conv2.weight": (32, 16, 5, 5),
        "conv2.bias": (32,),
        "fc1.weight": (128, 7 * 7 * 32),
        "fc1.bias": (128,),
        "fc2.weight": (10, 128),
        "fc2.bias": (10,),
    }


def test_mnist_cnn_computes_what_the_seeds_layers_in_a_row_compute() -> None:
    torch.manual_seed(0)
    network = build("mnist_cnn", 7)
    layers = nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(7 * 7 * 32, 128), nn.ReLU(), nn.Linear(128, 7)),
    )
    named = dict(zip(layers.state_dict(), network.state_dict().values(), strict=True))
    layers.load_state_dict(named)
    images = torch.randn(5, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(network(images), layers(images))


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_torchvisions_networks_come_by_their_names_with_the_classes_asked_for(name: str) -> None:
    original = torchvision.models.get_model(name, weights=None, num_classes=7)
    network = build(name, 7)
    assert type(network) is type(original)
    assert {n: t.shape for n, t in network.state_dict().items()} == {
        n: t.shape for n, t in original.state_dict().items()
    }
    with torch.no_grad():
        assert network.eval()(torch.zeros(2, 3, 224, 224)).shape == (2, 7)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_give_one_row_of_logits_in_training_too(name: str) -> None:
    with torch.device("meta"):
        assert build(name, 7).train()(torch.zeros(2, 3, 299, 299)).shape == (2, 7)


@pytest.mark.parametrize("name", ["mnist_cnn", "resnet18", "swin_t", "maxvit_t", "regnet_y_400mf", "inception_v3"])
def test_a_skeleton_is_the_network_without_values_and_draws_no_random_number(name: str) -> None:
    before = torch.get_rng_state()
    network = skeleton(name, 7)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    # A buffer that the state_dict leaves out would stay without values when a checkpoint is loaded.
    assert {name for name, _ in network.named_buffers()} <= network.state_dict().keys()


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("resnet", "resnet18"), ("mnist-cnn", "mnist_cnn"), ("AlexNet", "alexnet"), ("vit_b16", "vit_b_16")],
)
def test_an_unknown_architecture_is_refused_with_near_names(wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"unknown architecture '{wrong}'; did you mean .*{near}"):
        build(wrong, 10)


@pytest.mark.parametrize("name", ["", "zzz", "fasterrcnn_resnet50_fpn", "__class__", "list_models"])
def test_what_is_no_classifier_is_no_architecture(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown architecture '{name}'"):
        build(name, 10)


def test_a_torchvision_that_does_not_fit_its_torch_says_what_to_install(tmp_path: Path) -> None:
    failure = "operator torchvision::nms does not exist"
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(f"raise RuntimeError({failure!r})\n")
    code = "from classifier.architectures import build; build('mnist_cnn', 10); print('built'); build('resnet18', 10)"
    path = os.pathsep.join((str(tmp_path), str(PROJECT)))
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout == "built\n"  # the seeds' network does without torchvision
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: torchvision does not fit the installed torch ({failure})")
    assert "pip install torch==2.15.0 torchvision==0.29.2" in last
    constraints = (PROJECT / "constraints.txt").read_text().split()
    assert {"torch==2.15.0", "torchvision==0.29.2"} <= set(constraints)  # what it says to install is what we install
