"""Drawings are kept for the next run, and never believed unseen."""

from pathlib import Path

import numpy as np

from classifier.progress import Progress
from training.data.raw_dataset import LabelledImages
from training.data.strokes.cache import load_digits


def _load(folder: Path, silent: Progress) -> LabelledImages:
    return load_digits(50, seed=3, stream=0, scratch=folder, progress=silent)


def test_a_second_run_reads_what_the_first_one_drew(tmp_path: Path, silent: Progress) -> None:
    first = _load(tmp_path, silent)
    (kept,) = (tmp_path / "drawings").iterdir()
    written = kept.stat().st_mtime_ns
    second = _load(tmp_path, silent)
    assert second.fingerprint == first.fingerprint
    assert kept.stat().st_mtime_ns == written


def test_damaged_drawings_are_drawn_again(tmp_path: Path, silent: Progress) -> None:
    first = _load(tmp_path, silent)
    (kept,) = (tmp_path / "drawings").iterdir()
    sound = kept.read_bytes()
    damaged = [sound[:-1] + bytes([sound[-1] ^ 1]), sound[:100], b"", b"no header at all", b"\xff" * 64]
    for data in damaged:
        kept.write_bytes(data)
        assert _load(tmp_path, silent).fingerprint == first.fingerprint
        assert kept.read_bytes() == sound


def test_seeds_streams_and_counts_are_kept_apart(tmp_path: Path, silent: Progress) -> None:
    wanted = [(50, 3, 0), (50, 4, 0), (50, 3, 1), (60, 3, 0)]
    found = [
        load_digits(count, seed=seed, stream=stream, scratch=tmp_path, progress=silent).fingerprint
        for count, seed, stream in wanted
    ]
    assert len(set(found)) == len(list((tmp_path / "drawings").iterdir())) == 4


def test_the_fingerprint_covers_images_and_targets() -> None:
    images, targets = np.zeros((2, 28, 28), np.uint8), np.zeros(2, np.int64)
    other_images, other_targets = images.copy(), targets.copy()
    other_images[1, 27, 27] = 1
    other_targets[1] = 1
    all_three = [
        LabelledImages(images, targets),
        LabelledImages(other_images, targets),
        LabelledImages(images, other_targets),
    ]
    assert len({labelled.fingerprint for labelled in all_three}) == 3
