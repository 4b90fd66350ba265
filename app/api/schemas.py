"""The JSON bodies, as they stand in /openapi.json. Models and versions are shown as the engine's own data has them."""

from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Literal, Optional

from pydantic import BaseModel, ConfigDict, Field, create_model

from app.engine.model_info import ModelInfo, PassedOver, Refusal, VersionInfo
from classifier.manifest import Code, Manifest, ProgramInfo

Probability = Annotated[float, Field(ge=0, le=1, examples=[0.999989])]

_NO_THRESHOLD = "absent where the checkpoint has no threshold (out_of_distribution in GET /models)"
InDistribution = Annotated[
    bool | None,
    Field(
        description="whether the score reaches the checkpoint's threshold; false: the image is like nothing the model "
        f"was trained on, whatever its predictions say; {_NO_THRESHOLD}",
        examples=[True],
    ),
]
Score = Annotated[
    float | None,
    Field(
        description="of the logits before calibration, by the checkpoint's method; the lower, the less the image is "
        f"like what the model was trained on; {_NO_THRESHOLD}",
        examples=[16.69147300720215],
    ),
]


class PredictionBody(BaseModel):
    label: str = Field(examples=["7"])
    index: int = Field(description="the class's number", ge=0, examples=[7])
    probability: Probability


class ErrorBody(BaseModel):
    code: str = Field(description="one of the codes of a problem", examples=["bad_image"])
    detail: str = Field(examples=["these bytes are no image; send JPEG, PNG, WebP, GIF, BMP or TIFF"])


class AnswerBody(BaseModel):
    """The answer to one image."""

    model: str = Field(examples=["strokes"])
    version: int = Field(ge=1, examples=[3])
    predictions: list[PredictionBody] = Field(description="the likeliest first; probabilities are calibrated ones")
    in_distribution: InDistribution = None
    score: Score = None


class ResultBody(BaseModel):
    """One image of several: its predictions or its error."""

    filename: str | None = Field(examples=["seven.png"])
    predictions: list[PredictionBody] | None = Field(None, description="absent where there is an error")
    in_distribution: InDistribution = None
    score: Score = None
    error: ErrorBody | None = Field(None, description="absent where there are predictions")


class AnswersBody(BaseModel):
    """The answer to several images, in their order; all from one version."""

    model: str = Field(examples=["strokes"])
    version: int | None = Field(description="null where no image could be read", examples=[3])
    results: list[ResultBody]


PassedOverInModel = Annotated[
    tuple[PassedOver, ...], Field(description="what lies in the model's folder and is no version, and why")
]


class CodeBody(BaseModel):
    """The code that the network was made of; its text stays in the checkpoint."""

    file: str = Field(description="the file's name, or a module's")
    sha256: str = Field(description="of the text as UTF-8")


# A version shows what its manifest says, field for field: its preprocess as `input`; last, where its weights come from.
# The program and the code are shown in words of their own.
_SHOWN = {
    name: {"preprocess": "input"}.get(name, name)
    for name in sorted(Manifest.model_fields, key=("provenance", "imported").__contains__)
    if name not in ("format", "model", "program", "code")
}
_ProgramKind = Annotated[
    Literal["named", "exported"] | None,
    Field(
        description="named: the server knows the architecture by its name; exported: the checkpoint holds its network "
        "as a program, and `exported` says which operators it uses"
    ),
]


def _body(name: str, description: str | None, /, **kinds: Any) -> type[BaseModel]:
    """Makes a body whose fields are all required."""
    required: Any = {field: (kind, ...) for field, kind in kinds.items()}
    return create_model(name, __doc__=description, **required)


VersionBody = _body(
    "VersionInfo",
    "One file of the store and all that its manifest says; what is not known is null.",
    version=int,
    state=Literal["loading", "ready", "available", "refused"],
    reason=str | None,
    program=_ProgramKind,
    exported=ProgramInfo | None,
    code=CodeBody | None,
    **{shown: Optional[Manifest.model_fields[name].annotation] for name, shown in _SHOWN.items()},  # noqa: UP045  values
    file_size=int | None,
    sha256=str | None,
    device=str | None,
    loaded_at=datetime | None,
)
ModelBody = _body(
    "ModelInfo",
    None,
    name=str,
    served_version=int | None,
    versions=tuple[VersionBody, ...],  # type: ignore[valid-type]  # made above
    passed_over=PassedOverInModel,
)


def model_body(info: ModelInfo) -> BaseModel:
    """Makes the JSON body of what there is to know of a model."""
    return ModelBody(
        name=info.name,
        served_version=info.served_version,
        versions=tuple(map(_version_body, info.versions)),
        passed_over=info.passed_over,
    )


def _version_body(info: VersionInfo) -> BaseModel:
    said = {shown: getattr(info.manifest, name, None) for name, shown in _SHOWN.items()}
    known = {field.name: getattr(info, field.name) for field in fields(info) if field.name != "manifest"}
    exported = None if info.manifest is None else info.manifest.program
    return VersionBody(
        **known, **said, program=_program_kind(info.manifest), exported=exported, code=_code_body(info.manifest)
    )


def _program_kind(manifest: Manifest | None) -> str | None:
    if manifest is None:
        return None
    return "named" if manifest.program is None else "exported"


def _code_body(manifest: Manifest | None) -> CodeBody | None:
    code: Code | None = None if manifest is None else manifest.code
    return None if code is None else CodeBody(file=code.file, sha256=code.sha256)


class ModelsBody(BaseModel):
    models: list[ModelBody]  # type: ignore[valid-type]  # made above
    passed_over: tuple[PassedOver, ...] = Field(description="what lies in the store's own folder and is no model")


class ReloadBody(BaseModel):
    """What a look at the store led to."""

    model_config = ConfigDict(from_attributes=True)

    model: str = Field(examples=["strokes"])
    served_version: int | None = Field(examples=[3])
    changed: bool = Field(description="whether another version is served now")
    refused: list[Refusal] = Field(description="every file that is there and cannot be served")


class HealthBody(BaseModel):
    status: str = Field(examples=["ready"])
    served: dict[str, int] = Field(description="the served version of each model", examples=[{"strokes": 3}])


class LiveBody(BaseModel):
    status: str = Field(examples=["live"])


class ProblemBody(BaseModel):
    """RFC 9457: every error has this form, as application/problem+json."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["The image cannot be read"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["these bytes are no image; send JPEG, PNG, WebP, GIF, BMP or TIFF"])
    code: str = Field(description="stable; programs may rely on it", examples=["bad_image"])
    request_id: str = Field(description="the same as in the X-Request-ID header", examples=["6f1d0c9b2a3e4f58"])
