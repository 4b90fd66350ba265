"""Ema: a running mean of the weights that train."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from training.networks import heads


class Ema:
    """A running mean of the weights that train, and of their buffers: the decay is lower in the first steps.

    As in Polyak and Juditsky 1992; the warm-up of the decay, (1 + steps) / (10 + steps), is TensorFlow's.
    """

    def __init__(self, network: nn.Module, parts: tuple[str, ...], decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._originals = list(heads.state_of(network, parts).values())
        self._means = [tensor.detach().clone() for tensor in self._originals]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mean, original in zip(self._means, self._originals, strict=True):
            if mean.is_floating_point():
                mean.lerp_(original, share)
            else:
                mean.copy_(original)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the means for its weights meanwhile."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def begin(self) -> None:
        """Forgets all that was, and starts from the weights as they are."""
        self.steps = 0
        for mean, original in zip(self._means, self._originals, strict=True):
            mean.copy_(original)

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "means": self._means}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for mean, saved in zip(self._means, state["means"], strict=True):
            mean.copy_(saved)

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, original in zip(self._means, self._originals, strict=True):
            kept = mean.clone()
            mean.copy_(original)
            original.copy_(kept)
