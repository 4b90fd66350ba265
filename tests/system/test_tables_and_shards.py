"""Tables and shards of photos through the command line: trained on, measured, reproduced, and the same as folders."""

from collections.abc import Sequence
from pathlib import Path

import fsspec
import pytest

from classifier.checkpoint import Checkpoint
from tests.support.memory_store import memory_url
from tests.support.photo_files import write
from tests.support.runs import same_weights
from tests.support.shard_files import archive
from training.__main__ import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

SMALL = ["--recipe", "mnist_cnn", "--epochs", "1", "--workers", "0", "--device", "cpu", "--no-pictures"]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder has photos of three splits in class folders, and a table that says the same."""
    monkeypatch.chdir(tmp_path)
    lines = ["path,label,split"]
    for number, split in enumerate(("train", "val", "test")):
        for label in ("ants", "bees"):
            for i in range(6 - number):
                path = Path("data") / split / label / f"{i}.bmp"
                write(path, 100 * number + 10 * len(label[0]) + i)
                lines.append(f"{path.relative_to('data').as_posix()},{label},{split}")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(lines))
    return tmp_path


def published(*command: str) -> Path:
    store = Path("models_store") / "data"
    before = set(store.glob("*.safetensors"))
    assert main([*command, *SMALL]) == 0
    (new,) = set(store.glob("*.safetensors")) - before
    return new


def test_a_table_gives_the_weights_of_the_folders_that_it_lists(in_folder: Path) -> None:
    folders, table = published("photos", "data"), published("table", "data/labels.csv")
    assert same_weights(folders, table)
    metrics = [Checkpoint.load(path).manifest.metrics for path in (folders, table)]
    assert metrics[0] == metrics[1]


def test_what_a_table_has_made_is_measured_again_and_reproduced(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = published("table", "data/labels.csv", "--set", "source.label=label")
    evaluate = ["evaluate", str(path), "--data", "data/labels.csv", "--workers", "0", "--device", "cpu"]
    capsys.readouterr()
    assert main(evaluate) == 0
    assert "the same" in capsys.readouterr().out
    assert main([*evaluate, "--test"]) == 0
    assert "measured on: the split test of labels.csv" in capsys.readouterr().out
    assert main(["reproduce", str(path)]) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    assert command.startswith("python -m training table data/labels.csv --recipe mnist_cnn")
    assert "--set source.label=label" in command


def in_shard(photos: Sequence[Path]) -> dict[str, bytes]:
    """The files of a shard with these photos."""
    images = {f"{path.parent.name}-{path.name}": path.read_bytes() for path in photos}
    return images | {f"{path.parent.name}-{path.stem}.cls": path.parent.name.encode() for path in photos}


def test_shards_give_the_weights_of_the_folders_that_are_in_them(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        photos = sorted((in_folder / "data" / split).rglob("*.bmp"))
        archive(in_folder / "data" / f"{split}-000.tar", in_shard(photos))
    folders, shards = published("photos", "data"), published("shards", "data/{train,val}-*.tar")
    assert same_weights(folders, shards)
    evaluate = ["evaluate", str(shards), "--data", "data/{train,val}-*.tar", "--workers", "0", "--device", "cpu"]
    capsys.readouterr()
    assert main(evaluate) == 0
    assert "the same" in capsys.readouterr().out
    assert main(["reproduce", str(shards)]) == 0
    assert "python -m training shards 'data/*.tar' --recipe mnist_cnn" in capsys.readouterr().out


def test_shards_behind_a_url_give_the_weights_of_the_files_also_if_few_fit_on_the_disk(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, memory = memory_url(), fsspec.filesystem("memory")
    for split, count in (("train", 6), ("val", 3)):
        photos = sorted((in_folder / "data" / split).rglob("*.bmp"))
        for i in range(count):
            path = archive(in_folder / "data" / f"{split}-{i}.tar", in_shard(photos[i::count]))
            memory.put_file(str(path), f"{url}/data/{path.name}")
    pattern = "data/{train-{0..5},val-{0..2}}.tar"
    alike, few = ["--name", "data", "--set", "source.mixed=2"], ["--cache-gb", "0.0002"]
    assert same_weights(published("shards", pattern), published("shards", f"{url}/{pattern}"))
    assert main(["shards", f"{url}/{pattern}", *SMALL, *few]) == 2
    assert "--set source.mixed=" in capsys.readouterr().err
    here, there = published("shards", pattern, *alike), published("shards", f"{url}/{pattern}", *alike, *few)
    assert same_weights(here, there)
    evaluate = ["evaluate", str(there), "--data", f"{url}/{pattern}", "--workers", "0", "--device", "cpu", *few]
    capsys.readouterr()
    assert main(evaluate) == 0
    assert "the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("path,label\n", "labels.csv has no rows"),
        ("path,name\na.bmp,x\n", "has no column for the labels"),
        ("path,label\n../a.bmp,x\n", "is outside of the table's folder"),
    ],
)
def test_a_bad_table_is_one_line_and_2_and_nothing_is_published(
    in_folder: Path, capsys: pytest.CaptureFixture[str], content: str, why: str
) -> None:
    (in_folder / "data" / "labels.csv").write_text(content)
    assert main(["table", "data/labels.csv", *SMALL]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1
    assert not list(Path("models_store").rglob("*.safetensors"))
