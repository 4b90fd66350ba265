"""What the front-ends and the engine process say to each other: frames on a stream of bytes. Imports no torch.

A frame has headers (how many bytes follow, its kind, and the number of the question it belongs to) and a body. The two
hot ones, SUBMIT and ROWS, are packed numbers and raw pixels. The rest is JSON.

    front-end -> engine   SUBMIT      entry, items, top_k, seconds left; then the pixels
                          CANCEL      nobody waits for it any more
                          CONTROL     Reload, Ready
    engine -> front-end   ROWS        rows, columns; then float32
                          ERROR       why there is no answer
                          HEARTBEAT   the engine lives
                          CONTROL     ModelUpdate, StateUpdate, Reloaded; updates come before any answer that needs them
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, TypeAdapter

from app.engine.catalogue import Entry, Route, StoredVersions
from app.engine.errors import ENGINE_ERRORS, EngineError, NotFound
from app.engine.model_info import ModelInfo, PassedOver, ReloadReport
from app.engine.rows import Table
from classifier.preprocess import Pixels

SUBMIT, CANCEL, CONTROL, ROWS, ERROR, HEARTBEAT = range(6)

HEADERS = struct.Struct("<IBI")  # bytes of the body, kind, number
_SUBMIT = struct.Struct("<IBIIIId")  # HEADERS, entry, items, top_k, seconds left
_ROWS = struct.Struct("<IBIII")  # HEADERS, rows, columns
_SUBMIT_BODY = struct.Struct("<IIId")
_ROWS_BODY = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class Reload:
    """Asks the engine to look at a model's folder now; `seconds` are left for that."""

    model: str
    seconds: float
    what: Literal["reload"] = "reload"


@dataclass(frozen=True, slots=True)
class Ready:
    """Says that this front-end knows what the whole store holds."""

    what: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class ModelUpdate:
    """Says all that there is to know of one model, instead of what was known. What is None is no longer there.

    Args:
        info: a ModelInfo as JSON, which is only read when somebody asks for it: it may be large, and odd.
        entries: the versions that its route leads to.
    """

    model: str
    info: str | None
    stored: StoredVersions | None
    route: Route | None
    entries: tuple[Entry, ...]
    what: Literal["model"] = "model"


@dataclass(frozen=True, slots=True)
class StateUpdate:
    """Says what concerns all models, as in `app.engine.catalogue.Catalogue`."""

    default_model: str | None
    complete: bool
    device: str
    why_not_ready: str | None
    passed_over: tuple[PassedOver, ...]
    what: Literal["state"] = "state"


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Answers a Reload."""

    report: ReloadReport
    what: Literal["reloaded"] = "reloaded"


ToEngine = Reload | Ready
FromEngine = ModelUpdate | StateUpdate | Reloaded

TO_ENGINE: TypeAdapter[ToEngine] = TypeAdapter(Annotated[ToEngine, Field(discriminator="what")])
FROM_ENGINE: TypeAdapter[FromEngine] = TypeAdapter(Annotated[FromEngine, Field(discriminator="what")])
MODEL_INFO = TypeAdapter(ModelInfo)
_ERRORS = TypeAdapter(tuple[str, str, str])  # class, code, detail


class Frame(NamedTuple):
    """A whole frame; its body is `data[start:end]`."""

    kind: int
    number: int
    data: bytes
    start: int
    end: int


class FrameDecoder:
    """Cuts what comes on a stream into frames."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing = 0  # bytes until the frame that has begun is whole

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that are whole now."""
        self._missing -= len(data)
        if self._missing > 0:
            self._pieces.append(data)
            return
        if self._pieces:
            data = b"".join((*self._pieces, data))
        start, available = 0, len(data)
        self._missing = 0
        while available - start >= HEADERS.size:
            length, kind, number = HEADERS.unpack_from(data, start)
            end = start + HEADERS.size + length
            if end > available:
                self._missing = end - available
                break
            yield Frame(kind, number, data, start + HEADERS.size, end)
            start = end
        self._pieces = [data[start:]] if start < available else []


def frame(kind: int, number: int = 0, body: bytes = b"") -> bytes:
    """Packs a frame whose body is bytes."""
    return HEADERS.pack(len(body), kind, number) + body


def submit_frame(
    number: int, entry: int, items: Sequence[Pixels], *, top_k: int, seconds: float
) -> list[bytes | memoryview]:
    """Packs a SUBMIT, in pieces that refer to the pixels.

    Args:
        entry: the id of the version's entry.
        seconds: how long somebody waits for the answer.
    """
    pixels = [image.data.cast("B") for image in items]
    length = _SUBMIT_BODY.size + sum(map(len, pixels))
    return [_SUBMIT.pack(length, SUBMIT, number, entry, len(items), top_k, seconds), *pixels]


def read_submit(data: bytes, start: int) -> tuple[int, int, int, float, int]:
    """Reads the body of a SUBMIT: entry, items, top_k, seconds, and where in `data` the pixels begin."""
    entry, items, top_k, seconds = _SUBMIT_BODY.unpack_from(data, start)
    return entry, items, top_k, seconds, start + _SUBMIT_BODY.size


def rows_frame(number: int, rows: Table) -> tuple[bytes, bytes]:
    """Packs ROWS, in two pieces."""
    count, columns = rows.shape
    return _ROWS.pack(_ROWS_BODY.size + rows.nbytes, ROWS, number, count, columns), rows.tobytes()


def read_rows(data: bytes, start: int) -> tuple[int, tuple[float, ...]]:
    """Reads the body of ROWS: the columns, and all values, row by row."""
    count, columns = _ROWS_BODY.unpack_from(data, start)
    return columns, struct.unpack_from(f"<{count * columns}f", data, start + _ROWS_BODY.size)


def error_frame(number: int, error: EngineError) -> bytes:
    """Packs an ERROR."""
    return frame(ERROR, number, _ERRORS.dump_json((type(error).__name__, error.code, str(error))))


def read_error(body: bytes) -> EngineError:
    """Makes the same error again."""
    kind, code, detail = _ERRORS.validate_json(body)
    if kind == NotFound.__name__:
        return NotFound(code, detail)  # type: ignore[arg-type]  # one of its codes: it was made of one
    return ENGINE_ERRORS[kind](detail)
