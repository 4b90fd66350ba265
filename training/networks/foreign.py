"""Reads weights that were trained elsewhere, without running anything that a file may hold.

It reads safetensors files and what `torch.save` wrote, whatever the file's name ends in.
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import Manifest
from training.errors import TrainingError
from training.networks import stand_ins
from training.networks.entries import Entry, architecture_of, find, labels_in, state_dict_of
from training.networks.file_kinds import is_safetensors, what_it_is
from training.networks.weights import Weights, without_wrappers
from training.networks.words import in_words

_SAVE = "torch.save({'arch': ..., 'state_dict': network.state_dict()}, FILE)"


@dataclass(frozen=True, slots=True)
class Foreign:
    """Holds what a file holds, as far as the file says it.

    Args:
        state_dict: the weights by name, without what wrappers put into the names.
        labels: by class index, under the key of each entry that holds them.
        manifest: None unless the file is a checkpoint of ours.
        notes: what was taken from the file and what was left out, in words.
    """

    state_dict: Weights
    architecture: str | None = None
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()


def read(path: Path, entry: str | None = None) -> Foreign:
    """Reads a file of weights.

    Args:
        entry: the key of the weights in the file, or a prefix of their names; None: what is usual.

    Raises:
        TrainingError: there are no weights in it, or only a full unpickling could read it.
        TorchvisionError: torchvision is needed and cannot be imported.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise TrainingError(f"{path} is no file that can be read twice: write it to a disk first")
        with path.open("rb") as file:
            start = file.read(9)
        if is_safetensors(start):
            return _from_safetensors(path, entry)
        return _from_torch(path, _unpickled(path), entry)
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from error


def _from_safetensors(path: Path, entry: str | None) -> Foreign:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.keys() == {"manifest", "sha256"}:
            own = Checkpoint.load(path)
            if entry is not None:
                raise TrainingError(f"{path} is a checkpoint of ours, with one set of weights: leave out --weights")
            manifest = own.manifest
            return Foreign(dict(own.network), manifest.architecture, {"its manifest": manifest.labels}, manifest)
        return _foreign(path, safetensors.torch.load_file(path), entry)
    except (safetensors.SafetensorError, CheckpointError, ValueError, KeyError) as error:
        raise TrainingError(f"{path} is not a sound safetensors file: {error}") from error


def _from_torch(path: Path, content: Any, entry: str | None) -> Foreign:
    if not isinstance(content, Mapping) or not content:
        raise TrainingError(f"{path} holds no state_dict: it holds {in_words(content)}")
    return _foreign(path, content, entry)


def _foreign(path: Path, content: Mapping[Any, Any], wanted: str | None) -> Foreign:
    try:
        entry = find(content, wanted)
        weights = without_wrappers(state_dict_of(entry))
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from error
    return _said(content, entry, weights)


def _said(content: Mapping[Any, Any], entry: Entry, weights: Weights) -> Foreign:
    if not entry.path:
        return Foreign(weights, notes=entry.notes)
    labels, problems = labels_in(content, entry.path)
    notes = [*entry.notes, *(f"took the labels under {key!r}" for key in labels), *problems]
    return Foreign(weights, architecture_of(content, entry.path), labels, notes=tuple(notes))


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), stand_ins.allowed():
            warnings.simplefilter("ignore", UserWarning)  # of pickle's protocols; an error follows, or all is well
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip() is not None:  # torch does not look at the sums
                        raise _no_weights(path)
            with path.open("rb") as file:  # for a path, torch would go by what its name ends in
                return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, TrainingError):
        raise
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except Exception as error:  # nearly anything, where the file is another one or cut short
        if "TorchScript" in str(error):
            raise TrainingError(f"{path} is a TorchScript archive: save its state_dict() by torch.save") from error
        raise _no_weights(path) from error


def _refused(path: Path, reason: str) -> TrainingError:
    foreign = re.search(r"GLOBAL ([\w.]+)", reason)
    if foreign is not None:
        return TrainingError(
            f"{path} is refused: it holds {foreign[1]}, and reading it could run any code that is in the file. If "
            f"you trust it, save the weights alone: {_SAVE}"
        )
    if zipfile.is_zipfile(path) and "Unsupported operand" in reason:
        return TrainingError(f"{path} was not saved with torch's own pickle protocol: save it again by {_SAVE}")
    return _no_weights(path)


def _no_weights(path: Path) -> TrainingError:
    kind = what_it_is(path)
    if kind is not None:
        return TrainingError(f"{path} {kind}")
    return TrainingError(
        f"{path} is damaged, or not a file of weights: neither torch.save nor safetensors wrote it like this"
    )
