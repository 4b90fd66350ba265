"""What crosses from process to process arrives as it left, however the stream is cut."""

import random
from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

import pytest

from app.engine.catalogue import Catalogue, Entry, OnDisk
from app.engine.errors import EngineError, NotFound
from app.engine.model_info import ModelInfo, Refusal, ReloadReport, VersionInfo
from app.engine.rows import Reader
from app.ipc import wire
from classifier.manifest import (
    Calibration,
    ClassMetrics,
    Dataset,
    EpochPoint,
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
    cutter = wire.Cutter()
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


@pytest.mark.parametrize("place", range(2 * wire.HEAD.size + 3))
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
    cutter = wire.Cutter()
    first, second = wire.frame(wire.BEAT), wire.frame(wire.CANCEL, 3, b"rest")
    assert [kind for kind, *_ in cutter.feed(first + second[:-1])] == [wire.BEAT]
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
    return number, wire.error_of(body)


def entry(number: int, *, threshold: float | None = None) -> Entry:
    preprocess = (DIGITS, PHOTOS)[number % 2]
    return Entry(number, "digits", 12, preprocess, preprocess.digest, Reader(("nöll", "", "two"), threshold))


@pytest.mark.parametrize(
    "catalogue",
    [
        Catalogue(),
        Catalogue(
            served={"digits": entry(7), "letters": entry(8, threshold=-1 / 3)},
            replaced=(entry(1), entry(2, threshold=1e300)),
            on_disk={"digits": OnDisk(frozenset({12, 13}), "no version of 'digits'"), "none": OnDisk(frozenset(), "")},
            default="digits",
            complete=True,
            device="cuda:1",
            why_not_ready=None,
        ),
    ],
)
def test_a_catalogue_arrives_as_it_left(catalogue: Catalogue) -> None:
    assert wire.CATALOGUES.validate_json(wire.CATALOGUES.dump_json(catalogue)) == catalogue


def test_a_list_of_models_arrives_as_it_left() -> None:
    refused = VersionInfo(2, "refused", "junk", *[None] * 14)
    served = VersionInfo(
        version=1,
        state="ready",
        reason=None,
        architecture="mnist_cnn",
        labels=("a", "b"),
        input=PHOTOS,
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
        file_size=2**40,
        sha256="0" * 64,
        device="cpu",
        loaded_at=datetime.now(UTC),
    )
    models = [ModelInfo("digits", 1, (refused, served)), ModelInfo("none", None, ())]
    assert wire.MODEL_LISTS.validate_json(wire.MODEL_LISTS.dump_json(models)) == models


def test_a_report_of_a_reload_arrives_as_it_left() -> None:
    for report in (
        ReloadReport("digits", 3, True, (Refusal(4, "junk"), Refusal(1, "„so“")), True),
        ReloadReport("digits", None, False, (), False),
    ):
        assert wire.REPORTS.validate_json(wire.REPORTS.dump_json(report)) == report
