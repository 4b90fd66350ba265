"""Training state: all that a run needs to go on after an epoch as if it had never stopped. Scratch, not for serving.

`checkpoint.pth.tar` is the run after its last whole epoch, `model_best.pth.tar` its best epoch. Both are what
`torch.load(weights_only=True)` reads: dictionaries with "epoch", "arch", "state_dict", "best_prec1" (percent) and
"optimizer", and what else is needed. The learning rate is a function of the step: a schedule has no state.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from classifier.architectures import load_weights
from training import atomic_files
from training.errors import TrainingError
from training.evaluation.score import Score
from training.runs.learner import Learner
from training.runs.random_state import random_state, restore_random_state

Weights = dict[str, torch.Tensor]

CHECKPOINT, BEST = "checkpoint.pth.tar", "model_best.pth.tar"


@dataclass(frozen=True, slots=True)
class Best:
    """The epoch that does best on the held-out samples so far, counted from 1."""

    epoch: int
    score: Score
    weights: Weights


def snapshot(network: nn.Module) -> Weights:
    """A copy of the weights as they are now, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}


@dataclass(frozen=True, slots=True)
class State:
    """A run after `epoch` epochs.

    Args:
        identity: what decides the run's weights; a state is only good for a run that has the same.
        random: the run's generator, torch's own (dropout and the like), and the device's where it has one.
        curve: one record for each epoch, as in `classifier.manifest.EpochPoint`.
    """

    identity: dict[str, Any]
    epoch: int
    network: Weights
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    average: dict[str, Any] | None
    random: tuple[torch.Tensor, ...]
    curve: tuple[dict[str, Any], ...]
    best: Best

    @classmethod
    def of(
        cls, identity: dict[str, Any], epoch: int, learner: Learner, curve: tuple[dict[str, Any], ...], best: Best
    ) -> Self:
        average = learner.ema
        return cls(
            identity=identity,
            epoch=epoch,
            network=learner.network.state_dict(),
            optimizer=learner.optimizer.state_dict(),
            scaler=learner.scaler.state_dict(),
            average=None if average is None else average.state(),
            random=(learner.generator.get_state(), *random_state(learner.device)),
            curve=curve,
            best=best,
        )

    def restore(self, learner: Learner, *, same_stage: bool) -> None:
        """Args:
        same_stage: whether the learner goes on with the stage that this state is of. A new stage begins with the
            weights and the random numbers alone.
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

    @staticmethod
    def forget(folder: Path) -> None:
        """Nothing is left to resume: the files of two runs must never stand side by side."""
        for name in (CHECKPOINT, BEST):
            (folder / name).unlink(missing_ok=True)

    def save(self, folder: Path) -> None:
        """The best epoch first: if this is cut off between the two, the epoch that is repeated is the same again."""
        best = self.best
        common = {
            "arch": self.identity["architecture"],
            "best_prec1": 100 * best.score.accuracy,
            "optimizer": self.optimizer,
            "identity": self.identity,
        }
        if best.epoch == self.epoch:
            scores = {"loss": best.score.loss, "accuracy": best.score.accuracy}
            atomic_files.save(folder / BEST, common | {"epoch": best.epoch, "state_dict": best.weights} | scores)
        rest = {
            "epoch": self.epoch,
            "state_dict": self.network,
            "scaler": self.scaler,
            "average": self.average,
            "random": list(self.random),
            "curve": list(self.curve),
        }
        atomic_files.save(folder / CHECKPOINT, common | rest)

    @classmethod
    def load(cls, folder: Path, identity: dict[str, Any]) -> Self:
        """Raises: TrainingError if there is no state, a damaged one, or one of another run."""
        content, best = _read(folder / CHECKPOINT, identity), _read(folder / BEST, identity)
        try:
            _check_belongs(best, content)
            return cls(
                identity=content["identity"],
                epoch=content["epoch"],
                network=content["state_dict"],
                optimizer=content["optimizer"],
                scaler=content["scaler"],
                average=content["average"],
                random=tuple(content["random"]),
                curve=tuple(content["curve"]),
                best=Best(best["epoch"], Score(best["loss"], best["accuracy"]), best["state_dict"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise _damaged(folder) from error


def _read(path: Path, identity: dict[str, Any]) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        kept = content["identity"]
    except FileNotFoundError as error:
        raise TrainingError(f"nothing to resume: {path} is not there; start without --resume") from error
    except Exception as error:  # whatever a damaged archive raises
        raise _damaged(path) from error
    _check_same(path, kept, identity)
    return content


def _check_belongs(best: dict[str, Any], content: dict[str, Any]) -> None:
    """The best epoch is the one that the curve says, or the one that was being written when the run was cut off.

    Raises: ValueError.
    """
    scores = [(point["held_out_accuracy"], -point["held_out_loss"]) for point in content["curve"]]
    if best["epoch"] not in (scores.index(max(scores)) + 1, content["epoch"] + 1):
        raise ValueError(f"{BEST} is not of the same run as {CHECKPOINT}")


def _damaged(path: Path) -> TrainingError:
    return TrainingError(f"{path} is damaged; start without --resume")


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
