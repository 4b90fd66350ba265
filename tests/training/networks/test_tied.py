"""Tied weights stand once in a checkpoint, and get their second name again from a network of the same code."""

import torch
from torch import nn

from training.networks.tied import with_tied_names


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight


def test_a_second_name_gets_the_weights_of_the_first() -> None:
    network = _Tied()
    weights = {name: torch.randn_like(tensor) for name, tensor in network.state_dict().items()}
    once = {name: tensor for name, tensor in weights.items() if name != "second.weight"}
    filled = with_tied_names(once, network)
    assert filled["second.weight"] is once["first.weight"]
    assert filled.keys() == network.state_dict().keys()
    network.load_state_dict(filled)


def test_it_does_not_matter_which_name_is_there() -> None:
    network = _Tied()
    weights = {name: tensor for name, tensor in network.state_dict().items() if name != "first.weight"}
    assert with_tied_names(weights, network)["first.weight"] is weights["second.weight"]


def test_weights_that_are_not_tied_stay_missing() -> None:
    network = _Tied()
    weights = {name: tensor for name, tensor in network.state_dict().items() if name != "third.weight"}
    assert with_tied_names(weights, network) == weights
