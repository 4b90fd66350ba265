"""An epoch: which samples, in which batches, and what it leaves alone."""

import torch
from torch import nn

from training.data.batches import InMemorySplit
from training.networks import heads
from training.recipes.recipe import Recipe
from training.runs.learner import Learner
from training.runs.loop import train_epoch
from training.runs.virtual_ranks import VirtualRanks

CPU = torch.device("cpu")


class Reader(nn.Module):
    """Classifies images by a norm and a linear layer, and notes the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)
        self.seen: list[list[int]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images[:, 0, 0, 0].tolist())
        logits: torch.Tensor = self.fc(self.drop(self.norm(images.float().flatten(1))))
        return logits


def split(count: int, rare: int = 0) -> InMemorySplit:
    """Images whose first pixel is their number; `rare` of them are of class 1, or every other one."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, 2, 2, 1)
    numbers = torch.arange(count)
    return InMemorySplit(images, (numbers < rare).long() if rare else numbers % 2)


def silently(count: int, /, note: str = "") -> None:
    """Nobody looks on."""


def epoch(recipe: Recipe, samples: InMemorySplit, parts: tuple[str, ...] = heads.WHOLE) -> Reader:
    network = Reader()
    learner = Learner.of(network, parts, recipe, device=CPU, lr=0.01)
    train_epoch(
        learner,
        samples,
        forward=network,
        recipe=recipe,
        too_high="after a peak rate of 0.01",
        learning_rate=lambda step, steps: 0.01 * step / steps,
        draw=0,
        advance=silently,
    )
    return network


def test_an_epoch_sees_every_sample_once_in_random_order(tiny: Recipe) -> None:
    seen = [number for batch in epoch(tiny.replace(batch_size=8, augment={}), split(50)).seen for number in batch]
    assert sorted(seen) == list(range(50))
    assert seen != sorted(seen)


def test_one_sample_alone_joins_the_batch_before_it() -> None:
    sizes = [len(piece) for piece in VirtualRanks().batches(torch.arange(17), 8)]
    assert sizes == [8, 9]
    assert [len(piece) for piece in VirtualRanks().batches(torch.arange(18), 8)] == [8, 8, 2]
    assert [len(piece) for piece in VirtualRanks().batches(torch.arange(1), 8)] == [1]


def test_balanced_classes_are_drawn_equally_often_however_rare_one_is(tiny: Recipe) -> None:
    seen = [
        number for batch in epoch(tiny.replace(balanced=True, augment={}), split(200, rare=10)).seen for number in batch
    ]
    assert len(seen) == 200
    assert 70 <= sum(number < 10 for number in seen) <= 130


def test_what_is_frozen_keeps_its_parameters_and_its_buffers(tiny: Recipe) -> None:
    torch.manual_seed(0)
    before = Reader().state_dict()
    torch.manual_seed(0)
    after = epoch(tiny, split(64), ("fc",)).state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed == {"fc.weight", "fc.bias"}
