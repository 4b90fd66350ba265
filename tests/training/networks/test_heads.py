"""What trains and what does not, in every architecture; the two halves of a network that is cut at its head."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from classifier.architectures import build, known, load_weights, meta_network
from tests.support import hub
from training.errors import TrainingError
from training.networks.heads import (
    WHOLE,
    features,
    freeze,
    head_weights,
    load_backbone,
    parts,
    separable,
    tail,
    train_mode,
)
from training.networks.spec import NetworkSpec

# Nothing here says how large an input must be: the smallest that each of these takes.
EDGE = {"mnist_cnn": 28, "alexnet": 64, "alexnet_transfer": 64, "alexnet_finetune": 64, "squeezenet1_1": 32}


def _images(architecture: str, count: int = 4) -> torch.Tensor:
    edge = EDGE.get(architecture, 224 if architecture.startswith(("vit", "maxvit")) else 64)
    channels = 1 if architecture == "mnist_cnn" else 3
    return torch.randn(count, channels, edge, edge, generator=torch.Generator().manual_seed(3))


def _network(architecture: str, num_classes: int = 3) -> nn.Module:
    network = meta_network(architecture, num_classes)
    load_weights(network, hub.random_weights(network), share=True)
    return network


def _trainable(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", known())
def test_the_head_of_every_architecture_is_its_last_layer(architecture: str) -> None:
    network = meta_network(architecture, 7)
    head = parts(NetworkSpec(architecture), "head")
    freeze(network, head)
    trainable = _trainable(network)
    assert 1 <= len(trainable) <= 2  # a weight, and mostly a bias
    assert all(7 in network.get_parameter(name).shape[:1] for name in trainable)
    assert trainable <= set(list(dict(network.named_parameters()))[-2:])
    train_mode(network, head)
    training = {name for name, module in network.named_modules() if module.training}
    assert training == set(head)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "head", "trainable"),
    [
        ("mnist_cnn", ("fc2",), 128 * 10 + 10),
        ("alexnet_transfer", ("1", "2", "3", "4"), 9216 * 10 + 10),
        ("alexnet_finetune", ("classifier.4", "classifier.5", "classifier.6"), 4096 * 10 + 10),
        ("alexnet", ("classifier.5", "classifier.6"), 4096 * 10 + 10),
        ("squeezenet1_1", tuple(f"classifier.{i}" for i in range(4)), 512 * 10 + 10),
        ("resnet18", ("fc",), 512 * 10 + 10),
        ("vit_b_16", ("heads.head",), 768 * 10 + 10),
        ("swin_t", ("head",), 768 * 10 + 10),
        ("maxvit_t", ("classifier.4", "classifier.5"), 512 * 10),
        ("convnext_tiny", ("classifier.1", "classifier.2"), 768 * 10 + 10),
        ("mobilenet_v3_small", ("classifier.1", "classifier.2", "classifier.3"), 1024 * 10 + 10),
    ],
)
def test_the_head_takes_along_what_stands_around_it_without_parameters(
    architecture: str, head: tuple[str, ...], trainable: int
) -> None:
    assert parts(NetworkSpec(architecture), "head") == head
    network = meta_network(architecture, 10)
    freeze(network, head)
    assert sum(network.get_parameter(name).numel() for name in _trainable(network)) == trainable


def test_all_trains_all() -> None:
    network = _network("shufflenet_v2_x0_5")
    assert parts(NetworkSpec("shufflenet_v2_x0_5"), "all") == WHOLE
    freeze(network, ("fc",))
    freeze(network, WHOLE)
    train_mode(network, WHOLE)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("architecture", "trainable", "names"),
    [
        ("alexnet_finetune", "classifier", ("classifier",)),
        ("resnet18", "layer4,fc", ("layer4", "fc")),
        ("resnet18", " fc , layer4 ", ("layer4", "fc")),
        ("resnet18", "layer4,layer4.1,fc,fc", ("layer4", "fc")),
        ("alexnet", "features.10,classifier.6", ("features.10", "classifier.6")),
        ("resnet18", "avgpool,fc", ("avgpool", "fc")),
    ],
)
def test_parts_are_named_like_modules_and_come_in_the_networks_order(
    architecture: str, trainable: str, names: tuple[str, ...]
) -> None:
    assert parts(NetworkSpec(architecture), trainable) == names


@pytest.mark.parametrize(
    ("architecture", "trainable", "message"),
    [
        ("alexnet", "head,fc", "alexnet has no part 'head': .*all, head, or some of features, avgpool, classifier"),
        ("alexnet", "", "alexnet has no part ''"),
        ("alexnet", "classifier,", "alexnet has no part ''"),
        ("alexnet", "classifier.6.weight", "alexnet has no part 'classifier.6.weight'"),
        ("alexnet", "avgpool", "there is nothing to train in alexnet's avgpool"),
        ("alexnett", "head", "unknown architecture 'alexnett'; did you mean alexnet"),
    ],
)
def test_what_is_no_part_is_refused_in_one_line(architecture: str, trainable: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        parts(NetworkSpec(architecture), trainable)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_training_a_head_changes_the_head_alone_parameters_and_buffers(architecture: str) -> None:
    torch.manual_seed(0)
    network, head = build(architecture, 3), parts(NetworkSpec(architecture), "head")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    _train(network, head, _images(architecture))
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == head_weights(NetworkSpec(architecture))


def test_training_some_parts_changes_these_alone_with_their_norms_statistics() -> None:
    torch.manual_seed(0)
    network, trained = build("shufflenet_v2_x0_5", 3), parts(NetworkSpec("shufflenet_v2_x0_5"), "conv5,fc")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    _train(network, trained, _images("shufflenet_v2_x0_5"))
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith(("conv5.", "fc."))}


def _train(network: nn.Module, trained: tuple[str, ...], images: torch.Tensor) -> None:
    freeze(network, trained)
    train_mode(network, trained)
    optimizer = torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=0.05, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(network(images), torch.tensor([0, 1, 2, 0])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


HEADS = [
    *(("mnist_cnn", "head"), ("alexnet", "head"), ("alexnet_transfer", "head"), ("alexnet_finetune", "classifier")),
    *(("squeezenet1_1", "head"), ("shufflenet_v2_x0_5", "head"), ("mobilenet_v3_small", "head")),
    *(("densenet121", "head"), ("googlenet", "head"), ("swin_t", "head"), ("vit_b_32", "head")),
    *(("convnext_tiny", "head"), ("convnext_tiny", "classifier"), ("mobilenet_v3_small", "classifier")),
    *(("mnasnet0_5", "head"), ("regnet_x_400mf", "head"), ("alexnet", "all")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "trainable"), HEADS)
def test_a_network_cut_at_its_head_computes_what_it_computes_whole(architecture: str, trainable: str) -> None:
    network, cut, images = _network(architecture), parts(NetworkSpec(architecture), trainable), _images(architecture, 2)
    assert separable(network, cut, images)
    network.eval()
    with torch.inference_mode():
        below = features(network, cut)(images)
        kept = below.clone()
        logits, whole = tail(network, cut)(below), network(images)
    assert logits.shape == (2, 3)
    assert (whole[0] - whole[1]).abs().max() > 1e-3  # the images matter
    torch.testing.assert_close(logits, whole)
    assert torch.equal(below, kept)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["mobilenet_v3_small", "alexnet_finetune"])
def test_training_the_tail_leaves_its_features_alone_and_trains_the_network(architecture: str) -> None:
    torch.manual_seed(0)
    network, cut = _network(architecture), parts(NetworkSpec(architecture), "head")
    freeze(network, cut)
    network.eval()
    with torch.inference_mode():
        below = features(network, cut)(_images(architecture))
    kept, head = below.clone(), tail(network, cut)
    head.train()
    F.cross_entropy(head(below), torch.tensor([0, 1, 2, 0])).backward()  # type: ignore[no-untyped-call]
    assert torch.equal(below, kept)  # though the dropout in it works in place
    assert {n for n, p in network.named_parameters() if p.grad is not None} == head_weights(NetworkSpec(architecture))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "trainable"),
    [
        ("resnet18", "layer4,fc"),
        ("resnet18", "avgpool,fc"),
        ("resnet18", "layer4"),
        ("alexnet", "features.10,classifier.6"),
        ("alexnet", "features,classifier"),
        ("mobilenet_v3_small", "classifier.0"),
        ("vit_b_32", "encoder,heads"),
    ],
)
def test_parts_that_are_not_a_chain_to_the_logits_cannot_be_cut_off(architecture: str, trainable: str) -> None:
    network = _network(architecture)
    assert not separable(network, parts(NetworkSpec(architecture), trainable), _images(architecture, 2))


def test_a_head_that_still_answers_zero_hides_no_wrong_cut() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.two(torch.tanh(self.one(x)))
            return logits

    network = Skips()
    nn.init.zeros_(network.two.weight)
    nn.init.zeros_(network.two.bias)
    assert separable(network, ("two",), torch.randn(3, 4))
    assert not separable(network, ("one", "two"), torch.randn(3, 4))


def test_asking_whether_it_can_be_cut_leaves_the_network_as_it_was() -> None:
    network, cut = _network("shufflenet_v2_x0_5"), parts(NetworkSpec("shufflenet_v2_x0_5"), "head")
    train_mode(network, cut)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert separable(network, cut, _images("shufflenet_v2_x0_5"))
    assert [name for name, module in network.named_modules() if module.training] == ["fc"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    features(network, cut)(_images("shufflenet_v2_x0_5"))
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.slow
@pytest.mark.parametrize("classes", [3, 5])
@pytest.mark.parametrize("architecture", ["shufflenet_v2_x0_5", "mnasnet0_5", "alexnet_finetune", "mnist_cnn"])
def test_a_backbone_comes_from_the_same_architecture_and_the_head_stays_fresh(architecture: str, classes: int) -> None:
    network, weights = _network(architecture), hub.random_weights(meta_network(architecture, classes), seed=9)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_backbone(network, NetworkSpec(architecture), weights, architecture)
    head = head_weights(NetworkSpec(architecture))
    for name, tensor in network.state_dict().items():
        expected = before if name in head else weights
        assert torch.equal(tensor, expected[name]), name


FAMILY = {"alexnet": "features.", "alexnet_transfer": "0.", "alexnet_finetune": "features."}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "architecture"),
    [
        ("alexnet", "alexnet_transfer"),
        ("alexnet_finetune", "alexnet_transfer"),
        ("alexnet_transfer", "alexnet_finetune"),
    ],
)
def test_alexnets_features_go_from_one_of_its_family_to_another(source: str, architecture: str) -> None:
    network, weights = _network(architecture), hub.random_weights(meta_network(source, 5), seed=9)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_backbone(network, NetworkSpec(architecture), weights, source)
    after = network.state_dict()
    here, there = FAMILY[architecture], FAMILY[source]
    assert {n for n in after if not torch.equal(after[n], before[n])} == {n for n in after if n.startswith(here)}
    assert all(torch.equal(after[n], weights[there + n.removeprefix(here)]) for n in after if n.startswith(here))


@pytest.mark.parametrize(
    ("architecture", "source"),
    [("resnet18", "resnet34"), ("alexnet", "alexnet_transfer"), ("alexnet_transfer", "resnet18"), ("vgg11", "alexnet")],
)
def test_a_backbone_of_another_kind_is_refused_by_both_names(architecture: str, source: str) -> None:
    network = meta_network(architecture, 3)
    with pytest.raises(TrainingError, match=f"{architecture} cannot start from weights of {source}"):
        load_backbone(network, NetworkSpec(architecture), {}, source)


def test_a_backbone_with_something_missing_or_of_another_shape_is_refused_and_changes_nothing() -> None:
    network, weights = _network("mnist_cnn"), hub.random_weights(meta_network("mnist_cnn", 5), seed=9)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights |= {"conv2.weight": torch.zeros(3, 3)}
    del weights["fc1.bias"]
    with pytest.raises(TrainingError, match=r"2 are missing or of another shape, such as conv2\.weight"):
        load_backbone(network, NetworkSpec("mnist_cnn"), weights, "mnist_cnn")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
