"""What lies beside exported weights is read back as it was written, and is not trusted."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from classifier.manifest import Calibration, OutOfDistribution
from tests.support.checkpoints import checkpoint, saying
from training.errors import TrainingError
from training.publishing import sidecar
from training.publishing.sidecar import Sidecar

MANIFEST = saying(
    checkpoint(),
    calibration=Calibration(temperature=1.0 / 3),
    out_of_distribution=OutOfDistribution(method="energy", threshold=2.0**-20 + 1),
).manifest
SHA256 = "a" * 64


def _read(weights: Path, sha256: str = SHA256) -> tuple[Sidecar | None, list[str]]:
    notes: list[str] = []
    return sidecar.read(weights, sha256, note=notes.append), notes


def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    written = Sidecar.of(MANIFEST, SHA256)
    sidecar.write(tmp_path / "net.pth", written)
    assert _read(tmp_path / "net.pth") == (written, [])
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth.json"]
    assert (written.labels, written.preprocess) == (MANIFEST.labels, MANIFEST.preprocess)
    assert (written.calibration, written.out_of_distribution) == (MANIFEST.calibration, MANIFEST.out_of_distribution)


def test_where_nothing_lies_nothing_is_read(tmp_path: Path) -> None:
    assert _read(tmp_path / "net.pth") == (None, [])
    (tmp_path / "net.pth.json").mkdir()
    assert _read(tmp_path / "net.pth") == (None, [])
    os.mkfifo(tmp_path / "other.pth.json")
    assert _read(tmp_path / "other.pth") == (None, [])


@pytest.mark.parametrize("content", [[1, 2], {"model": "resnet18"}, {"format": "other/1"}, {"format": ["flambeau"]}])
def test_a_document_of_somebody_else_is_passed_over_with_a_word(tmp_path: Path, content: Any) -> None:
    (tmp_path / "net.pth.json").write_text(json.dumps(content))
    assert _read(tmp_path / "net.pth") == (
        None,
        ["net.pth.json beside it is not one that export wrote, and is passed over"],
    )


def test_what_a_person_changed_in_it_counts(tmp_path: Path) -> None:
    content = Sidecar.of(MANIFEST).model_dump(mode="json") | {"labels": [f"Ziffer {i}" for i in range(10)]}
    (tmp_path / "net.pth.json").write_text(f"\ufeff{json.dumps(content)}", encoding="utf-8")
    read, _ = _read(tmp_path / "net.pth")
    assert read is not None
    assert read.labels[3] == "Ziffer 3"


def test_one_of_other_weights_is_refused(tmp_path: Path) -> None:
    sidecar.write(tmp_path / "net.pth", Sidecar.of(MANIFEST, SHA256))
    with pytest.raises(TrainingError, match=r"was written for other weights than net\.pth"):
        _read(tmp_path / "net.pth", "b" * 64)


def _changed(**values: Any) -> bytes:
    return json.dumps(Sidecar.of(MANIFEST, SHA256).model_dump(mode="json") | values).encode()


WHOLE = _changed()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cannot be used"),
        (WHOLE[:-20], "cannot be used"),
        (b"\xff\xfe\xff", "cannot be used"),
        (b"[" * 100_000, "cannot be used"),
        (b'{"format": ' + b"9" * 5000 + b"}", "cannot be used"),
        (_changed(labels=["0"]), "labels: "),
        (_changed(labels=["0", "0"]), "two classes have the same label"),
        (_changed(labels=["0", "x" * 300]), "labels.1: "),
        (_changed(labels="01"), "labels: "),
        (_changed(preprocess={"mode": "RGB"}), "preprocess.resize: "),
        (_changed(preprocess=MANIFEST.preprocess.model_dump() | {"resize": [10**9, 10**9]}), "preprocess.resize"),
        (_changed(calibration={"temperature": 0}), "calibration.temperature: "),
        (_changed(calibration={"temperature": float("nan")}), "calibration.temperature: "),
        (_changed(out_of_distribution={"method": "energy", "threshold": float("inf")}), "threshold: "),
        (_changed(out_of_distribution={"method": "mine", "threshold": 1}), "out_of_distribution.method: "),
        (_changed(surprise=1), "surprise: "),
        (_changed(sha256="../../etc"), "sha256: "),
    ],
)
def test_one_that_is_damaged_or_hostile_is_refused_in_one_line(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "net.pth.json").write_bytes(data)
    with pytest.raises(TrainingError) as caught:
        _read(tmp_path / "net.pth")
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "net.pth.json"))
    assert said in message
    assert "\n" not in message
    assert len(message) < 600


def test_one_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "net.pth.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TrainingError, match="has more than 33,554,432 bytes"):
        _read(tmp_path / "net.pth")
