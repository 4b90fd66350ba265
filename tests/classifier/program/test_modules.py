"""Nodes that are torch's modules, so that folding and packing find them in a program as in a named network."""

import copy

import pytest
import torch
from torch import nn

from app.inference.optimize.fold_batch_norm import fold_batch_norm
from app.inference.optimize.max_pool import replace_max_pools
from app.inference.optimize.prepack_weights import prepack_weights
from classifier.architectures import build
from classifier.program.check import check
from classifier.program.network import ProgramNetwork
from tests.support.programs import IMAGES, node, program, value, weight
from training.networks.export_program import export_program


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("mnist_cnn", (1, 28, 28)),
        ("resnet18", (3, 64, 64)),
        ("mobilenet_v3_small", (3, 64, 64)),
        ("vit_b_32", (3, 224, 224)),
    ],
)
def test_as_much_is_folded_and_packed_as_in_the_named_network(architecture: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    named = build(architecture, 10).eval().requires_grad_(False)
    exported = export_program(copy.deepcopy(named), shape, architecture)
    largest = check(exported.program, shape, 10, 64)  # with these, the server watches the first batch of each size
    networks = [named, ProgramNetwork(exported.program, exported.tensors, largest=largest).eval()]
    batch, images = torch.zeros(1, *shape), torch.rand(3, *shape)
    with torch.inference_mode():
        expected = named(images)
    counts = [
        [fold_batch_norm(each, batch), replace_max_pools(each), prepack_weights(each, batch)] for each in networks
    ]
    if architecture == "mnist_cnn":  # the named one calls one pool twice
        assert counts == [[0, 1, 0], [0, 2, 0]]
    elif architecture != "vit_b_32":  # the named one has modules for attention, whose layers are not packed
        assert counts[0] == counts[1]
    assert sum(counts[1]) > 0
    with torch.inference_mode():
        torch.testing.assert_close(networks[1](images), expected, rtol=1e-3, atol=1e-4)


def _with_a_second_use(*, output: int) -> ProgramNetwork:
    tensors = {"constant.w": torch.rand(4, 1, 3, 3)} | {f"constant.{each}": torch.rand(4) for each in "abmv"}
    nodes = [
        node("conv2d", IMAGES, weight("constant.w"), None, (1, 1), (1, 1)),
        node("batch_norm", value(1), *(weight(f"constant.{each}") for each in "abmv"), 1e-5),
        node("add.Tensor", value(2), value(1)),
    ]
    return ProgramNetwork(program(nodes[:output], tensors), tensors).eval()


@pytest.mark.parametrize(("output", "folded"), [(2, 1), (3, 0)])
def test_a_norm_is_folded_only_if_nothing_else_takes_the_convolution(output: int, folded: int) -> None:
    network, images = _with_a_second_use(output=output), torch.rand(2, 1, 8, 8)
    expected = network(images)
    assert fold_batch_norm(network, torch.zeros(1, 1, 8, 8)) == folded
    torch.testing.assert_close(network(images), expected)


def test_a_layer_whose_weight_is_computed_stays_an_operator() -> None:
    network = ProgramNetwork(program([node("linear", IMAGES, IMAGES)]), {}).eval()
    assert not any(isinstance(module, nn.Linear) for module in network.modules())
    images = torch.rand(3, 3)
    assert torch.equal(network(images), images @ images.T)
