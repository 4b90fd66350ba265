"""The order of a network's layers, as far as its modules show it."""

import pytest
import torch
from torch import nn

from classifier.architectures import meta_network
from training.networks.layers import depths


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        ("mnist_cnn", 4),  # two convolutions, two linear layers
        ("alexnet", 8),
        ("resnet18", 1 + 8 + 1),
        ("vit_b_32", 1 + 12 + 1),  # as BEiT and MAE count them
        ("convnext_tiny", 1 + 18 + 3 + 1),  # the stem, the blocks, what makes images smaller, and the head
        ("swin_t", 1 + 12 + 3 + 1),
    ],
)
def test_a_block_is_a_layer_and_so_is_what_stands_between_blocks(architecture: str, layers: int) -> None:
    network = meta_network(architecture, 10)
    found = depths(network)
    assert found.keys() == dict(network.named_parameters()).keys()
    assert set(found.values()) == set(range(layers))
    assert found[next(iter(found))] == 0
    assert max(found, key=lambda name: found[name]).startswith(("fc", "classifier", "heads", "head"))


def test_positions_belong_to_the_first_layer_and_a_norm_to_the_layer_before_it() -> None:
    found = depths(meta_network("vit_b_32", 10))
    assert found["class_token"] == found["conv_proj.weight"] == 0
    assert found["encoder.pos_embedding"] == found["encoder.layers.encoder_layer_0.mlp.0.weight"] == 1
    assert found["encoder.ln.weight"] == found["encoder.layers.encoder_layer_11.mlp.0.weight"] == 12
    assert found["heads.head.weight"] == 13


class _Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.norm = nn.BatchNorm2d(3)
        self.stem = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU()
        self.fc = nn.Linear(4, 2)


def test_a_network_without_blocks_has_a_layer_for_each_of_its_modules() -> None:
    found = depths(_Own())
    assert found == {
        "scale": 0,
        "norm.weight": 0,
        "norm.bias": 0,
        "stem.weight": 1,
        "stem.bias": 1,
        "fc.weight": 2,
        "fc.bias": 2,
    }


def test_a_network_that_is_one_layer_is_one() -> None:
    assert depths(nn.Linear(2, 2)) == {"weight": 0, "bias": 0}
