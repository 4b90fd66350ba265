"""Chooses the version that scores, and brings its file to this machine."""

from dataclasses import dataclass
from pathlib import Path

from app.lifecycle.storage import Storage, VersionFile
from app.scoring.errors import ScoringError
from classifier.header import CheckpointError

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Chosen:
    """Is one version of a model, and its file on this machine."""

    model: str
    version: int
    sha256: str
    file: Path


def choose(storage: Storage, wanted: str | None) -> Chosen:
    """Returns the version that is meant.

    Args:
        wanted: a model, or a model and a version as `mnist@3`. None: the only model of the store.

    Raises: ScoringError, where there is none, or it cannot be loaded; OSError, where the store cannot be read.
    """
    name, _, number = (wanted or "").partition("@")
    model = name or _only_model(storage)
    if "@" in (wanted or "") and not (number.isascii() and number.isdigit() and len(number) <= 18):
        raise ScoringError(f"--model {wanted}: behind the @ a version is expected, such as {model}@1")
    listing = storage.versions(model, {})
    versions = {} if listing is None else listing.versions
    if not versions:
        raise ScoringError(f"{storage.name} has no model {model!r}; it has {_models(storage)}")
    file = versions.get(int(number)) if number else next(iter(versions.values()))
    if file is None:
        raise ScoringError(f"{model} has no version {number}; it has {', '.join(map(str, list(versions)[:_SHOWN]))}")
    return _fetched(storage, model, file)


def _fetched(storage: Storage, model: str, file: VersionFile) -> Chosen:
    if file.problem is not None or file.header is None:
        raise ScoringError(f"{model}@{file.version} {file.problem}: name another version, as {model}@<version>")
    try:
        return Chosen(model, file.version, file.header.sha256, storage.fetch(model, file))
    except CheckpointError as error:
        raise ScoringError(f"{model}@{file.version}: {error}") from error


def _only_model(storage: Storage) -> str:
    models = storage.models().models
    if len(models) != 1:
        raise ScoringError(f"--model is needed: {storage.name} has {_models(storage)}")
    return models[0]


def _models(storage: Storage) -> str:
    models = storage.models().models
    return ", ".join(models[:_SHOWN]) + (" and more" if len(models) > _SHOWN else "") if models else "no model"
