"""What a stage's steps change: what the optimizer is given, and in which groups."""

import torch
from torch import nn

from training.networks import heads
from training.recipes.recipe import Recipe
from training.runs.learner import Learner

CPU = torch.device("cpu")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.ones(1, 2))


def test_weight_decay_is_kept_off_norms_and_biases(tiny: Recipe) -> None:
    network = Small()
    learner = Learner.of(network, heads.WHOLE, tiny.replace(weight_decay=0.1), device=CPU, lr=0.01)
    decayed, free = learner.optimizer.param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    conv, norm = network.body
    assert {id(p) for p in decayed["params"]} == {id(conv.weight), id(network.head.weight), id(network.scale)}
    assert {id(p) for p in free["params"]} == {id(conv.bias), id(norm.weight), id(norm.bias), id(network.head.bias)}


def test_only_what_trains_is_given_to_the_optimizer(tiny: Recipe) -> None:
    network = Small()
    learner = Learner.of(network, ("head",), tiny, device=CPU, lr=0.01)
    given = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    assert given == {id(network.head.weight), id(network.head.bias)}
