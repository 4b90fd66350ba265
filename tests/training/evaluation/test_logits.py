"""Logits of a split: in the samples' order, in eval mode, and the network is left as it was."""

import copy

import pytest
import torch
from torch import nn

from training.data.batches import InMemorySplit
from training.evaluation.logits import logits_of

CPU = torch.device("cpu")


class Small(nn.Module):
    """A norm and a dropout, which both compute something else in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.drop(self.norm(images.float().flatten(1))))
        return logits


def split(count: int) -> InMemorySplit:
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, 2, 2, 1)
    return InMemorySplit(images, torch.zeros(count, dtype=torch.int64))


def test_logits_come_in_the_samples_order_and_the_network_is_left_in_its_mode() -> None:
    network = Small()
    network.norm.eval()
    modes = [module.training for module in network.modules()]
    samples = split(40)
    before = copy.deepcopy(network.state_dict())
    logits = logits_of(network, samples, forward=network, device=CPU)
    assert [module.training for module in network.modules()] == modes
    assert all(before[name].equal(tensor) for name, tensor in network.state_dict().items())
    network.eval()
    with torch.no_grad():
        assert logits.equal(network(samples.images))


def test_a_batch_that_fails_leaves_the_network_in_its_mode_too() -> None:
    network = Small()
    network.norm.eval()
    modes = [module.training for module in network.modules()]

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        logits_of(network, split(5), forward=fail, device=CPU)
    assert [module.training for module in network.modules()] == modes
