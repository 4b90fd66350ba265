"""Training state: all that a run needs to go on after an epoch as if it had never stopped. Scratch, not for serving."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from training import files
from training.errors import TrainingError
from training.loop import Learner, Score

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch that does best on the held-out samples so far, counted from 1."""

    epoch: int
    score: Score
    weights: Weights

    def or_better(self, other: "Best") -> "Best":
        return max(self, other, key=lambda best: (best.score.accuracy, -best.score.loss))


def snapshot(network: nn.Module) -> Weights:
    """A copy of the weights as they are now, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}


@dataclass(frozen=True, slots=True)
class State:
    """A run after `epoch` epochs.

    Args:
        identity: what decides the run's weights; a state is only good for a run that has the same.
        random: torch's own generator (dropout and the like), and the run's (order and augmentation).
    """

    identity: dict[str, Any]
    epoch: int
    network: Weights
    optimizer: dict[str, Any]
    random: tuple[torch.Tensor, torch.Tensor]
    best: Best

    @classmethod
    def of(
        cls,
        identity: dict[str, Any],
        epoch: int,
        learner: Learner,
        best: Best,
    ) -> Self:
        random = (torch.get_rng_state(), learner.generator.get_state())
        return cls(identity, epoch, learner.network.state_dict(), learner.optimizer.state_dict(), random, best)

    def restore(self, learner: Learner) -> None:
        learner.network.load_state_dict(self.network)
        learner.optimizer.load_state_dict(self.optimizer)
        torch.set_rng_state(self.random[0])
        learner.generator.set_state(self.random[1])

    def save(self, path: Path) -> None:
        best = self.best
        content = {
            "identity": self.identity,
            "epoch": self.epoch,
            "network": self.network,
            "optimizer": self.optimizer,
            "random": list(self.random),
            "best": {
                "epoch": best.epoch,
                "loss": best.score.loss,
                "accuracy": best.score.accuracy,
                "weights": best.weights,
            },
        }
        file = io.BytesIO()
        torch.save(content, file)
        files.replace(path, file.getvalue())

    @classmethod
    def load(cls, path: Path, identity: dict[str, Any]) -> Self:
        """Raises: TrainingError if there is no state, a damaged one, or one of another run."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            kept, best = content["identity"], content["best"]
            state = cls(
                identity=kept,
                epoch=content["epoch"],
                network=content["network"],
                optimizer=content["optimizer"],
                random=(content["random"][0], content["random"][1]),
                best=Best(best["epoch"], Score(best["loss"], best["accuracy"]), best["weights"]),
            )
        except FileNotFoundError as error:
            raise TrainingError(f"nothing to resume: {path} is not there; start without --resume") from error
        except Exception as error:  # whatever a damaged archive raises
            raise TrainingError(f"{path} is damaged; start without --resume") from error
        _check_same(path, kept, identity)
        return state


def _check_same(path: Path, kept: dict[str, Any], wanted: dict[str, Any]) -> None:
    differences = [
        f"{key} {kept.get(key)!r} there, {wanted.get(key)!r} here"
        for key in sorted(kept.keys() | wanted.keys())
        if kept.get(key) != wanted.get(key)
    ]
    if differences:
        raise TrainingError(
            f"{path} is of another run ({'; '.join(differences[:3])}); "
            "resume with that run's flags, or start without --resume"
        )
