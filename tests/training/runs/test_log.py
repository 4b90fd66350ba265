"""The log that a run leaves."""

import json
from pathlib import Path

from training.runs.log import LOG, append


def epochs(folder: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (folder / LOG).read_text().splitlines()]


def test_the_log_has_a_line_for_each_epoch(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        append(tmp_path, {"epoch": epoch, "loss": 0.5})
    assert epochs(tmp_path) == [1, 2, 3]
    assert json.loads((tmp_path / LOG).read_text().splitlines()[1]) == {"epoch": 2, "loss": 0.5}


def test_epochs_that_are_done_again_take_the_place_of_those_before(tmp_path: Path) -> None:
    for epoch in (1, 2, 3, 2):
        append(tmp_path, {"epoch": epoch})
    assert epochs(tmp_path) == [1, 2]
    append(tmp_path, {"epoch": 1})
    assert epochs(tmp_path) == [1]


def test_what_is_no_line_of_ours_goes(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text('{"epoch": 1}\n{"epo\n[]\n3\n\n')
    append(tmp_path, {"epoch": 2})
    assert epochs(tmp_path) == [1, 2]
