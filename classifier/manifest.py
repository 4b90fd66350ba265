"""Defines what a checkpoint says of itself: one JSON document in its header. Imports no torch.

A section that is None was not measured, or does not apply. Unknown keys are refused: a reader never silently ignores
what a writer thought important. Format 2 is that of a checkpoint which holds its network as a program. Every other
checkpoint has format 1, and servers that know no programs read it.
"""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from classifier.preprocess import Preprocess

# A published version is <store>/<model>/<version>.safetensors: a folder and a file of the store.
MODEL_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
VERSION_FILE = r"([1-9][0-9]{0,17})\.safetensors"


_DEEPEST = 32  # levels of a recipe; parsers give up at some depth, each at its own


def _plain(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuses what some reader of the manifest could not carry: infinite numbers, and values nested too deep."""
    json.dumps(value, allow_nan=False)  # raises ValueError: pydantic lets NaN pass here
    level: list[JsonValue] = [value]
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return value
    raise ValueError(f"it is nested deeper than {_DEEPEST} levels")


def _inside(value: JsonValue) -> Iterable[JsonValue]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _that_differ(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) != len(labels):
        raise ValueError("two classes have the same label")
    return labels


Label = Annotated[str, Field(min_length=1, max_length=256)]
Labels = Annotated[tuple[Label, ...], Field(description="by class index", min_length=2), AfterValidator(_that_differ)]


class Section(BaseModel):
    """Is a part of a manifest: it never changes, and neither unknown keys nor infinite numbers get in."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Metrics(Section):
    """Says how good the weights are: measured once, on samples that training neither saw nor used to choose."""

    split: str = Field(description="which samples, e.g. `test`", min_length=1)
    samples: int = Field(ge=1)
    accuracy: float = Field(description="share of right top-1 answers", ge=0, le=1)
    loss: float = Field(description="mean cross-entropy in nats, of the logits as they are", ge=0)
    calibration_error: float | None = Field(
        None, description="expected calibration error of the served probabilities, 15 bins", ge=0, le=1
    )
    uncalibrated_error: float | None = Field(None, description="the same at temperature 1", ge=0, le=1)


class ClassMetrics(Section):
    """Measures one class on the samples of `Metrics`; a share is null where there is nothing to divide by."""

    precision: float | None = Field(
        description="share of the samples predicted as this class that are of it", ge=0, le=1
    )
    recall: float | None = Field(description="share of the samples of this class that are predicted as it", ge=0, le=1)
    samples: int = Field(ge=0)


class EpochPoint(Section):
    """Records one epoch of training. Nothing was trained on the held-out samples."""

    epoch: int = Field(ge=1)
    loss: float = Field(description="of the training samples, augmented, while the weights changed")
    accuracy: float = Field(ge=0, le=1)
    held_out_loss: float
    held_out_accuracy: float = Field(ge=0, le=1)


class Dataset(Section):
    """Names the data that the weights were trained on."""

    name: str = Field(min_length=1)
    samples: int = Field(description="of the training set, held-out ones included", ge=1)
    fingerprint: str = Field(description="SHA-256 over all training images and targets", pattern="^[0-9a-f]{64}$")


class Provenance(Section):
    """Says where the weights come from, in enough detail to make them again."""

    dataset: Dataset
    recipe: Annotated[dict[str, JsonValue], AfterValidator(_plain)] = Field(description="the resolved recipe")
    seed: int
    epoch: int = Field(description="the published epoch, from 1", ge=1)
    device: str | None = Field(None, description="what it was trained on")
    threads: int | None = Field(None, description="torch's, which decide the last bits on a CPU", ge=1)
    code_revision: str | None = Field(description="git commit of the training code; None outside a checkout")
    versions: dict[str, str] = Field(description="of the libraries, e.g. `torch`")
    created: datetime
    parent: str | None = Field(description="`<model>/<version> <sha256>` of the checkpoint training started from")


class Imported(Section):
    """Says where weights come from that were trained elsewhere."""

    source: str = Field(description="the file's name, or torchvision's name of the weights", min_length=1)
    sha256: str | None = Field(description="of the file", pattern="^[0-9a-f]{64}$")
    versions: dict[str, str] = Field(description="of the libraries that read it")
    created: datetime


class ProgramInfo(Section):
    """Says that the network itself is in the checkpoint, as a program. No code is needed to run it."""

    torch: str = Field(description="the version that exported it", min_length=1, max_length=64)
    operators: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        description="what the program uses", min_length=1, max_length=1000
    )


class Code(Section):
    """Holds the code that the network was made of. It is for people: no server ever runs it."""

    file: str = Field(description="the file's name, or a module's", min_length=1, max_length=256)
    sha256: str = Field(description="of the text as UTF-8", pattern="^[0-9a-f]{64}$")
    text: str = Field(max_length=1 << 20)
    imports: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] | None = Field(
        None, description="files of its folder that it imports, and that are not here", max_length=1000
    )


class Calibration(Section):
    """Makes the probabilities honest, as Guo et al. 2017 do it; it was fitted on held-out samples."""

    temperature: float = Field(description="logits are divided by it before the softmax", gt=0)


class OutOfDistribution(Section):
    """Tells images that are like nothing seen in training, by a score of the logits as they are.

    "energy" is the log of the sum of their exponentials (Liu et al. 2020).
    """

    method: Literal["max_logit", "max_probability", "energy"]
    threshold: float = Field(description="a lower score means: like nothing seen in training")


class Manifest(Section):
    """Is all that a checkpoint says of itself."""

    format: Literal[1, 2] = 1
    model: str = Field(pattern=MODEL_NAME)
    architecture: str = Field(min_length=1)
    labels: Labels
    preprocess: Preprocess
    metrics: Metrics | None = None
    per_class: tuple[ClassMetrics, ...] | None = Field(None, description="by class index")
    curve: tuple[EpochPoint, ...] | None = Field(None, description="by epoch")
    provenance: Provenance | None = None
    imported: Imported | None = None
    calibration: Calibration | None = None
    out_of_distribution: OutOfDistribution | None = None
    program: ProgramInfo | None = None
    code: Code | None = None

    @model_validator(mode="after")
    def _figures_fit_the_labels(self) -> Self:
        if self.per_class is not None and len(self.per_class) != len(self.labels):
            raise ValueError(f"per_class has {len(self.per_class)} entries for {len(self.labels)} labels")
        if (self.program is not None) != (self.format == 2):
            raise ValueError("a manifest with a program has format 2, one without has format 1")
        return self

    def to_json(self) -> str:
        """Writes it as it stands in the file.

        What came after version 0.1.0 is left out where it changes nothing, so that servers from before read the file.
        """
        unused = set() if self.preprocess.ink_on_paper else {"ink_on_paper"}
        absent = {name for name in ("program", "code") if getattr(self, name) is None}
        return self.model_dump_json(exclude={"preprocess": unused} | dict.fromkeys(absent, True))

    @property
    def temperature(self) -> float:
        """What the logits are divided by before the softmax; 1 where nothing was calibrated."""
        return 1.0 if self.calibration is None else self.calibration.temperature
