"""`python -m app score`: what a person types, reads, and gets."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.__main__ import main
from app.scoring.command import _BATCH
from app.scoring.output import Output
from tests.support.checkpoints import checkpoint, png, publish

pytestmark = pytest.mark.usefixtures("torch_as_it_was")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has a store with one model, and 70 images."""
    publish(tmp_path / "models_store", 1, checkpoint(1))
    publish(tmp_path / "models_store", 2, checkpoint(2))
    for i in range(70):
        (tmp_path / "photos" / f"{i:02}.png").parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{i:02}.png").write_bytes(png(i))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(*arguments: str) -> int:
    return main(["score", *arguments, "--device", "cpu", "--threads", "2"])


def rows(path: str = "rows.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_every_image_has_a_row_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert score("photos", "--out", "rows.jsonl") == 0
    assert [row["path"] for row in rows()] == [f"photos/{i:02}.png" for i in range(70)]
    assert {row["version"] for row in rows()} == {2}
    said = capsys.readouterr().out
    assert "scoring with digits@2: " in said
    assert "images/s" in said
    assert "wrote rows.jsonl: 70 rows\n" in said


def test_another_version_and_fewer_classes_can_be_asked_for() -> None:
    assert score("photos", "--model", "digits@1", "--top-k", "2", "--out", "rows.jsonl") == 0
    assert {(row["version"], len(row["top_k"])) for row in rows()} == {(1, 2)}


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupt_is_one_line_and_resume_gives_the_rows_of_a_whole_run(
    after: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score("photos", "--out", "whole.jsonl") == 0
    add, batches = Output.add, 0

    def pressing(self: Output, new: Any) -> None:
        nonlocal batches
        if batches == after:
            raise KeyboardInterrupt
        add(self, new)
        batches += 1

    with monkeypatch.context() as pressed:
        pressed.setattr(Output, "add", pressing)
        assert score("photos", "--out", "rows.jsonl") == 130
    assert "interrupted: the same command and --resume goes on" in capsys.readouterr().err
    assert not Path("rows.jsonl").exists()
    assert score("photos", "--out", "rows.jsonl") == 2
    assert "add --resume" in capsys.readouterr().err
    assert score("photos", "--out", "rows.jsonl", "--resume") == 0
    assert f"resumed after {after * _BATCH} of 70 images" in capsys.readouterr().out
    assert Path("rows.jsonl").read_text() == Path("whole.jsonl").read_text()


def test_what_is_complete_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert score("photos", "--out", "rows.jsonl") == 0
    before = Path("rows.jsonl").read_bytes()
    assert score("photos", "--out", "rows.jsonl", "--resume") == 0
    assert "rows.jsonl is complete: nothing is left to do" in capsys.readouterr().out
    assert score("photos", "--out", "rows.jsonl") == 2
    assert Path("rows.jsonl").read_bytes() == before


def test_images_of_another_folder_are_other_images_though_they_are_called_alike(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as pressed:
        pressed.setattr(Output, "finish", press)
        score("photos", "--out", str(in_folder / "rows.jsonl"))
    shutil.copytree("photos", "elsewhere/photos")
    monkeypatch.chdir(in_folder / "elsewhere")
    store = ["--store", str(in_folder / "models_store")]
    assert score("photos", "--out", str(in_folder / "rows.jsonl"), "--resume", *store) == 2
    assert "was begun with another list of images" in capsys.readouterr().err


def test_other_images_or_another_model_are_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as pressed:
        pressed.setattr(Output, "finish", press)
        score("photos", "--out", "rows.jsonl")
    capsys.readouterr()
    for flags, what in ((["--model", "digits@1"], "model"), (["--top-k", "1"], "--top-k")):
        assert score("photos", "--out", "rows.jsonl", "--resume", *flags) == 2
        assert f"was begun with another {what} (" in capsys.readouterr().err
    Path("photos/99.png").write_bytes(png())
    assert score("photos", "--out", "rows.jsonl", "--resume") == 2
    assert "was begun with another list of images" in capsys.readouterr().err


def test_what_failed_is_counted_and_only_if_all_did_the_code_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/00.png").write_bytes(b"no image")
    assert score("photos", "--out", "rows.jsonl") == 0
    assert "70 rows, 1 of them say why there is no answer" in capsys.readouterr().out
    Path("list.txt").write_text("missing.png\nphotos/00.png\n")
    assert score("list.txt", "--out", "failed.jsonl") == 1
    assert [row["error"] is None for row in rows("failed.jsonl")] == [False, False]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere"], "nowhere is not there"),
        (["empty"], "there is no image in empty"),
        (["photos", "--model", "letters"], "has no model 'letters'; it has digits"),
        (["photos", "--out", "rows.txt"], "must end in .parquet, .csv or .jsonl"),
        (["photos", "--out", "photos/00.png"], "photos/00.png: its name must end"),
        (["photos", "--store", "nowhere"], "nowhere"),
        (["photos", "--device", "tpu"], "no device 'tpu'"),
        (["photos", "--precision", "fp8"], "PRECISION"),
        (["photos", "--top-k", "0"], "'0' is not a number from 1 to 9999"),
        (["photos", "--port", "80"], "unrecognized arguments: --port"),
    ],
)
def test_what_is_wrong_is_one_line_and_2_and_nothing_is_written(
    in_folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    (in_folder / "empty").mkdir()
    before = sorted(in_folder.rglob("*"))
    try:
        code = main(["score", "--out", "rows.jsonl", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))
    error = capsys.readouterr().err
    assert code == 2, error
    assert why in error
    assert error.count("\n") == 1
    assert sorted(in_folder.rglob("*")) == before


def test_what_is_not_called_like_an_image_or_is_named_twice_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/notes.txt").touch()
    assert score("photos", "photos/00.png", "--out", "rows.jsonl") == 0
    said = capsys.readouterr().out
    assert "left out: 1 files that are not called like images" in said
    assert "named more than once: 1 images, each of which is scored once" in said
    assert len(rows()) == 70


def test_the_server_s_settings_of_the_environment_count(monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    (in_folder / "models_store").rename(in_folder / "elsewhere")
    monkeypatch.setenv("FLAMBEAU_STORE", "elsewhere")
    assert score("photos", "--out", "rows.jsonl") == 0
