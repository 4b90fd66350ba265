"""Removes old versions of a model, and keeps the newest sound ones."""

import re
from pathlib import Path

from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import MODEL_NAME
from classifier.store.remote import RemoteStore
from training.errors import TrainingError
from training.publishing.fetched import fetched
from training.publishing.publish import Address, file_name, path_of, remote_versions, versions


def prune(store: Address, model: str, *, keep: int) -> list[Address]:
    """Removes the versions below the `keep` highest sound ones, and returns their paths, or their URLs.

    A version is sound if `Checkpoint.load` takes it. One that is not sound does not count. It is removed only if it is
    below those that stay, because a higher one may still be on its way. If there are fewer than `keep` sound versions,
    nothing is removed.

    Args:
        store: the folder of models, or their URL.

    Raises:
        TrainingError: there is no such model, or `keep` is below 1.
        OSError: a file cannot be read or removed.
    """
    if keep < 1:
        raise TrainingError(f"--keep {keep}: at least 1 version must stay")
    if isinstance(store, str):
        return _prune_remotely(RemoteStore(store), model, keep)
    folder = store / model
    if not re.fullmatch(MODEL_NAME, model) or not folder.is_dir():
        raise TrainingError(f"no model {model!r} in {store}{'' if store.is_dir() else ', which is not there'}")
    removed = _superfluous([path_of(folder, version) for version in versions(folder)], keep)
    for path in removed:
        path.unlink(missing_ok=True)
    return removed


def _prune_remotely(store: RemoteStore, model: str, keep: int) -> list[str]:
    try:
        numbers = remote_versions(store, model) if re.fullmatch(MODEL_NAME, model) else []
    except FileNotFoundError:
        numbers = []
    if not numbers:
        raise TrainingError(f"no model {model!r} in {store.url}")
    removed = _superfluous([store.url_of(model, file_name(version)) for version in numbers], keep)
    for url in removed:
        store.remove(model, url.rpartition("/")[2])
    return removed


def _superfluous(checkpoints: list[Address], keep: int) -> list[Address]:
    """Returns those behind the first `keep` sound ones; none, if there are not so many."""
    sound = 0
    for index, checkpoint in enumerate(checkpoints):
        sound += _is_sound(checkpoint)
        if sound == keep:
            return checkpoints[index + 1 :]
    return []


def _is_sound(checkpoint: Path | str) -> bool:
    try:
        with fetched(checkpoint) as path:
            Checkpoint.load(path)
    except (CheckpointError, FileNotFoundError):
        return False
    return True
