"""Rows that are neither lost nor doubled, and a file that is whole or not there."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from app.engine.predictions import ItemAnswer, ItemError, Prediction
from app.scoring.errors import ScoringError
from app.scoring.output import Output
from app.scoring.rows import COLUMNS, ScoredRow, row_of

ABOUT = {"model": "digits@1", "list of images": "abc"}


def row(number: int) -> ScoredRow:
    if number % 5 == 4:
        return row_of(f"{number}.png", 1, ItemError("bad_image", "the image is damaged"))
    predictions = (Prediction("cât", 3, 0.75), Prediction("dog", 1, 0.25))
    return row_of(f"{number}.png", 1, ItemAnswer(predictions, 1.5, True))


ROWS = [row(number) for number in range(23)]


def opened(path: Path, about: dict[str, Any] = ABOUT, *, resume: bool = False) -> AbstractContextManager[Output]:
    return Output.opened(path, about, resume=resume)


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [_typed(each) for each in csv.DictReader(file)]
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    return rows


def _typed(row: dict[str, str]) -> dict[str, Any]:
    typed: dict[str, Any] = {name: value or None for name, value in row.items()}
    for name in ("probability", "score", "top_k", "version"):
        typed[name] = None if typed[name] is None else json.loads(typed[name])
    typed["in_distribution"] = None if typed["in_distribution"] is None else typed["in_distribution"] == "True"
    return typed


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_every_format_has_the_same_rows_and_columns(tmp_path: Path, name: str) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    with opened(tmp_path / name) as output:
        output.add(ROWS[:10])
        output.add(ROWS[10:])
        assert output.finish() == 4
    found = read(tmp_path / name)
    assert found == ROWS
    assert tuple(found[0]) == COLUMNS
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("kept", range(0, 23, 4))
def test_what_was_kept_is_gone_on_with(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "rows.jsonl"
    with opened(path) as output:
        output.add(ROWS[:kept])
        output.keep()
        output.add(ROWS[kept : kept + 1])  # and is lost
    assert not path.exists()
    with opened(path, resume=True) as output:
        assert output.rows == kept
        output.add(ROWS[kept:])
        output.finish()
    assert read(path) == ROWS


def test_rows_are_kept_after_some_seconds_or_when_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.scoring.output._MOST_ROWS", 10)
    with opened(tmp_path / "rows.jsonl") as output:
        output.add(ROWS[:9])
        assert output.rows == 0
        output.add(ROWS[9:12])
        assert output.rows == 12
        monkeypatch.setattr("app.scoring.output._EVERY_SECONDS", -1.0)
        output.add(ROWS[12:13])
        assert output.rows == 13


def test_one_that_is_complete_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("somebody's\n")
    with pytest.raises(ScoringError, match="is there already: remove it, or name another file"), opened(path):
        pass
    assert Output.is_complete(path)
    assert not Output.is_complete(tmp_path)
    assert not Output.is_complete(tmp_path / "other.jsonl")
    assert path.read_text() == "somebody's\n"


def test_an_output_without_rows_leaves_nothing_and_stands_in_nobody_s_way(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(RuntimeError), opened(path):
        raise RuntimeError("before the first row")
    assert list(tmp_path.iterdir()) == []
    output = Output(path)
    output.folder.mkdir()
    (output.folder / "about.json").write_text("half")  # as whoever is killed leaves it
    with opened(path) as again:
        again.add(ROWS)
        again.finish()
    assert read(path) == ROWS


def test_rows_of_an_earlier_run_are_not_thrown_away_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with opened(path) as output:
        output.add(ROWS)
        output.keep()
    with pytest.raises(ScoringError, match="holds rows of an earlier run: add --resume, or remove it"), opened(path):
        pass


def test_rows_of_another_run_are_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with opened(path) as output:
        output.add(ROWS)
        output.keep()
    with (
        pytest.raises(ScoringError, match=r"begun with another model \(digits@1 there, digits@2 here\)"),
        opened(path, ABOUT | {"model": "digits@2"}, resume=True),
    ):
        pass


@pytest.mark.parametrize("content", ["{", "[]", "null", None])
def test_what_says_of_which_run_the_rows_are_is_needed(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "rows.jsonl"
    with opened(path) as output:
        output.add(ROWS)
        output.keep()
    (output.folder / "about.json").unlink()
    if content is not None:
        (output.folder / "about.json").write_text(content)
    with pytest.raises(ScoringError, match="is damaged: remove"), opened(path, resume=True):
        pass


@pytest.mark.parametrize("damage", ["missing", "cut off at a line", "cut off", "changed"])
def test_rows_from_a_damaged_part_on_are_made_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rows.jsonl"
    with opened(path) as output:
        for start in range(0, 12, 4):
            output.add(ROWS[start : start + 4])
            output.keep()
    part = sorted(output.folder.glob("*.jsonl"))[1]
    text = part.read_text()
    part.write_text(
        {
            "cut off at a line": text.partition("\n")[0] + "\n",
            "cut off": text[:-5],
            "changed": text.replace("5.png", "6.png"),
        }.get(damage, text)
    )
    if damage == "missing":
        part.unlink()
    with opened(path, resume=True) as output:
        assert output.rows == 4
        output.add(ROWS[4:])
        output.finish()
    assert read(path) == ROWS


def test_a_part_that_is_damaged_after_it_was_looked_at_gives_no_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with opened(path) as output:
        output.add(ROWS)
        output.keep()
        (part,) = output.folder.glob("*.jsonl")
        part.write_text(part.read_text().partition("\n")[2])
        with pytest.raises(ScoringError, match="has 22 of 23 rows"):
            output.finish()
    assert not path.exists()


def test_what_a_kill_at_the_very_end_leaves_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with opened(path) as output:
        output.add(ROWS)
        output.keep()
        (output.folder / "whole.tmp").write_text("half")
    with opened(path, resume=True) as output:
        assert output.rows == len(ROWS)
        assert not (output.folder / "whole.tmp").exists()
        output.finish()
    output.folder.mkdir()
    (output.folder / "about.json").touch()
    assert Output.is_complete(path)
    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl"]


def test_any_version_and_any_score_can_be_written(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "rows.csv", "rows.parquet"):
        if name.endswith(".parquet"):
            pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
        row = row_of("a\u2028\x85.png", 20261129120000, ItemAnswer((Prediction("x", 0, 1.0),), float("inf"), True))
        with opened(tmp_path / name) as output:
            output.add([row])
            output.finish()
        assert read(tmp_path / name) == [row]
        assert row["score"] is None


def test_two_may_not_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with (
        opened(path),
        pytest.raises(ScoringError, match="somebody else is writing"),
        opened(path, resume=True),
    ):
        pass


@pytest.mark.parametrize("name", ["rows", "rows.xlsx", "rows.json"])
def test_another_format_is_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScoringError, match=r"must end in \.parquet, \.csv or \.jsonl"), opened(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_its_extra_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.scoring.output.find_spec", lambda _: None)
    with pytest.raises(ScoringError, match=r"pip install 'flambeau\[parquet\]'"), opened(tmp_path / "rows.parquet"):
        pass


def test_a_file_that_cannot_be_finished_leaves_the_rows_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"

    def full(*_: object) -> Iterator[None]:
        raise OSError(28, "No space left on device")

    with opened(path) as output:
        output.add(ROWS)
        monkeypatch.setattr("app.scoring.output._write_jsonl", full)
        monkeypatch.setattr(output, "_write", full)
        with pytest.raises(OSError, match="No space left"):
            output.finish()
    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl.parts"]
    monkeypatch.undo()
    with opened(path, resume=True) as output:
        assert output.rows == len(ROWS)
        output.finish()
    assert read(path) == ROWS


def test_a_name_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    odd = row_of(b"\xff.png".decode("utf-8", "surrogateescape"), 1, ItemError("bad_image", "x"))
    with opened(tmp_path / "rows.jsonl") as output:
        output.add([odd])
        output.finish()
    assert read(tmp_path / "rows.jsonl")[0]["path"] == "\\udcff.png"


@pytest.mark.slow
def test_whoever_is_killed_keeps_the_rows_that_were_written(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from tests.app.scoring.test_output import ROWS, opened
with opened(Path(sys.argv[1])) as output:
    output.add(ROWS[:8]); output.keep(); output.add(ROWS[8:])
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "rows.jsonl"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    with opened(path, resume=True) as output:
        assert output.rows == 8
