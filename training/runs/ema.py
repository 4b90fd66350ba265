"""Keeps a running mean of the weights that train: an exponential moving average."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from training.networks import heads


class Ema:
    """Is a running mean of the weights that train, and of their buffers.

    The idea is Polyak and Juditsky's (1992). In the first steps the decay is lower: at most (1 + steps) / (10 + steps),
    as in TensorFlow.
    """

    def __init__(self, network: nn.Module, parts: tuple[str, ...], decay: float) -> None:
        """Starts from the weights as they are.

        Args:
            parts: the names of the modules whose weights are averaged.
            decay: the share that a mean keeps in each step, 0 to 1.
        """
        self.decay = decay
        self.steps = 0
        # Tied weights have several names, and are averaged once.
        tensors = heads.state_of(network, parts).values()
        self._originals = list({(tensor.data_ptr(), tensor.shape): tensor for tensor in tensors}.values())
        self._means = [tensor.detach().clone() for tensor in self._originals]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the weights of one more step into the means."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mean, original in zip(self._means, self._originals, strict=True):
            if mean.is_floating_point():
                mean.lerp_(original, share)
            else:
                mean.copy_(original)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Gives the network the means for its weights meanwhile."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def begin(self) -> None:
        """Forgets all steps, and starts from the weights as they are now."""
        self.steps = 0
        for mean, original in zip(self._means, self._originals, strict=True):
            mean.copy_(original)

    def state(self) -> dict[str, Any]:
        """Returns what `restore` needs to go on from here."""
        return {"steps": self.steps, "means": self._means}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""
        self.steps = state["steps"]
        for mean, saved in zip(self._means, state["means"], strict=True):
            mean.copy_(saved)

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, original in zip(self._means, self._originals, strict=True):
            kept = mean.clone()
            mean.copy_(original)
            original.copy_(kept)
