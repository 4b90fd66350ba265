"""What a stage's steps change: the running mean, the groups of the optimizer, the precision."""

import pytest
import torch
from torch import nn

from training.errors import TrainingError
from training.networks import heads
from training.recipes.recipe import Recipe
from training.runs.learner import Average, Learner, precision

CPU = torch.device("cpu")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.ones(1, 2))


def test_the_running_mean_follows_the_weights_and_comes_and_goes_in_their_place() -> None:
    network = Small()
    average = Average(network, heads.WHOLE, decay=0.5)
    before = network.head.weight.detach().clone()
    with torch.no_grad():
        network.head.weight += 4.0
    average.update()  # the first decay is 2/11, not 0.5: (1 + 1) / (10 + 1)
    with average.in_place():
        assert torch.allclose(network.head.weight, before + 4 * (1 - 2 / 11))
    assert torch.allclose(network.head.weight, before + 4)
    for _ in range(60):
        average.update()
    with average.in_place():
        assert torch.allclose(network.head.weight, before + 4)


def test_the_decay_is_never_above_the_one_asked_for() -> None:
    network = Small()
    average = Average(network, heads.WHOLE, decay=0.5)
    for _ in range(100):
        average.update()
    before = network.head.weight.detach().clone()
    with torch.no_grad():
        network.head.weight += 8.0
    average.update()
    with average.in_place():
        assert torch.allclose(network.head.weight, before + 4)


def test_the_running_mean_covers_buffers_and_counts() -> None:
    network = Small()
    norm = network.body[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.num_batches_tracked is not None
    average = Average(network, heads.WHOLE, decay=0.5)
    network.train()
    network.body(torch.randn(4, 1, 5, 5))
    average.update()
    with average.in_place():
        assert int(norm.num_batches_tracked) == 1
        assert norm.running_mean is not None
        assert not norm.running_mean.equal(torch.zeros(2))


def test_what_is_frozen_is_not_averaged() -> None:
    network = Small()
    average = Average(network, ("head",), decay=0.5)
    assert len(average.state()["means"]) == 2


def test_weight_decay_is_kept_off_norms_and_biases(tiny: Recipe) -> None:
    network = Small()
    learner = Learner.of(network, heads.WHOLE, tiny.but(weight_decay=0.1), device=CPU, lr=0.01)
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


@pytest.mark.parametrize(
    ("has", "expected"), [({"amx_bf16": True}, "bf16"), ({"amx_bf16": False}, "fp32"), ({}, "fp32")]
)
def test_on_a_cpu_the_precision_is_bf16_where_it_has_units_for_it(
    tiny: Recipe, monkeypatch: pytest.MonkeyPatch, has: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: has, raising=False)
    assert precision(tiny.but(precision="auto"), CPU) == expected
    monkeypatch.delattr("torch.cpu.get_capabilities")
    assert precision(tiny.but(precision="auto"), CPU) == "fp32"


def test_the_precision_is_the_one_asked_for(tiny: Recipe) -> None:
    assert precision(tiny.but(precision="fp32"), CPU) == "fp32"
    assert precision(tiny.but(precision="bf16"), CPU) == "bf16"
    with pytest.raises(TrainingError, match="bf16"):
        precision(tiny.but(precision="fp16"), CPU)
