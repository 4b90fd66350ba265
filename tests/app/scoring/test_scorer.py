"""Rows that say what the server says, and why an image has no answer."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from app.scoring.pipeline import scored
from app.scoring.rows import ScoredRow
from app.scoring.scorer import Scorer
from app.scoring.setup import Setup
from app.scoring.sources import Source, find
from classifier.header import CheckpointError
from tests.support.checkpoints import DIGITS, checkpoint, logits, png, publish, to_pixels
from tests.support.memory_store import memory_url
from tests.support.shard_files import archive

CONTENT = checkpoint(seed=3)
SETUP = Setup(
    version=7, top_k=3, device="cpu", precision="fp32", max_pixels=1_000_000, draft=False, compiled=False, batch=4
)
pytestmark = pytest.mark.usefixtures("torch_as_it_was")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Scorer]:
    path = publish(tmp_path / "store", 7, CONTENT)
    return lambda threads=1: Scorer(path, SETUP, threads=threads)


@pytest.fixture
def photos(tmp_path: Path) -> list[Source]:
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    return [Source(f"{i}.png", str(tmp_path / f"{i}.png")) for i in range(10)]


def test_a_row_says_the_likeliest_classes_of_the_network(make: Callable[..., Scorer], photos: list[Source]) -> None:
    rows = make().score(photos)
    pixels = torch.from_numpy(np.stack([to_pixels(png(i)) for i in range(10)]))
    expected = logits(CONTENT.build(), DIGITS, pixels).softmax(dim=1)
    for row, probabilities in zip(rows, expected, strict=True):
        best = probabilities.argsort(descending=True)[:3].tolist()
        assert row["top_k"] is not None
        assert [each["label"] for each in row["top_k"]] == [str(each) for each in best]
        assert row["label"] == str(best[0])
        assert row["probability"] == pytest.approx(float(probabilities[best[0]]), abs=1e-5)
        assert (row["version"], row["error"], row["score"], row["in_distribution"]) == (7, None, None, None)
    assert [row["path"] for row in rows] == [source.name for source in photos]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_order_and_the_numbers_do_not_depend_on_the_threads(
    make: Callable[..., Scorer], photos: list[Source], threads: int
) -> None:
    alone = make().score(photos[:4]) + make().score(photos[4:8]) + make().score(photos[8:])
    batches = scored(make(threads), photos)
    assert [row for rows in batches for row in rows] == alone


def test_what_is_wrong_with_one_image_is_said_in_its_row_and_harms_no_other(
    make: Callable[..., Scorer], photos: list[Source], tmp_path: Path
) -> None:
    (tmp_path / "2.png").write_bytes(png(2)[:40])
    (tmp_path / "3.png").write_bytes(b"")
    (tmp_path / "4.png").unlink()
    (tmp_path / "5.png").write_bytes(png(5, (1200, 1000)))
    (tmp_path / "6.png").unlink()
    os.mkfifo(tmp_path / "6.png")
    (tmp_path / "7.png").write_bytes(b"%PDF-1.7")
    sound = {row["path"]: row for row in make().score(photos)}
    reasons = {name: row["error"] for name, row in sound.items() if row["error"] is not None}
    expected = {
        "2.png": "bad_image: ",
        "3.png": "",
        "4.png": "cannot_be_read: No such file or directory",
        "5.png": "too_many_pixels: ",
        "6.png": "cannot_be_read: it is no file",
        "7.png": "unsupported",
    }
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reasons[name].startswith(reason), reasons[name]
    assert all(sound[f"{i}.png"]["label"] is not None for i in (0, 1, 8, 9))


def test_an_image_on_which_the_network_fails_is_one_row(
    make: Callable[..., Scorer], photos: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = make()
    predict = scorer.predictor.predict
    hostile = to_pixels(png(2))

    def failing(items: Any) -> Any:
        if any(np.array_equal(item.pixels, hostile) for item in items):
            raise RuntimeError("the network's own words\nand more")
        return predict(items)

    monkeypatch.setattr(scorer.predictor, "predict", failing)
    rows = scorer.score(photos)
    assert [row["error"] for row in rows if row["error"]] == ["prediction_failed: the network's own words"]
    assert rows[2]["error"] is not None


def test_images_in_a_tar_file_and_behind_a_url_are_those_in_files(
    make: Callable[..., Scorer], photos: list[Source], tmp_path: Path
) -> None:
    path = archive(tmp_path / "data.tar", {f"{i}.png": png(i) for i in range(10)})
    url = memory_url()
    for i in range(10):
        fsspec.filesystem("memory").pipe_file(f"{url}/{i}.png", png(i))
    expected = [unnamed(row) for row in make().score(photos)]
    for place in (str(path), url):
        found = find([place]).sources
        rows = [row for rows in scored(make(2), found) for row in rows]
        assert [row["path"] for row in rows] == [f"{place}/{i}.png" for i in range(10)]
        assert [unnamed(row) for row in rows] == expected


def unnamed(row: ScoredRow) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "path"}


def test_a_name_that_no_file_can_have_is_said_in_its_row(make: Callable[..., Scorer], photos: list[Source]) -> None:
    rows = make().score([Source("a\0b.png", "/a\0b.png"), photos[0]])
    assert [row["error"] for row in rows] == ["cannot_be_read: its name is no name of a file", None]


def test_an_archive_that_has_become_shorter_is_said_in_the_rows(make: Callable[..., Scorer], tmp_path: Path) -> None:
    path = archive(tmp_path / "data.tar", {f"{i}.png": png(i) for i in range(3)})
    found = find([str(path)]).sources
    path.write_bytes(path.read_bytes()[: found[1].offset + 5])
    assert [row["error"] for row in make().score(found)] == [None, *["cannot_be_read: it was cut off"] * 2]


def test_an_object_that_is_gone_is_said_in_its_row(make: Callable[..., Scorer]) -> None:
    (row,) = make().score([Source("x.png", memory_url(), "x.png")])
    assert row["error"] == "cannot_be_read: there is no such object"


def test_a_checkpoint_that_does_not_pass_scores_nothing(tmp_path: Path) -> None:
    content = checkpoint(seed=4)
    content.reference.logits.add_(1)
    path = publish(tmp_path, 1, content)
    with pytest.raises(CheckpointError, match=re.escape("the reference logits are not repeated")):
        Scorer(path, SETUP, threads=1)
