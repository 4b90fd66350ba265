"""Stored features: they take no more room on the disk than they may, and what a run needs stays."""

import os
from pathlib import Path

from training.runs.features import remove_old


def stored(folder: Path, *ages: int) -> list[Path]:
    """A file of 100 bytes for each age."""
    folder.mkdir()
    paths = [folder / f"{number}-training.npy" for number in range(len(ages))]
    for path, age in zip(paths, ages, strict=True):
        path.write_bytes(bytes(100))
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return paths


def test_the_oldest_features_go_where_all_together_are_too_large(tmp_path: Path) -> None:
    newest, oldest, middle = stored(tmp_path / "features", 1, 9, 5)
    remove_old(tmp_path / "features", keep=(), most_bytes=250)
    assert (newest.exists(), middle.exists(), oldest.exists()) == (True, True, False)


def test_what_the_run_needs_stays_however_old_and_large_it_is(tmp_path: Path) -> None:
    newest, oldest, middle = stored(tmp_path / "features", 1, 9, 5)
    remove_old(tmp_path / "features", keep=(oldest, middle), most_bytes=100)
    assert (newest.exists(), middle.exists(), oldest.exists()) == (False, True, True)


def test_nothing_goes_where_there_is_room_and_what_others_write_never(tmp_path: Path) -> None:
    paths = stored(tmp_path / "features", 1, 2, 3)
    writing = tmp_path / "features" / ".0-training.npy.1.ab.tmp"
    writing.write_bytes(bytes(1000))
    remove_old(tmp_path / "features", keep=(), most_bytes=300)
    assert all(path.exists() for path in [*paths, writing])


def test_a_file_that_has_gone_since_it_was_listed_is_no_trouble(tmp_path: Path) -> None:
    newest, oldest = stored(tmp_path / "features", 1, 9)
    (tmp_path / "features" / "gone.npy").symlink_to("nowhere")
    remove_old(tmp_path / "features", keep=(), most_bytes=150)
    assert (newest.exists(), oldest.exists()) == (True, False)
