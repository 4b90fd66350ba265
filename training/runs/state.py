"""Keeps the training state: all that a run needs to go on after an epoch as if it had never stopped.

`checkpoint.pth.tar` is the run after its last whole epoch, `model_best.pth.tar` is its best epoch. Neither is for
serving. `torch.load(weights_only=True)` reads both: dictionaries with "epoch", "arch", "state_dict", "best_prec1"
(percent), "optimizer", and what else is needed. The learning rate is a function of the step, so it has no state.
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
    """Holds the epoch to publish, counted from 1: the best on the held-out samples so far, or the last."""

    epoch: int
    score: Score
    weights: Weights


def snapshot(network: nn.Module) -> Weights:
    """Returns a copy of the weights as they are now, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}


@dataclass(frozen=True, slots=True)
class State:
    """Is a run after `epoch` epochs.

    Args:
        identity: all that decides the run's weights; only a run with the same can go on from this state.
        average: the state of the running mean; None: the run has none.
        random: the state of the run's generator, then those of torch's own, as `random_state` gives them.
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
        """Returns the state of a run whose learner has just finished `epoch`. It shares the network's tensors."""
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

    @staticmethod
    def forget(folder: Path) -> None:
        """Removes what could be resumed, because files of two runs must never lie side by side. Raises: OSError."""
        for name in (CHECKPOINT, BEST):
            (folder / name).unlink(missing_ok=True)

    def save(self, folder: Path) -> None:
        """Writes both files, the best epoch first. Raises: OSError.

        If this is cut off between the two, the epoch is repeated, and gives the same again.
        """
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
        """Reads both files. Raises: TrainingError if there is no state, if it is damaged, or of another run."""
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
    """Checks that the epoch to publish is the one that the curve shows, or the one after the state.

    The latter was being written when the run was cut off.

    Raises: ValueError if it is another one.
    """
    scores = [(point["held_out_accuracy"], -point["held_out_loss"]) for point in content["curve"]]
    shown = len(scores) if content["identity"].get("publish") == "last" else scores.index(max(scores)) + 1
    if best["epoch"] not in (shown, content["epoch"] + 1):
        raise ValueError(f"{BEST} is not of the same run as {CHECKPOINT}")


def _damaged(path: Path) -> TrainingError:
    return TrainingError(f"{path} is damaged; start without --resume")


def _check_same(path: Path, kept: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Checks that the state is of the wanted run. Raises: TrainingError, which says what is another."""
    keys = [key for key in sorted(kept.keys() | wanted.keys()) if kept.get(key) != wanted.get(key)]
    if keys == ["data"]:
        raise TrainingError(f"{path} is of other data, or the data were changed since; start without --resume")
    if keys == ["code"]:
        theirs, ours = kept.get("code") or {}, wanted.get("code") or {}
        names = [name for name in sorted(theirs.keys() | ours.keys()) if theirs.get(name) != ours.get(name)]
        raise TrainingError(
            f"{path} was trained with other code: {', '.join(names)} is not what it was; "
            "take the change back, or start without --resume"
        )
    if keys:
        differences = [f"{key} {kept.get(key)!r} there, {wanted.get(key)!r} here" for key in keys[:3]]
        raise TrainingError(
            f"{path} is of another run ({'; '.join(differences)}); "
            "resume with that run's flags, or start without --resume"
        )
