"""What there is to know of models, versions and the engine, as plain data."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from classifier.manifest import Calibration, ClassMetrics, EpochPoint, Imported, Metrics, OutOfDistribution, Provenance
from classifier.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One file of the store and all that its manifest says; what is not known is None.

    `reason` says why it was refused.
    """

    version: int
    state: Literal["loading", "ready", "available", "refused"]
    reason: str | None
    architecture: str | None
    labels: tuple[str, ...] | None
    input: Preprocess | None
    metrics: Metrics | None
    per_class: tuple[ClassMetrics, ...] | None
    curve: tuple[EpochPoint, ...] | None
    calibration: Calibration | None
    out_of_distribution: OutOfDistribution | None
    provenance: Provenance | None
    imported: Imported | None
    file_size: int | None
    sha256: str | None
    device: str | None
    loaded_at: datetime | None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    name: str
    served_version: int | None
    versions: tuple[VersionInfo, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What a look at the store led to. `refused` lists every file that is there and cannot be served."""

    model: str
    served_version: int | None
    changed: bool
    refused: tuple[Refusal, ...]
    newest_refused: bool


@dataclass(frozen=True, slots=True)
class Status:
    """`detail` says what is missing while `ready` is False, in words that say what to do."""

    ready: bool
    detail: str
    device: str
    served: dict[str, int]
    waiting_items: int
