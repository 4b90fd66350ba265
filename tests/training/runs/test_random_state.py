"""Torch's random numbers: saved, restored and given back, on every kind of device."""

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch

from training.runs.random_state import random_state, restore_random_state, unchanged_random_state

CPU = torch.device("cpu")


class Twin:
    """A device's generator, without the device."""

    def __init__(self) -> None:
        self.generator = torch.Generator()

    def get_rng_state(self, _: torch.device | None = None) -> torch.Tensor:
        return self.generator.get_state()

    def set_rng_state(self, state: torch.Tensor, _: torch.device | None = None) -> None:
        self.generator.set_state(state)

    def draw(self) -> torch.Tensor:
        return torch.rand(4, generator=self.generator)


def on_cpu() -> torch.Tensor:
    return torch.rand(4)


@pytest.fixture(params=["cpu", "cuda", "mps"])
def device(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[torch.device, Callable[[], torch.Tensor]]:
    """A device and what draws from its generator."""
    kind: str = request.param
    if kind == "cpu":
        return CPU, on_cpu
    twin = Twin()
    for name in ("get_rng_state", "set_rng_state"):
        monkeypatch.setattr(f"torch.{kind}.{name}", getattr(twin, name))
    return torch.device(kind), twin.draw


def test_the_same_numbers_come_after_the_state_was_restored(
    device: tuple[torch.device, Callable[[], torch.Tensor]],
) -> None:
    where, draw = device
    saved = random_state(where)
    first, first_on_cpu = draw(), on_cpu()
    restore_random_state(saved, where)
    assert draw().equal(first)
    assert on_cpu().equal(first_on_cpu)


def test_the_caller_s_numbers_go_on_as_if_none_had_been_drawn(
    device: tuple[torch.device, Callable[[], torch.Tensor]],
) -> None:
    where, draw = device
    saved = random_state(where)
    expected = draw(), on_cpu()
    restore_random_state(saved, where)
    with suppress(KeyboardInterrupt), unchanged_random_state(where):
        draw(), on_cpu()
        raise KeyboardInterrupt
    assert draw().equal(expected[0])
    assert on_cpu().equal(expected[1])
