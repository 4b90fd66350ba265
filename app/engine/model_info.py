"""What there is to know of models, versions and the engine, as plain data."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from classifier.manifest import Manifest


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """Says what there is to know of one version: its file, its state, its manifest. None is not known.

    Args:
        reason: why it was refused; None if it was not.
        sha256: the checkpoint's hash, as its header says it.
        device: where it is loaded; None if it is not.
    """

    version: int
    state: Literal["loading", "ready", "available", "refused"]
    reason: str | None
    manifest: Manifest | None
    file_size: int | None
    sha256: str | None
    device: str | None
    loaded_at: datetime | None


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Says why something in the store is no version of a model, though it looks as if it ought to be one.

    Args:
        path: where it lies in the store; "…" stands for all that are not named.
    """

    path: str
    reason: str


def no_such_model(name: str, passed_over: Iterable[PassedOver]) -> str:
    """Says that there is no model of this name, and why not where a folder of that name is passed over."""
    why = next((f": {each.reason}" for each in passed_over if each.path == name), "")
    return f"there is no model {name!r}{why}; GET /models lists what there is"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Says what there is to know of one model.

    Args:
        served_version: the version that answers.
        versions: the highest first.
        passed_over: what lies in its folder and is no version.
    """

    name: str
    served_version: int | None
    versions: tuple[VersionInfo, ...]
    passed_over: tuple[PassedOver, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Says why a version cannot be served."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """Says what a look at the store led to.

    Args:
        changed: another version is served than before.
        refused: every file that is there and cannot be served.
        newest_refused: the highest version is among them.
    """

    model: str
    served_version: int | None
    changed: bool
    refused: tuple[Refusal, ...]
    newest_refused: bool


@dataclass(frozen=True, slots=True)
class Status:
    """Says whether predictions can be answered, and by what.

    Args:
        detail: what is missing while `ready` is False, in words that say what to do.
        served: the version of each model that answers.
        waiting_items: how many images wait for a batch.
    """

    ready: bool
    detail: str
    device: str
    served: dict[str, int]
    waiting_items: int
