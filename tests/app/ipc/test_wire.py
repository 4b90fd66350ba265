"""What crosses from process to process arrives as it left, however the stream is cut."""

import random
from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import numpy as np
import pytest

from app.engine.catalogue import Entry, Route, StoredVersions
from app.engine.errors import EngineError, NotFound
from app.engine.model_info import ModelInfo, PassedOver, Refusal, ReloadReport, VersionInfo
from app.engine.rows import RowDecoder
from app.ipc import wire
from classifier.manifest import (
    Calibration,
    ClassMetrics,
    Dataset,
    EpochPoint,
    Manifest,
    Metrics,
    OutOfDistribution,
    Provenance,
)
from tests.support.checkpoints import DIGITS, PHOTOS

Whole = tuple[int, int, bytes]

BODIES = [b"", b"x", b"", bytes(range(256)) * 20, b"rows", b"\0" * 9, b""]
FRAMES: list[Whole] = [(i % 10, (0, 7, 2**32 - 1)[i % 3], body) for i, body in enumerate(BODIES)]
STREAM = b"".join(wire.frame(*each) for each in FRAMES)


def cut(*pieces: bytes) -> list[Whole]:
    cutter = wire.FrameDecoder()
    return [
        (kind, number, body[start:end]) for piece in pieces for kind, number, body, start, end in cutter.feed(piece)
    ]


def pieces(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted(places)
    return [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


def test_frames_that_come_together_are_cut_apart() -> None:
    assert cut(STREAM) == FRAMES


def test_frames_that_come_byte_by_byte_are_put_together() -> None:
    assert cut(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == FRAMES


@pytest.mark.parametrize("place", range(2 * wire.HEADERS.size + 3))
def test_a_stream_may_be_cut_anywhere_in_a_head(place: int) -> None:
    assert cut(*pieces(STREAM, [place])) == FRAMES
    assert cut(*pieces(STREAM, [place, place])) == FRAMES


@pytest.mark.parametrize("seed", range(50))
def test_a_stream_may_be_cut_anywhere(seed: int) -> None:
    random.seed(seed)
    assert cut(*pieces(STREAM, random.choices(range(len(STREAM)), k=random.randint(1, 40)))) == FRAMES


def test_a_large_frame_comes_in_many_pieces_and_what_follows_it_is_whole() -> None:
    large = random.Random(0).randbytes(3_000_000)
    stream = wire.frame(wire.SUBMIT, 1, large) + wire.frame(wire.CANCEL, 2)
    assert cut(*(stream[i : i + 700] for i in range(0, len(stream), 700))) == [
        (wire.SUBMIT, 1, large),
        (wire.CANCEL, 2, b""),
    ]


def test_a_frame_is_given_as_soon_as_it_is_whole() -> None:
    cutter = wire.FrameDecoder()
    first, second = wire.frame(wire.HEARTBEAT), wire.frame(wire.CANCEL, 3, b"rest")
    assert [kind for kind, *_ in cutter.feed(first + second[:-1])] == [wire.HEARTBEAT]
    assert list(cutter.feed(b"")) == []
    assert [number for _, number, *_ in cutter.feed(second[-1:])] == [3]


def kinds_of(error: type[EngineError]) -> list[type[EngineError]]:
    return [error, *(each for kind in error.__subclasses__() for each in kinds_of(kind))]


@pytest.mark.parametrize("kind", [each for each in kinds_of(EngineError) if each is not NotFound])
def test_every_error_of_an_engine_arrives_as_itself(kind: type[EngineError]) -> None:
    (number, error) = over_and_back(kind("it's „so“:\n\t\0"))
    assert number == 9
    assert type(error) is kind
    assert (error.code, str(error)) == (kind.code, "it's „so“:\n\t\0")


@pytest.mark.parametrize("code", get_args(NotFound.__init__.__annotations__["code"]))
def test_what_is_not_found_arrives_with_its_code(code: str) -> None:
    (_, error) = over_and_back(NotFound(code, "there is no model ''"))  # type: ignore[arg-type]
    assert isinstance(error, NotFound)
    assert (error.code, str(error)) == (code, "there is no model ''")


def over_and_back(error: EngineError) -> tuple[int, EngineError]:
    ((kind, number, body),) = cut(wire.error_frame(9, error))
    assert kind == wire.ERROR
    return number, wire.read_error(body)


def entry(number: int, *, threshold: float | None = None) -> Entry:
    preprocess = (DIGITS, PHOTOS)[number % 2]
    return Entry(number, "digits", 12, preprocess, preprocess.digest, RowDecoder(("nöll", "", "two"), threshold))


FROM_ENGINE: list[wire.FromEngine] = [
    wire.ModelUpdate("digits", None, None, None, ()),
    wire.ModelUpdate(
        "digits",
        None,
        StoredVersions(frozenset({12, 13}), "no version of 'digits'"),
        Route(7, {12: 7, 11: 8}),
        (entry(7), entry(8, threshold=-1 / 3), entry(9, threshold=1e300)),
    ),
    wire.StateUpdate(None, False, "", "the first look is not over", ()),
    wire.StateUpdate("digits", True, "cuda:1", None, (PassedOver("ResNet„50“", "so"),)),
    wire.Reloaded(ReloadReport("digits", 3, True, (Refusal(4, "junk"), Refusal(1, "„so“")), True)),
    wire.Reloaded(ReloadReport("digits", None, False, (), False)),
]


@pytest.mark.parametrize("message", FROM_ENGINE, ids=lambda message: message.what)
def test_what_the_engine_says_arrives_as_it_left(message: wire.FromEngine) -> None:
    assert wire.FROM_ENGINE.validate_json(wire.FROM_ENGINE.dump_json(message)) == message


@pytest.mark.parametrize("message", [wire.Reload("digits", 0.5), wire.Ready()], ids=lambda message: message.what)
def test_what_a_front_end_says_arrives_as_it_left(message: wire.ToEngine) -> None:
    assert wire.TO_ENGINE.validate_json(wire.TO_ENGINE.dump_json(message)) == message


def test_images_arrive_as_they_left() -> None:
    images = [np.random.default_rng(i).integers(0, 256, (2, 3, 1), np.uint8) for i in range(4)]
    data = b"".join(wire.submit_frame(9, 2**32 - 1, images, top_k=3, seconds=-0.25))
    ((kind, number, whole, start, end),) = wire.FrameDecoder().feed(data)
    entry, count, top_k, seconds, pixels = wire.read_submit(whole, start)
    assert (kind, number, entry, count, top_k, seconds) == (wire.SUBMIT, 9, 2**32 - 1, 4, 3, -0.25)
    assert np.array_equal(np.frombuffer(whole[pixels:end], np.uint8).reshape(4, 2, 3, 1), np.stack(images))


def test_rows_arrive_as_they_left() -> None:
    rows = np.array([[0.5, 1e-30, 7, 8], [np.inf, 0, 2**24 - 1, 1], [1, 1, 1, 1]], np.float32)
    data = b"".join(wire.rows_frame(2**32 - 1, rows))
    ((kind, number, whole, start, _),) = wire.FrameDecoder().feed(data)
    columns, values = wire.read_rows(whole, start)
    assert (kind, number, columns) == (wire.ROWS, 2**32 - 1, 4)
    assert values == tuple(rows.ravel().tolist())


def test_what_is_known_of_a_model_arrives_as_it_left() -> None:
    refused = VersionInfo(2, "refused", "junk", *[None] * 5)
    served = VersionInfo(
        version=1,
        state="ready",
        reason=None,
        manifest=Manifest(
            model="digits",
            architecture="mnist_cnn",
            labels=("a", "b"),
            preprocess=PHOTOS,
            metrics=Metrics(split="test", samples=2, accuracy=0.1, loss=1 / 3),
            per_class=(
                ClassMetrics(precision=0.5, recall=None, samples=2),
                ClassMetrics(precision=None, recall=0, samples=0),
            ),
            curve=(EpochPoint(epoch=1, loss=0.1, accuracy=0, held_out_loss=1e-30, held_out_accuracy=1),),
            calibration=Calibration(temperature=1.5),
            out_of_distribution=OutOfDistribution(method="energy", threshold=2 / 3),
            provenance=Provenance(
                dataset=Dataset(name="drawings", samples=9, fingerprint="f" * 64),
                recipe={"epochs": 3, "rate": [1e-3, None, {"warm": True}]},
                seed=2**70,
                epoch=3,
                code_revision=None,
                versions={"torch": "2.11"},
                created=datetime.now(timezone(timedelta(hours=5, minutes=30))),
                parent=None,
            ),
            imported=None,
        ),
        file_size=2**40,
        sha256="0" * 64,
        device="cpu",
        loaded_at=datetime.now(UTC),
    )
    for info in (ModelInfo("digits", 1, (refused, served)), ModelInfo("none", None, ())):
        message = wire.ModelUpdate(info.name, wire.MODEL_INFO.dump_json(info).decode(), None, None, ())
        arrived = wire.FROM_ENGINE.validate_json(wire.FROM_ENGINE.dump_json(message))
        assert arrived == message
        assert wire.MODEL_INFO.validate_json(arrived.info or "") == info
