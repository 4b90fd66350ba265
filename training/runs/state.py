"""Keeps the training state: all that a run needs to go on after an epoch as if it had never stopped.

`checkpoint.pth.tar` is the run after its last whole epoch, `model_best.pth.tar` is its best epoch. Neither is for
serving. `torch.load(weights_only=True)` reads both: dictionaries with "epoch", "arch", "state_dict", "best_prec1"
(percent), "optimizer", and what else is needed. The learning rate is a function of the step, so it has no state.
`partial_epoch.pth.tar` is the run amid a long epoch. It is removed when the epoch is over.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from classifier.progress import Progress
from training import tensor_files
from training.errors import TrainingError
from training.evaluation.score import Score
from training.runs.learner_state import LearnerState, Weights
from training.runs.loop import Begun

CHECKPOINT, BEST, PARTIAL = "checkpoint.pth.tar", "model_best.pth.tar", "partial_epoch.pth.tar"


@dataclass(frozen=True, slots=True)
class Best:
    """Holds the epoch to publish, counted from 1: the best on the held-out samples so far, or the last."""

    epoch: int
    score: Score
    weights: Weights


@dataclass(frozen=True, slots=True)
class State:
    """Is a run after `epoch` epochs.

    Args:
        identity: all that decides the run's weights; only a run with the same can go on from this state.
        curve: one record for each epoch, as in `classifier.manifest.EpochPoint`.
    """

    identity: dict[str, Any]
    epoch: int
    learner: LearnerState
    curve: tuple[dict[str, Any], ...]
    best: Best

    def save(self, folder: Path) -> None:
        """Writes both files, the best epoch first, and removes what was kept amid the epoch. Raises: OSError.

        If this is cut off between the two, the epoch is repeated, and gives the same again.
        """
        best = self.best
        common = {
            "arch": self.identity["architecture"],
            "best_prec1": 100 * best.score.accuracy,
            "optimizer": self.learner.optimizer,
            "identity": self.identity,
        }
        if best.epoch == self.epoch:
            scores = {"loss": best.score.loss, "accuracy": best.score.accuracy}
            tensor_files.save(folder / BEST, common | {"epoch": best.epoch, "state_dict": best.weights} | scores)
        rest = {"epoch": self.epoch, "curve": list(self.curve)}
        tensor_files.save(folder / CHECKPOINT, common | self.learner.to_dict() | rest)
        (folder / PARTIAL).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path, identity: dict[str, Any]) -> Self | None:
        """Reads both files; None if there is none. Raises: TrainingError if one is damaged, or of another run."""
        content = _read(folder / CHECKPOINT, identity)
        if content is None:
            return None
        best = _read(folder / BEST, identity)
        try:
            if best is None:
                raise ValueError(f"{BEST} is not there")
            _check_belongs(best, content)
            return cls(
                identity=content["identity"],
                epoch=content["epoch"],
                learner=LearnerState.from_dict(content),
                curve=tuple(content["curve"]),
                best=Best(best["epoch"], Score(best["loss"], best["accuracy"]), best["state_dict"]),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise _damaged(folder) from error


@dataclass(frozen=True, slots=True)
class PartialEpoch:
    """Is a run amid an epoch.

    Args:
        identity: as in `State`.
        epoch: the one that is not over.
        begun: how far it is.
    """

    identity: dict[str, Any]
    epoch: int
    begun: Begun
    learner: LearnerState

    def save(self, folder: Path) -> None:
        """Writes one file. Raises: OSError."""
        content = {"identity": self.identity, "epoch": self.epoch, "begun": self.begun.to_dict()}
        tensor_files.save(folder / PARTIAL, content | self.learner.to_dict())

    @classmethod
    def load(cls, folder: Path, identity: dict[str, Any]) -> Self | None:
        """Reads the file; None if there is none. Raises: TrainingError if it is damaged, or of another run."""
        content = _read(folder / PARTIAL, identity)
        if content is None:
            return None
        try:
            return cls(
                identity=content["identity"],
                epoch=content["epoch"],
                begun=Begun.from_dict(content["begun"]),
                learner=LearnerState.from_dict(content),
            )
        except (KeyError, TypeError) as error:
            raise _damaged(folder / PARTIAL) from error


def forget(folder: Path) -> None:
    """Removes what could be resumed, because files of two runs must never lie side by side. Raises: OSError."""
    for name in (CHECKPOINT, BEST, PARTIAL):
        (folder / name).unlink(missing_ok=True)


def load(folder: Path, identity: dict[str, Any], progress: Progress) -> tuple[State | None, PartialEpoch | None]:
    """Returns the last whole epoch and how far the next one is, of which at least one is there.

    Raises: NothingKeptError if there is nothing to resume; TrainingError if it is damaged, or of another run.
    """
    state = State.load(folder, identity)
    try:
        partial = PartialEpoch.load(folder, identity)
    except DamagedStateError:
        if state is None:
            raise
        progress.say(f"{folder / PARTIAL} is damaged, and left out")
        partial = None
    after = 0 if state is None else state.epoch
    if partial is None or partial.epoch != after + 1:  # the run was killed before it was removed
        partial = None
        (folder / PARTIAL).unlink(missing_ok=True)
    if state is None and partial is None:
        raise NothingKeptError(f"nothing to resume: {folder / CHECKPOINT} is not there; start without --resume")
    return state, partial


def _read(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        kept = content["identity"]
    except FileNotFoundError:
        return None
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


class DamagedStateError(TrainingError):
    """A file of the state cannot be understood."""


class NothingKeptError(TrainingError):
    """There is no state to go on from."""


def _damaged(path: Path) -> DamagedStateError:
    return DamagedStateError(f"{path} is damaged; start without --resume")


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
