"""Folders of photos as people have them, through the command line: what is published, and what is refused."""

import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from classifier.checkpoint import Checkpoint
from classifier.manifest import Manifest
from classifier.progress import Advance, Progress
from tests.support import checkpoints
from tests.support.photo_files import picture, rewrite, write
from tests.support.runs import Said, Train
from training.__main__ import main
from training.errors import TrainingError
from training.recipes.builtin import builtin

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

Photos = Callable[..., Manifest]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Photos:
    """Trains in `tmp_path`, and gives the manifest of what is published."""
    monkeypatch.chdir(tmp_path)

    def photos(folder: str, *flags: str, store: str = "models_store") -> Manifest:
        small = ["--recipe", "mnist_cnn", "--epochs", "1", "--workers", "0", "--device", "cpu", "--no-pictures"]
        assert main(["photos", folder, *small, "--name", "insects", "--store", store, *flags]) == 0
        path = max((Path(store) / "insects").glob("*.safetensors"), key=lambda path: int(path.stem))
        return Checkpoint.load(path).manifest

    return photos


def fill(folder: Path, count: int = 6, labels: tuple[str, ...] = ("ants", "bees"), seed: int = 0) -> Path:
    for number, label in enumerate(labels):
        for i in range(count):
            write(folder / label / f"{i}.bmp", 1000 * seed + 100 * number + i)
    return folder


def test_splits_are_not_published_as_labels_and_test_is_measured_when_it_is_asked_for(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, (split, count) in enumerate({"train": 6, "valid": 3, "test": 2}.items()):
        fill(tmp_path / "data" / split, count, seed=seed)
    manifest = photos("data")
    assert manifest.labels == ("ants", "bees")
    assert manifest.metrics is not None
    assert manifest.metrics.samples == 6
    assert "left out: test/ (4 photos); to measure it: python -m training evaluate CHECKPOINT --data data --test" in (
        capsys.readouterr().out.replace("\n", "")
    )
    evaluate = ["evaluate", "models_store/insects/1.safetensors", "--data", "data", "--workers", "0", "--device", "cpu"]
    assert main(evaluate) == 0
    assert "the same" in capsys.readouterr().out
    assert main([*evaluate, "--test"]) == 0
    said = capsys.readouterr().out
    assert "measured on: test/" in said
    assert [word for word in ("the same", "differs", "fingerprints") if word in said] == []


def test_the_store_and_the_runs_in_the_data_are_no_classes(photos: Photos, tmp_path: Path) -> None:
    fill(tmp_path)
    first, second = photos("."), photos(".")
    elsewhere = photos(".", "--runs", "out/of/sight", store="ants/models")
    again = photos(".", "--runs", "somewhere else", store="somewhere else/models")
    for manifest in (first, second, elsewhere, again):
        assert manifest.labels == ("ants", "bees")
        assert manifest.provenance is not None
        assert first.provenance is not None
        assert manifest.provenance.dataset == first.provenance.dataset
    evaluate = ["evaluate", "ants/models/insects/1.safetensors", "--data", ".", "--workers", "0", "--device", "cpu"]
    assert main(evaluate) == 0


@pytest.mark.parametrize("flag", ["--store", "--runs"])
def test_the_data_are_not_where_training_writes_to(
    photos: Photos, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "data")
    assert main(["photos", "data", "--recipe", "mnist_cnn", "--name", "insects", flag, "data"]) == 2
    assert "give another --store or --runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folders", "word"),
    [
        (["session1", "session2"], "session1/, session2/"),
        (["double/double"], "name data/double/double"),
        (["train", "."], "beside ants/, bees/"),
        (["validation"], "but no train/"),
    ],
)
def test_what_is_not_clear_is_one_line_and_2(
    photos: Photos, tmp_path: Path, folders: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in folders:
        fill(tmp_path / "data" / folder, 3)
    assert main(["photos", "data", "--recipe", "mnist_cnn"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
    assert not list((tmp_path / "models_store").iterdir())


def test_labels_are_published_in_one_form_of_unicode(photos: Photos, tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "bienenkönigin") for form in ("NFC", "NFD"))
    fill(tmp_path / "data" / "train", labels=("ants", other))
    fill(tmp_path / "data" / "val", labels=("ants", one), seed=1)
    assert photos("data").labels == ("ants", one)
    shutil.rmtree(tmp_path / "data" / "val" / one)
    assert main(["evaluate", "models_store/insects/1.safetensors", "--data", "data", "--workers", "0"]) == 0


def test_a_checkpoint_with_labels_in_another_form_of_unicode_is_measured_and_gone_on_with(
    photos: Photos, tmp_path: Path
) -> None:
    one, other = (unicodedata.normalize(form, "bienenkönigin") for form in ("NFC", "NFD"))
    fill(tmp_path / "data", labels=("ants", one))
    photos("data")
    trained = Checkpoint.load(tmp_path / "models_store" / "insects" / "1.safetensors")
    before = checkpoints.saying(trained, labels=("ants", other))
    path = str(checkpoints.publish(tmp_path / "before", 1, before, model="insects"))
    assert main(["evaluate", path, "--data", "data", "--workers", "0", "--device", "cpu"]) == 0
    assert photos("data", "--from", path).labels == ("ants", one)


def second_edition(folder: Path) -> None:
    """Puts other images in the place of those that are there: of the same names, sizes and times."""
    for seed, path in enumerate(sorted(folder.glob("*/*"))):
        rewrite(path, picture(7000 + seed))


def test_provenance_of_a_second_edition_is_not_that_of_the_first(photos: Photos, tmp_path: Path) -> None:
    folder = fill(tmp_path / "data")
    first = photos("data")
    second_edition(folder)
    second = photos("data")
    assert first.provenance is not None
    assert second.provenance is not None
    assert second.provenance.dataset.fingerprint != first.provenance.dataset.fingerprint


def test_a_run_is_not_resumed_on_a_second_edition(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fill(tmp_path / "data")
    photos("data")
    second_edition(folder)
    command = ["photos", "data", "--recipe", "mnist_cnn", "--epochs", "1", "--workers", "0", "--name", "insects"]
    assert main([*command, "--device", "cpu", "--resume"]) == 2
    assert "is of other data, or the data were changed since; start without --resume" in capsys.readouterr().err


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (28, 28), (level,) * 3)


def accuracy(manifest: Manifest) -> float:
    assert manifest.metrics is not None
    return manifest.metrics.accuracy


def test_stored_features_of_the_first_edition_are_not_those_of_the_second(photos: Photos, tmp_path: Path) -> None:
    """The classes change their photos: whoever takes the old features for the new ones has nothing right."""
    folder = tmp_path / "data"
    for label, level in (("dark", 0), ("light", 200)):
        for i in range(20):
            grey(level + i).save(write(folder / label / f"{i:02}.bmp"))
    parent = checkpoints.publish(tmp_path / "parents", 1, checkpoints.checkpoint(), model="parent")
    head = f"--recipe transfer:mnist_cnn --from {parent} --epochs 8 --lr 0.2 --set augment={{}}".split()
    assert accuracy(photos("data", *head)) == 1
    kept = {path.name for path in (tmp_path / "runs" / "features").iterdir()}
    assert kept, "features were stored"
    for label, level in (("dark", 200), ("light", 0)):
        for i in range(20):
            rewrite(folder / label / f"{i:02}.bmp", grey(level + i))
    assert accuracy(photos("data", *head)) == 1
    assert len(list((tmp_path / "runs" / "features").iterdir())) == 2 * len(kept)


@dataclass(frozen=True, slots=True)
class Meanwhile(Progress):
    """Somebody who puts a second edition over the data when a step begins."""

    at: str = ""
    folder: Path = Path()

    @contextmanager
    def step(self, title: str, *, total: int, unit: str) -> Iterator[Advance]:
        if title.startswith(self.at):
            second_edition(self.folder)
        with Progress.silent().step(title, total=total, unit=unit) as advance:
            yield advance


def test_features_of_images_that_changed_meanwhile_are_not_stored(run: Train, tmp_path: Path) -> None:
    folder = fill(tmp_path / "data")
    parent = checkpoints.publish(tmp_path / "parents", 1, checkpoints.checkpoint(), model="parent")
    recipe = builtin("photos", "transfer:mnist_cnn").replace(
        preprocess=checkpoints.checkpoint().manifest.preprocess.model_dump(), augment={}, epochs=2
    )
    progress = Meanwhile(Progress.silent().console, "features of", folder)
    with pytest.raises(TrainingError, match="were changed while they were read; start again"):
        run(recipe, data=folder, parent=parent, workers=0, progress=progress)
    assert list((tmp_path / "runs" / "features").iterdir()) == []
    run(recipe, data=folder, parent=parent, workers=0)
    assert list((tmp_path / "runs" / "features").iterdir()) != []


def test_images_that_changed_while_the_run_went_on_are_said(run: Train, tmp_path: Path, said: Said) -> None:
    folder = fill(tmp_path / "data")
    recipe = builtin("photos", "mnist_cnn").replace(epochs=1)
    line = "images were changed while the run went on: the fingerprint is that of its beginning"
    run(recipe, data=folder, workers=0, progress=said.progress)
    assert line not in str(said)
    run(recipe, data=folder, workers=0, progress=Meanwhile(said.progress.console, "epoch 1", folder))
    assert line in str(said)
