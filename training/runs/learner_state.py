"""Holds the state of a learner between two steps: all that its next step needs to be what it would have been."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from classifier.architectures import load_weights
from training.runs.learner import Learner
from training.runs.random_state import random_state, restore_random_state

Weights = dict[str, torch.Tensor]


def snapshot(network: nn.Module) -> Weights:
    """Returns a copy of the weights as they are now, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}


@dataclass(frozen=True, slots=True)
class LearnerState:
    """Is a learner between two steps.

    Args:
        average: the state of the running mean; None: there is none.
        random: the state of the learner's generator, then those of torch's own, as `random_state` gives them.
    """

    network: Weights
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    average: dict[str, Any] | None
    random: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, learner: Learner) -> Self:
        """Returns the state as it is now. It shares the network's tensors."""
        return cls(
            network=learner.network.state_dict(),
            optimizer=learner.optimizer.state_dict(),
            scaler=learner.scaler.state_dict(),
            average=None if learner.ema is None else learner.ema.state(),
            random=(learner.generator.get_state(), *random_state(learner.device)),
        )

    def restore(self, learner: Learner, *, same_stage: bool) -> None:
        """Puts this state into a learner.

        Args:
            same_stage: the learner goes on with the stage of this state. Otherwise a new stage begins, which takes
                only the weights and the random numbers.
        """
        load_weights(learner.network, self.network, share=False)
        if same_stage:
            learner.optimizer.load_state_dict(self.optimizer)
            learner.scaler.load_state_dict(self.scaler)
            if learner.ema is not None and self.average is not None:
                learner.ema.restore(self.average)
        elif learner.ema is not None:
            learner.ema.begin()
        learner.generator.set_state(self.random[0])
        restore_random_state(self.random[1:], learner.device)

    def to_dict(self) -> dict[str, Any]:
        """Returns what `from_dict` reads; the weights are the "state_dict" that others load."""
        return {
            "state_dict": self.network,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "average": self.average,
            "random": list(self.random),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Raises: KeyError, TypeError if something is missing."""
        return cls(
            network=content["state_dict"],
            optimizer=content["optimizer"],
            scaler=content["scaler"],
            average=content["average"],
            random=tuple(content["random"]),
        )
