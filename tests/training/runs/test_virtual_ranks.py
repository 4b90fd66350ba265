"""Virtual ranks: how a batch is shared out, and that the sums of the shares are those of the batch."""

from typing import Any

import pytest
import torch
from torch import nn

from training.data.batches import InMemorySplit
from training.errors import TrainingError
from training.networks import heads
from training.process_group import ProcessGroup
from training.recipes.recipe import Recipe
from training.runs.learner import Learner
from training.runs.loop import train_epoch
from training.runs.virtual_ranks import VirtualRanks, _Layout

CPU = torch.device("cpu")


class Net(nn.Module):
    """A linear layer behind a norm or not, with a weight that nothing uses, and a buffer that holds infinity."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.fc = nn.Linear(4, 2)
        self.unused = nn.Linear(4, 2)
        self.mask: torch.Tensor
        self.register_buffer("mask", torch.tensor([float("-inf"), 0.3]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.norm(images.float().flatten(1) / 255))
        return logits


def split(count: int) -> InMemorySplit:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (count, 2, 2, 1), dtype=torch.uint8, generator=generator)
    return InMemorySplit(images, torch.arange(count) % 2)


def epoch(recipe: Recipe, network: Net, samples: InMemorySplit) -> Net:
    learner = Learner.of(network, heads.WHOLE, recipe, device=CPU, lr=0.1)
    train_epoch(
        learner,
        samples,
        forward=network,
        recipe=recipe,
        too_high="",
        learning_rate=lambda _step, _steps: 0.1,
        draw=0,
        advance=lambda _count, /, note="": None,  # noqa: ARG005
        ranks=VirtualRanks.of(recipe, ProcessGroup()),
    )
    return network


@pytest.fixture
def plain(tiny: Recipe) -> Recipe:
    return tiny.replace(batch_size=10, augment={}, precision="fp32")


@pytest.mark.parametrize("count", [10, 11, 13, 29, 30, 31])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_every_sample_of_an_order_is_in_one_share_and_no_share_has_a_single_one(count: int, ranks: int) -> None:
    order = torch.randperm(count)
    batches = VirtualRanks(ranks).batches(order, 10)
    shares = [VirtualRanks(ranks).shares(batch) for batch in batches]
    assert torch.cat([share.rows for each in shares for share in each]).tolist() == order.tolist()
    assert min(len(share.rows) for each in shares for share in each) >= 2
    assert all(sum(share.weight for share in each) == pytest.approx(1) for each in shares)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_processes_do_all_shares_of_a_batch_together(size: int) -> None:
    processes = [VirtualRanks(4, ProcessGroup(rank=rank, size=size)) for rank in range(size)]
    alone = VirtualRanks(4).shares(torch.arange(11))
    together = [share for process in processes for share in process.shares(torch.arange(11))]
    assert [share.rank for share in together] == [0, 1, 2, 3]
    assert [share.rows.tolist() for share in together] == [share.rows.tolist() for share in alone]


@pytest.mark.parametrize(
    ("changes", "size", "said"),
    [
        ({}, 2, "2 processes are more than the recipe's virtual_ranks=1: add --set virtual_ranks=2 or more"),
        ({"virtual_ranks": 4}, 5, "virtual_ranks=4: start 4 at most, add --set virtual_ranks=5 or more"),
        ({"all_reduce": True}, 17, "batch_size=32 is too small for 17 processes: each needs 2 images of a batch"),
    ],
)
def test_too_many_processes_are_told_what_works(tiny: Recipe, changes: dict[str, Any], size: int, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        VirtualRanks.of(tiny.replace(**changes), ProcessGroup(size=size))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"virtual_ranks": 17}, "virtual_ranks: 17 shares need 2 images each of a batch, and batch_size is 32"),
        ({"virtual_ranks": 2, "all_reduce": True}, "leave out virtual_ranks"),
        ({"virtual_ranks": 2, "compiled": True}, "leave out virtual_ranks"),
    ],
)
def test_a_recipe_that_cannot_keep_its_promise_is_refused(tiny: Recipe, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        tiny.replace(**changes)


def test_too_few_samples_for_the_virtual_ranks_are_named() -> None:
    with pytest.raises(TrainingError, match="7 training images are too few for 4 virtual ranks"):
        VirtualRanks(4).check_enough(7)
    VirtualRanks(4).check_enough(8)


def test_a_recipe_from_before_is_what_it_was(tiny: Recipe) -> None:
    assert not {"virtual_ranks", "all_reduce"} & tiny.model_dump().keys()


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_step_is_that_of_the_whole_batch_but_for_rounding(plain: Recipe, ranks: int) -> None:
    whole = epoch(plain, Net(), split(31))
    shared = epoch(plain.replace(virtual_ranks=ranks), Net(), split(31))
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(shared.state_dict()[name], tensor, atol=1e-6), name


def test_a_running_mean_changes_by_the_mean_of_what_the_shares_change(plain: Recipe) -> None:
    samples = split(10)
    network = epoch(plain.replace(virtual_ranks=2, batch_size=10), Net(norm=True), samples)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(plain.seed))
    pixels = samples.images[order].float().flatten(1) / 255
    assert isinstance(network.norm, nn.BatchNorm1d)
    assert network.norm.running_mean is not None
    assert network.norm.running_var is not None
    assert torch.allclose(network.norm.running_mean, 0.1 * pixels.mean(0))
    variance = (pixels[:5].var(0) + pixels[5:].var(0)) / 2
    assert torch.allclose(network.norm.running_var, 0.9 + 0.1 * variance)
    assert network.norm.num_batches_tracked == 1


def test_a_buffer_that_no_share_changes_stays_to_the_last_bit(plain: Recipe) -> None:
    network = epoch(plain.replace(virtual_ranks=3), Net(), split(31))
    assert network.mask.tolist() == Net().mask.tolist()


def test_what_no_share_uses_is_left_alone(plain: Recipe) -> None:
    network = epoch(plain.replace(virtual_ranks=3, weight_decay=0.1), Net(), split(31))
    assert torch.equal(network.unused.weight, Net().unused.weight)
    assert not torch.equal(network.fc.weight, Net().fc.weight)


def test_each_share_draws_for_itself_by_the_step(plain: Recipe) -> None:
    learner = Learner.of(Net(), heads.WHOLE, plain, device=CPU, lr=0.1)
    ranks = VirtualRanks(2)
    shares = ranks.shares(torch.arange(10))

    def drawn(share: int, *, draw: int, step: int) -> tuple[float, float]:
        generator = ranks.draws(learner, shares[share], draw=draw, step=step)
        return float(torch.rand((), generator=generator)), float(torch.rand(()))

    all_drawn = [drawn(share, draw=draw, step=step) for share in (0, 1) for draw in (3, 4) for step in (1, 2)]
    assert len({number for pair in all_drawn for number in pair}) == 16
    assert drawn(1, draw=4, step=2) == all_drawn[-1]


class Assigning(Net):
    """A network that puts a new tensor into its buffer, where others change theirs in place."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.zeros(4))
        self.first: torch.Tensor
        self.register_buffer("first", torch.full((4,), float("inf")))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.float().flatten(1) / 255
        if self.training:
            self.mean = self.mean * 0.9 + pixels.detach().mean(0) * 0.1
            self.first = torch.minimum(self.first, pixels.detach().amin(0))
        return super().forward(images)


def test_a_buffer_that_is_assigned_changes_by_the_mean_of_all_shares_and_stays_the_same_object(plain: Recipe) -> None:
    network, samples = Assigning(), split(10)
    mean = network.mean
    epoch(plain.replace(virtual_ranks=2, batch_size=10), network, samples)
    pixels = samples.images.float().flatten(1) / 255
    assert network.mean is mean
    assert torch.allclose(mean, 0.1 * pixels.mean(0))


class Forgetting(Net):
    """A network that takes its buffer away."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self._buffers["mask"] = None
        return super().forward(images)


def test_a_buffer_that_is_taken_away_is_refused(plain: Recipe) -> None:
    with pytest.raises(TrainingError, match="takes a buffer away while it trains"):
        epoch(plain.replace(virtual_ranks=2), Forgetting(), split(10))


def test_a_buffer_that_begins_at_infinity_becomes_the_mean_of_what_the_shares_make_of_it(plain: Recipe) -> None:
    samples = split(10)
    network = epoch(plain.replace(virtual_ranks=2, batch_size=10), Assigning(), samples)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(plain.seed))
    pixels = samples.images[order].float().flatten(1) / 255
    assert isinstance(network, Assigning)
    assert torch.allclose(network.first, (pixels[:5].amin(0) + pixels[5:].amin(0)) / 2)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(2, 3, 1, 1).to(memory_format=torch.channels_last),
        torch.randn(5, 3).t(),
        torch.randn(2, 3, 4).permute(2, 0, 1),
        torch.tensor(1.0),
    ],
    ids=["channels last", "one by one", "transposed", "permuted", "a number"],
)
def test_what_was_flat_has_the_layout_of_its_parameter_again(tensor: torch.Tensor) -> None:
    layout = _Layout.of(tensor)
    again = layout.shaped(layout.flat(tensor.contiguous()).clone())
    assert torch.equal(again, tensor)
    assert torch.empty_like(tensor).stride() == again.stride() or again.numel() == 6
