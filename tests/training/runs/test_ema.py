"""The running mean of the weights: it follows them, and comes and goes in their place."""

import torch
from torch import nn

from training.networks import heads
from training.runs.ema import Ema


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.ones(1, 2))


def test_the_running_mean_follows_the_weights_and_comes_and_goes_in_their_place() -> None:
    network = Small()
    ema = Ema(network, heads.WHOLE, decay=0.5)
    before = network.head.weight.detach().clone()
    with torch.no_grad():
        network.head.weight += 4.0
    ema.update()  # the first decay is 2/11, not 0.5: (1 + 1) / (10 + 1)
    with ema.in_place():
        assert torch.allclose(network.head.weight, before + 4 * (1 - 2 / 11))
    assert torch.allclose(network.head.weight, before + 4)
    for _ in range(60):
        ema.update()
    with ema.in_place():
        assert torch.allclose(network.head.weight, before + 4)


def test_weights_with_two_names_are_averaged_once() -> None:
    network, other = Small(), nn.Linear(2, 3)
    network.add_module("again", other)
    other.weight = network.head.weight
    ema = Ema(network, heads.WHOLE, decay=0.5)
    before = network.head.weight.detach().clone()
    with torch.no_grad():
        network.head.weight += 4.0
    ema.update()
    with ema.in_place():
        assert torch.allclose(network.head.weight, before + 4 * (1 - 2 / 11))
    assert torch.allclose(network.head.weight, before + 4)


def test_the_decay_is_never_above_the_one_asked_for() -> None:
    network = Small()
    ema = Ema(network, heads.WHOLE, decay=0.5)
    for _ in range(100):
        ema.update()
    before = network.head.weight.detach().clone()
    with torch.no_grad():
        network.head.weight += 8.0
    ema.update()
    with ema.in_place():
        assert torch.allclose(network.head.weight, before + 4)


def test_the_running_mean_covers_buffers_and_counts() -> None:
    network = Small()
    norm = network.body[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.num_batches_tracked is not None
    ema = Ema(network, heads.WHOLE, decay=0.5)
    network.train()
    network.body(torch.randn(4, 1, 5, 5))
    ema.update()
    with ema.in_place():
        assert int(norm.num_batches_tracked) == 1
        assert norm.running_mean is not None
        assert not norm.running_mean.equal(torch.zeros(2))


def test_what_is_frozen_is_not_averaged() -> None:
    network = Small()
    ema = Ema(network, ("head",), decay=0.5)
    assert len(ema.state()["means"]) == 2
