"""Removes old versions of a model, and keeps the newest sound ones."""

import re
from pathlib import Path

from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import MODEL_NAME
from training.errors import TrainingError
from training.publishing.publish import path_of, versions


def prune(store: Path, model: str, *, keep: int) -> list[Path]:
    """Removes the versions below the `keep` highest sound ones, and returns their paths.

    A version is sound if `Checkpoint.load` takes it. One that is not sound does not count. It is removed only if it is
    below those that stay, because a higher one may still be on its way. If there are fewer than `keep` sound versions,
    nothing is removed.

    Raises:
        TrainingError: there is no such model, or `keep` is below 1.
        OSError: a file cannot be read or removed.
    """
    folder = store / model
    if keep < 1:
        raise TrainingError(f"--keep {keep}: at least 1 version must stay")
    if not re.fullmatch(MODEL_NAME, model) or not folder.is_dir():
        raise TrainingError(f"no model {model!r} in {store}{'' if store.is_dir() else ', which is not there'}")
    numbers = versions(folder)
    sound: list[int] = []
    for version in numbers:
        if len(sound) == keep:
            break
        if _is_sound(path_of(folder, version)):
            sound.append(version)
    removed = [path_of(folder, version) for version in numbers if len(sound) == keep and version < sound[-1]]
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def _is_sound(path: Path) -> bool:
    try:
        Checkpoint.load(path)
    except (CheckpointError, FileNotFoundError):
        return False
    return True
