"""The networks: the built-in ones exactly, torchvision's by name, and what is said when torchvision is broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from classifier.architectures import build, known, load_weights, meta_network
from tests.support import hub
from tests.support.server import PROJECT


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


@pytest.mark.slow
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
@pytest.mark.slow
def test_networks_with_auxiliary_heads_give_one_row_of_logits_in_training_too(name: str) -> None:
    with torch.device("meta"):
        assert build(name, 7).train()(torch.zeros(2, 3, 299, 299)).shape == (2, 7)


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.slow
def test_alexnet_transfer_has_the_tutorials_keys_and_shapes() -> None:
    features = {f"0.{n}": s for n, s in _shapes(torchvision.models.alexnet().features).items()}
    assert _shapes(meta_network("alexnet_transfer", 5)) == features | {"4.weight": (5, 256 * 6 * 6), "4.bias": (5,)}


@pytest.mark.slow
def test_alexnet_finetune_has_the_tutorials_keys_and_shapes() -> None:
    shapes = _shapes(meta_network("alexnet_finetune", 5))
    features = {f"features.{n}": s for n, s in _shapes(torchvision.models.alexnet().features).items()}
    assert features.items() <= shapes.items()
    assert {name: shape for name, shape in shapes.items() if name not in features} == {
        "classifier.0.weight": (4096, 9216),
        "classifier.0.bias": (4096,),
        "classifier.3.weight": (4096, 4096),
        "classifier.3.bias": (4096,),
        "classifier.6.weight": (5, 4096),
        "classifier.6.bias": (5,),
    }


@pytest.mark.slow
def test_alexnet_with_the_tutorials_heads_computes_what_its_layers_in_a_row_compute() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 288, 288)  # of 224x224 pixels 6x6 are left before anything is averaged
    transfer, finetune = build("alexnet_transfer", 3).eval(), build("alexnet_finetune", 3).eval()
    finetune.get_submodule("features").load_state_dict(transfer.get_submodule("0").state_dict())
    with torch.inference_mode():
        features = torch.flatten(nn.AdaptiveAvgPool2d((6, 6))(transfer.get_submodule("0")(images)), 1)
        x = features
        for layer in ("classifier.0", "classifier.3"):
            x = torch.relu(finetune.get_submodule(layer)(x))
        torch.testing.assert_close(transfer(images), transfer.get_submodule("4")(features))
        torch.testing.assert_close(finetune(images), finetune.get_submodule("classifier.6")(x))


@pytest.mark.parametrize("name", ["alexnet_transfer", "alexnet_finetune"])
def test_the_tutorials_heads_drop_half_of_what_they_read_in_training(name: str) -> None:
    dropouts = [m for m in meta_network(name, 3).modules() if isinstance(m, nn.Dropout)]
    assert [dropout.p for dropout in dropouts] == ([0.5] if name == "alexnet_transfer" else [0.5, 0.5])


def test_all_that_is_known_is_named_once_the_seeds_own_first() -> None:
    names = known()
    assert names[:3] == ["mnist_cnn", "alexnet_transfer", "alexnet_finetune"]
    assert names[3:] == torchvision.models.list_models(module=torchvision.models)
    assert len(set(names)) == len(names) > 80


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "inception_v3", "resnet18"])
def test_torchvisions_weights_give_the_logits_that_its_own_loading_gives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    auxiliary = {} if name == "resnet18" else {"aux_logits": True, "init_weights": False}
    with torch.device("meta"):
        whole = torchvision.models.get_model(name, weights=None, **auxiliary)
    weights = hub.random_weights(whole)
    hub.cache(name, weights)
    theirs = torchvision.models.get_model(name, weights="DEFAULT").eval()
    ours = meta_network(name, 1000)
    load_weights(ours, {n: tensor for n, tensor in weights.items() if not n.lower().startswith("aux")}, share=True)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = ours.eval()(images)
        assert torch.isfinite(logits).all()
        assert (logits[0] - logits[1]).abs().max() > 0.01  # the images matter
        assert torch.equal(logits, theirs(images))


@pytest.mark.parametrize("name", ["mnasnet0_5", pytest.param("resnet18", marks=pytest.mark.slow)])
@pytest.mark.parametrize("share", [True, False])
def test_weights_need_no_more_than_their_names_to_be_loaded(name: str, share: bool) -> None:
    weights = dict(hub.random_weights(meta_network(name, 3)))  # without the layers' versions
    network = meta_network(name, 3) if share else meta_network(name, 3).to_empty(device="cpu")
    load_weights(network, weights, share=share)
    for n, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights[n])
        assert (tensor.data_ptr() == weights[n].data_ptr()) == share


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"size mismatch for fc2\.weight"):
        load_weights(build("mnist_cnn", 3), build("mnist_cnn", 4).state_dict(), share=False)


@pytest.mark.parametrize("name", ["regnet_y_400mf", "regnet_x_800mf"])
def test_the_meta_network_of_a_network_that_works_with_tensors_while_it_is_built_is_the_same_network(name: str) -> None:
    real, thin = build(name, 7), meta_network(name, 7)
    assert _shapes(thin) == _shapes(real)
    assert [t.dtype for t in thin.state_dict().values()] == [t.dtype for t in real.state_dict().values()]


@pytest.mark.parametrize("name", ["mnist_cnn", "resnet18", "swin_t", "maxvit_t", "regnet_y_400mf", "inception_v3"])
def test_a_meta_network_is_the_network_without_values_and_draws_no_random_number(name: str) -> None:
    before = torch.get_rng_state()
    network = meta_network(name, 7)
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


@pytest.mark.slow
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
    assert ended.stdout == "built\n"  # the built-in network does without torchvision
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"classifier.torchvision_parts.TorchvisionError: torchvision does not fit the installed torch ({failure})"
    )
    assert "pip install torch==2.15.0 torchvision==0.29.2" in last
    constraints = (PROJECT / "constraints.txt").read_text().split()
    assert {"torch==2.15.0", "torchvision==0.29.2"} <= set(constraints)  # what it says to install is what we install
