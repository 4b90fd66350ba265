"""What the front-ends and the engine process say to each other: frames on a stream of bytes. Imports no torch.

A frame is a head (how many bytes follow, its kind, the number of the question it belongs to) and a body. The two hot
ones, SUBMIT and ROWS, are packed numbers and raw pixels; the rest is JSON.

    front-end -> engine   SUBMIT   entry, items, top_k, seconds left; then the pixels
                          CANCEL   nobody waits for it any more
                          RELOAD   model, seconds left
                          READY    this front-end has a whole catalogue
    engine -> front-end   CATALOGUE, MODELS    whenever they have changed, before any answer that needs them
                          BEAT     the engine lives
                          ROWS     entry, rows, columns; then float32
                          REPORT   of a reload
                          ERROR    why there is no answer
"""

import struct
from collections.abc import Iterator

from pydantic import TypeAdapter

from app.engine.catalogue import Catalogue
from app.engine.errors import ENGINE_ERRORS, EngineError, NotFound
from app.engine.model_info import ModelInfo, ReloadReport

SUBMIT, CANCEL, RELOAD, READY, CATALOGUE, MODELS, BEAT, ROWS, REPORT, ERROR = range(10)

HEAD = struct.Struct("<IBI")  # bytes of the body, kind, number
SUBMIT_HEAD = struct.Struct("<IBIIIId")  # HEAD, entry, items, top_k, seconds left
ROWS_HEAD = struct.Struct("<IBIIII")  # HEAD, entry, rows, columns

CATALOGUES = TypeAdapter(Catalogue)
MODEL_LISTS = TypeAdapter(list[ModelInfo])
REPORTS = TypeAdapter(ReloadReport)
RELOADS = TypeAdapter(tuple[str, float])  # model, seconds left
ERRORS = TypeAdapter(tuple[str, str, str])  # class, code, detail

Frame = tuple[int, int, bytes, int, int]


def frame(kind: int, number: int = 0, body: bytes = b"") -> bytes:
    return HEAD.pack(len(body), kind, number) + body


class Cutter:
    """Cuts what comes on a stream into frames."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing = 0  # bytes until the frame that has begun is whole

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now: kind, number, and the body as bytes with its start and end."""
        self._missing -= len(data)
        if self._missing > 0:
            self._pieces.append(data)
            return
        if self._pieces:
            data = b"".join((*self._pieces, data))
        start, available = 0, len(data)
        self._missing = 0
        while available - start >= HEAD.size:
            length, kind, number = HEAD.unpack_from(data, start)
            end = start + HEAD.size + length
            if end > available:
                self._missing = end - available
                break
            yield kind, number, data, start + HEAD.size, end
            start = end
        self._pieces = [data[start:]] if start < available else []


def error_frame(number: int, error: EngineError) -> bytes:
    return frame(ERROR, number, ERRORS.dump_json((type(error).__name__, error.code, str(error))))


def error_of(body: bytes) -> EngineError:
    kind, code, detail = ERRORS.validate_json(body)
    if kind == NotFound.__name__:
        return NotFound(code, detail)  # type: ignore[arg-type]  # one of its codes: it was made of one
    return ENGINE_ERRORS[kind](detail)
