"""Saves and restores the states of torch's own random generators: the CPU's, and that of a device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def random_state(device: torch.device) -> tuple[torch.Tensor, ...]:
    """Returns what the generators need to go on: the CPU's state first, then that of `device` if it is another one."""
    match device.type:
        case "cuda":
            return torch.get_rng_state(), torch.cuda.get_rng_state(device)
        case "mps":
            return torch.get_rng_state(), torch.mps.get_rng_state()
    return (torch.get_rng_state(),)


def restore_random_state(state: tuple[torch.Tensor, ...], device: torch.device) -> None:
    """Makes the generators go on as they did after `random_state(device)` returned `state`."""
    torch.set_rng_state(state[0])
    match device.type:
        case "cuda":
            torch.cuda.set_rng_state(state[1], device)
        case "mps":
            torch.mps.set_rng_state(state[1])


@contextmanager
def unchanged_random_state(device: torch.device) -> Iterator[None]:
    """Gives the generators back as they were, whatever is drawn meanwhile and however it ends."""
    state = random_state(device)
    try:
        yield
    finally:
        restore_random_state(state, device)
