"""The optimizers are those of their papers, and each layer gets its share of the learning rate."""

import pytest
import torch
from torch import nn

from training.networks import heads
from training.recipes.recipe import Recipe
from training.runs.optimizer import make_optimizer, set_learning_rate

LR, DECAY, BETA1, BETA2, EPS = 0.1, 0.3, 0.8, 0.95, 1e-8


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.ones(1, 2))


def test_weight_decay_is_kept_off_norms_and_biases(tiny: Recipe) -> None:
    network = Small()
    decayed, free = make_optimizer(network, tiny.replace(weight_decay=0.1), lr=0.01).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    conv, norm = network.body
    assert {id(p) for p in decayed["params"]} == {id(conv.weight), id(network.head.weight), id(network.scale)}
    assert {id(p) for p in free["params"]} == {id(conv.bias), id(norm.weight), id(norm.bias), id(network.head.bias)}


def test_only_what_trains_is_given_to_the_optimizer(tiny: Recipe) -> None:
    network = Small()
    heads.freeze(network, ("head",))
    for layer_decay in (1.0, 0.5):
        optimizer = make_optimizer(network, tiny.replace(layer_decay=layer_decay), lr=0.01)
        given = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert given == {id(network.head.weight), id(network.head.bias)}


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_and_adamw_step_as_their_papers_say(tiny: Recipe, kind: str) -> None:
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2. Torch multiplies alpha with lambda."""
    torch.manual_seed(0)
    layer = nn.Linear(3, 2, bias=False)
    recipe = tiny.replace(optimizer=kind, betas=(BETA1, BETA2), weight_decay=DECAY)
    optimizer = make_optimizer(layer, recipe, lr=LR)
    theta, m, v = layer.weight.detach().double(), torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for t in (1, 2, 3):
        gradient = torch.randn(2, 3)
        layer.weight.grad = gradient
        optimizer.step()
        g = gradient.double() + (DECAY * theta if kind == "adam" else 0)
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g**2
        step = LR * (m / (1 - BETA1**t)) / ((v / (1 - BETA2**t)).sqrt() + EPS)
        theta = theta - step - (LR * DECAY * theta if kind == "adamw" else 0)
    torch.testing.assert_close(layer.weight.detach().double(), theta, rtol=1e-5, atol=1e-6)


def test_each_layer_gets_its_share_of_the_learning_rate(tiny: Recipe) -> None:
    network = Small()
    optimizer = make_optimizer(network, tiny.replace(layer_decay=0.5), lr=0.01)
    set_learning_rate(optimizer, 0.8)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: rates[id(p)] for name, p in network.named_parameters()}
    assert by_name["head.weight"] == by_name["head.bias"] == 0.8
    assert by_name["body.0.weight"] == by_name["body.1.bias"] == by_name["scale"] == 0.4
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays[id(network.head.bias)] == decays[id(network.body[1].weight)] == 0
    assert decays[id(network.head.weight)] == tiny.weight_decay


def test_a_rate_without_bound_is_no_error_of_torch_s_own(tiny: Recipe) -> None:
    optimizer = make_optimizer(Small(), tiny, lr=0.01)
    set_learning_rate(optimizer, 1e300)
    assert {group["lr"] for group in optimizer.param_groups} == {torch.finfo(torch.float32).max}
