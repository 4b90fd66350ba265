"""The file `<file>.json` beside an exported network: all that serving it needs, and the file itself does not say."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from classifier import atomic_files
from classifier.manifest import Calibration, Labels, Manifest, OutOfDistribution, Section
from classifier.preprocess import Preprocess
from training.errors import TrainingError, one_line

_FORMAT: Literal["flambeau-weights/1"] = "flambeau-weights/1"
_MOST_BYTES = 1 << 25


class Sidecar(Section):
    """Says what the weights beside it were published with, as a manifest does."""

    format: Literal["flambeau-weights/1"] = _FORMAT
    content: Annotated[Literal["state_dict", "pt2", "onnx"], Field(description="what the file beside it holds")] = (
        "state_dict"
    )
    note: Annotated[str, Field(description="for people: how the file is used without flambeau")] | None = None
    architecture: str = Field(min_length=1)
    labels: Labels
    preprocess: Preprocess
    calibration: Calibration | None = None
    out_of_distribution: OutOfDistribution | None = None
    sha256: Annotated[str, Field(description="of the file of weights", pattern="^[0-9a-f]{64}$")] | None = None

    @classmethod
    def of(cls, manifest: Manifest, sha256: str | None = None) -> Self:
        """Returns what a manifest says that serving needs."""
        return cls(
            architecture=manifest.architecture,
            labels=manifest.labels,
            preprocess=manifest.preprocess,
            calibration=manifest.calibration,
            out_of_distribution=manifest.out_of_distribution,
            sha256=sha256,
        )


def path_of(weights: Path) -> Path:
    """Returns where the sidecar of a file of weights lies."""
    return weights.with_name(f"{weights.name}.json")


def sha256_of(weights: Path) -> str:
    """Returns the hash of a file of weights, 64 hexadecimal digits. Raises: OSError."""
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(weights: Path, content: Sidecar) -> None:
    """Writes the sidecar of a file of weights, whole or not at all. Raises: OSError."""
    text = json.dumps(content.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_files.replace(path_of(weights), f"{text}\n".encode())


def read(weights: Path, sha256: str, *, note: Callable[[str], None]) -> Sidecar | None:
    """Returns what lies beside a file of weights; None if there is nothing, or a JSON document of somebody else.

    Args:
        sha256: of the file of weights.
        note: is told that a document is passed over.

    Raises: TrainingError if the sidecar is damaged, too large, or was written for other weights; OSError.
    """
    path = path_of(weights)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise TrainingError(f"{path} has more than {_MOST_BYTES:,} bytes: repair it, or move it away")
    try:
        content = json.loads(data)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            note(f"{path.name} beside it is not one that export wrote, and is passed over")
            return None
        sidecar = Sidecar.model_validate(content)
    except (ValueError, RecursionError) as error:  # also what is no UTF-8, and pydantic's ValidationError
        raise TrainingError(f"{path} cannot be used: {_in_words(error)}; repair it, or move it away") from error
    if sidecar.sha256 not in (None, sha256):
        raise TrainingError(f"{path} was written for other weights than {weights.name}: move it away, or export again")
    return sidecar


def _in_words(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return one_line(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"[:200]
