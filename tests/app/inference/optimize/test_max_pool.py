"""Pools of pairs: the very same values, for the pools that they can stand in for."""

from pathlib import Path

import pytest
import torch
from torch import nn

from app.inference.optimize.max_pool import MaximumOfPairs, replace_max_pools
from app.inference.verification import verify
from tests.support.checkpoints import checkpoint, publish


@pytest.mark.parametrize("size", [(28, 28), (2, 2), (5, 8), (8, 5), (57, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_values_are_those_of_torchs_pool(
    size: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    images = torch.randn(3, 4, *size, generator=torch.Generator().manual_seed(1)).to(dtype, memory_format=layout)
    images[0, 0, 0, 0] = torch.nan
    images[1, 0, 0, 0] = -torch.inf
    expected = nn.MaxPool2d(2)(images)
    values = MaximumOfPairs()(images)
    assert torch.equal(values.nan_to_num(7), expected.nan_to_num(7))
    assert values[0, 0, 0, 0].isnan()


def test_images_keep_the_layout_that_convolutions_like() -> None:
    images = torch.zeros(2, 16, 28, 28).to(memory_format=torch.channels_last)
    assert MaximumOfPairs()(images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(2, 2), nn.MaxPool2d((2, 2), stride=(2, 2), padding=0, dilation=(1, 1))]
)
def test_pools_of_2x2_are_exchanged(pool: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3), pool)
    assert replace_max_pools(network) == 1
    assert type(network[1]) is MaximumOfPairs


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(2, 1),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d((2, 1)),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, return_indices=True),
        nn.AvgPool2d(2),
        type("OfSomebodyElse", (nn.MaxPool2d,), {})(2),
    ],
)
def test_other_pools_stay(pool: nn.Module) -> None:
    network = nn.Sequential(pool)
    assert replace_max_pools(network) == 0
    assert network[0] is pool


def test_a_pool_of_two_names_is_exchanged_under_both() -> None:
    pool = nn.MaxPool2d(2)
    network = nn.Sequential(pool, nn.Sequential(pool))
    assert replace_max_pools(network) == 2
    assert not [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]


def test_what_is_served_on_a_cpu_has_them(tmp_path: Path) -> None:
    publish(tmp_path, 1, checkpoint())
    calls: list[type[nn.Module]] = []
    hook = nn.modules.module.register_module_forward_pre_hook(lambda module, _: calls.append(type(module)))
    try:
        verify(tmp_path / "digits" / "1.safetensors", device=torch.device("cpu"), max_items=2)
    finally:
        hook.remove()
    assert MaximumOfPairs in calls
    assert nn.MaxPool2d not in calls
