"""A folder of photos: which files are images of which class, and what is said of those that are not."""

import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.photo_files import picture, rewrite, write, write_folder
from tests.support.runs import Said
from training.data.dataset import Dataset
from training.data.folder_names import Role
from training.errors import TrainingError
from training.recipes.builtin import builtin

RECIPE = builtin("photos").replace(held_out=0.25)


@pytest.fixture
def load(load_files: Callable[..., Dataset]) -> Callable[..., Dataset]:
    def load(folder: Path, *, strict: bool = False, measure: Role = "val", **changes: object) -> Dataset:
        return load_files(RECIPE.replace(**changes), folder, strict=strict, measure=measure)

    return load


Load = Callable[..., Dataset]


def names_of(dataset: Dataset, folder: Path) -> dict[str, set[str]]:
    """By split, the files in it."""
    splits = {"train": dataset.train, "held_out": dataset.held_out, "test": dataset.test}
    return {
        part: {split.pictures[row].relative_to(folder).as_posix() for row in split.rows}  # type: ignore[attr-defined]
        for part, split in splits.items()
    }


def test_what_val_holds_is_only_reported(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_folder(folder / "train", bees=8, ants=4)
    write_folder(folder / "val", bees=3, ants=3)
    dataset = load(folder)
    names = names_of(dataset, folder)
    assert dataset.labels == ("ants", "bees")
    assert names["test"] == {f"val/{label}/{i:03}.jpg" for label in ("ants", "bees") for i in range(3)}
    assert (len(names["train"]), len(names["held_out"])) == (9, 3)
    assert all(name.startswith("train/") for name in names["train"] | names["held_out"])
    assert dataset.test.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_one_folder_is_split_by_the_seed_each_class_alike(load: Load, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", bees=20, ants=10)
    first, same, other = (names_of(load(folder, seed=seed), folder) for seed in (1, 1, 2))
    assert first == same
    assert first["test"] != other["test"]
    assert set.union(*first.values()) == {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}
    assert sum(map(len, first.values())) == 30
    assert sum(name.startswith("bees") for name in first["test"]) == 4
    assert sum(name.startswith("ants") for name in first["test"]) == 2
    share = names_of(load(folder, source={"kind": "photos", "test_share": 0.5}), folder)
    assert len(share["test"]) == 15


def test_folders_in_class_folders_are_walked_and_hidden_files_are_not_seen(load: Load, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", bees=3, ants=3)
    write(folder / "bees" / "2024" / "june" / "one.png", seed=77)
    write(folder / "bees" / ".thumbnails" / "one.png", seed=78)
    write(folder / ".cache" / "one.png", seed=79)
    (folder / "bees" / ".DS_Store").write_bytes(b"nothing to see")
    (folder / "README.txt").write_text("no class")
    dataset = load(folder)
    every = set.union(*names_of(dataset, folder).values())
    assert "bees/2024/june/one.png" in every
    assert len(every) == 7
    assert dataset.skipped == ()
    assert dataset.labels == ("ants", "bees")


def test_links_are_followed_but_not_in_circles(load: Load, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", bees=3, ants=3)
    write(tmp_path / "elsewhere" / "one.jpg", seed=77)
    (folder / "ants" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "ants" / "again").symlink_to(folder / "ants", target_is_directory=True)
    dataset = load(folder)
    assert "ants/more/one.jpg" in set.union(*names_of(dataset, folder).values())
    assert dataset.skipped == ("ants/again: it is a link to a folder above itself",)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "text.jpg": (lambda path: path.write_text("no image at all"), "not a JPEG"),
    "empty.jpg": (lambda path: path.touch(), "empty"),
    "placeholder.gif": (lambda path: picture(5).save(path), "GIF"),
    "a gif that says it is a.jpg": (lambda path: picture(5).save(path, "GIF"), "GIF"),
    "cut.jpg": (lambda path: _cut(path, "JPEG"), "truncated"),
    "cut.png": (lambda path: _cut(path, "PNG"), ""),
    "cut.webp": (lambda path: _cut(path, "WEBP"), ""),
    "a folder.jpg": (lambda path: write(path / "inside.jpg", seed=5), "it is a folder"),
    "dangling.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "link to nothing"),
    "a pipe.jpg": (os.mkfifo, "not a file"),
    "float.tiff": (lambda path: Image.new("F", (20, 20)).save(path), "no agreed range"),
    "long and thin.png": (lambda path: Image.new("L", (60_000, 1)).save(path), "too long and thin"),
    "name\udcff.jpg": (lambda path: path.write_text("no image"), "not a JPEG"),
}


def _cut(path: Path, kind: str) -> None:
    picture(5, (400, 300)).save(path, kind)
    path.write_bytes(path.read_bytes()[:-600])


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_said_and_left_out_or_refused(name: str, load: Load, tmp_path: Path, said: Said) -> None:
    folder = write_folder(tmp_path / "photos", bees=4, ants=4)
    make, why = ODD[name]
    make(folder / "ants" / name)
    dataset = load(folder)
    (line,) = dataset.skipped
    shown = name.encode("utf-8", "backslashreplace").decode()
    assert line.startswith(f"ants/{shown}: ")
    assert why in line
    assert f"skipped {line}\n" in str(said)
    assert len(set.union(*names_of(dataset, folder).values())) == 8
    with pytest.raises(TrainingError, match="--strict") as caught:
        load(folder, strict=True)
    assert shown in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said_and_left_out(load: Load, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", bees=4, ants=4)
    (folder / "ants" / "000.jpg").chmod(0)
    (folder / "bees" / "locked").mkdir(mode=0)
    assert load(folder).skipped == (
        "ants/000.jpg: Permission denied",
        "bees/locked: it cannot be read: Permission denied",
    )
    (folder / "bees").chmod(0)
    with pytest.raises(TrainingError, match=r"class folder bees holds no image \(it cannot be read: Permission denied"):
        load(folder)
    (folder / "bees").chmod(0o700)


def test_too_many_pixels_are_refused_before_they_are_decoded(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "photos", bees=4, ants=4)
    write(folder / "ants" / "large.png", seed=5, size=(300, 300))
    write(folder / "ants" / "bomb.png", seed=5, size=(600, 600))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80_000)  # Pillow refuses what has twice as many
    lines = load(folder).skipped
    assert [line.partition(":")[0] for line in lines] == ["ants/bomb.png", "ants/large.png"]
    assert "300x300 pixels; at most 0.08 million" in lines[1]


def test_many_odd_files_are_said_in_a_few_lines(load: Load, tmp_path: Path, said: Said) -> None:
    folder = write_folder(tmp_path / "photos", bees=4, ants=4)
    for i in range(12):
        (folder / "ants" / f"note {i}.txt").write_text("no image")
    assert len(load(folder).skipped) == 12
    assert "skipped 7 more\n" in str(said)
    assert str(said).count("\n") < 10


def _make(folder: Path) -> None:
    folder.mkdir(parents=True)


LAYOUTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "nothing there": (lambda _: None, ("is not there",)),
    "a file": (lambda folder: folder.touch(), ("is a file",)),
    "no folders in it": (lambda folder: folder.mkdir(), ("no class folders", "put the photos")),
    "images only": (lambda folder: write(folder / "one.jpg"), ("holds images, but no class folders", "put the photos")),
    "one class": (lambda folder: write_folder(folder, ants=4), ("only one class", "ants")),
    "an empty class": (
        lambda folder: _make(write_folder(folder, ants=4) / "bees"),
        ("class folder bees", "empty", "remove it"),
    ),
    "a class of odd files": (
        lambda folder: (write_folder(folder, ants=4), write(folder / "bees" / "one.gif")),
        ("class folder bees", "none of its 1 files", "remove it"),
    ),
    "train alone": (lambda folder: write_folder(folder / "train", ants=4, bees=4), ("train/ but no val/",)),
    "more classes in val": (
        lambda folder: (
            write_folder(folder / "train", ants=4, bees=4),
            write_folder(folder / "val", ants=4, bees=4, wasps=2),
        ),
        ("val/ has classes that train/ does not have: wasps",),
    ),
    "an empty val": (
        lambda folder: _make(write_folder(folder / "train", ants=4, bees=4).parent / "val" / "ants"),
        ("val/ holds no image",),
    ),
    "one photo each": (lambda folder: write_folder(folder, ants=1, bees=1), ("too few", "each class must keep one")),
    "nothing left to hold out": (lambda folder: write_folder(folder, ants=2, bees=2), ("too few", "out of training")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_that_will_not_do_gives_one_line_that_says_why(layout: str, load: Load, tmp_path: Path) -> None:
    make, words = LAYOUTS[layout]
    make(tmp_path / "photos")
    with pytest.raises(TrainingError) as caught:
        load(tmp_path / "photos")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_class_that_val_lacks_is_said(load: Load, tmp_path: Path, said: Said) -> None:
    folder = tmp_path / "photos"
    write_folder(folder / "train", ants=4, bees=4)
    write_folder(folder / "val", bees=2)
    assert load(folder).labels == ("ants", "bees")
    assert "val/ has no ants" in str(said)


def test_photos_of_val_that_are_in_train_too_are_said(load: Load, tmp_path: Path, said: Said) -> None:
    folder = tmp_path / "photos"
    write_folder(folder / "train", ants=4, bees=4)
    write_folder(folder / "val", ants=2, bees=2)
    load(folder)
    assert "in train/, too" not in str(said)
    shutil.copy(folder / "train" / "ants" / "001.jpg", folder / "val" / "ants" / "another name.jpg")
    load(folder)
    assert "1 photos of val/ are in train/, too, e.g. val/ants/another name.jpg" in str(said)


def test_the_fingerprint_is_that_of_names_and_contents(load: Load, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", bees=4, ants=4)
    first = load(folder).fingerprint
    assert load(folder, seed=5).fingerprint == first
    (folder / "ants" / "note.txt").write_text("no image")
    assert load(folder).fingerprint == first
    moved = shutil.move(folder, tmp_path / "moved")
    assert load(Path(moved)).fingerprint == first
    path = Path(moved) / "ants" / "000.jpg"
    renamed = path.rename(path.with_name("0.jpg"))
    assert load(Path(moved)).fingerprint != first
    renamed.rename(path)
    assert load(Path(moved)).fingerprint == first
    write(Path(moved) / "bees" / "003.jpg", seed=99)
    assert load(Path(moved)).fingerprint != first


def test_files_are_looked_at_once_and_again_when_they_change(load: Load, tmp_path: Path, said: Said) -> None:
    folder = write_folder(tmp_path / "photos", bees=4, ants=4)
    first = load(folder).fingerprint
    assert "looking at 8 files" in str(said)
    assert load(folder).fingerprint == first
    assert str(said).count("looking at") == 1
    write(folder / "ants" / "000.jpg", seed=99)
    assert load(folder).fingerprint != first
    assert "looking at 1 files" in str(said)
    (folder / "ants" / "001.jpg").write_bytes(b"damaged")
    assert len(load(folder).skipped) == 1
    assert len(load(folder).skipped) == 1
    assert str(said).count("looking at") == 3


def test_notes_that_are_damaged_or_of_another_version_are_made_anew(load: Load, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", bees=4, ants=4)
    first = load(folder).fingerprint
    (notes,) = (tmp_path / "scratch" / "photos").iterdir()
    sound = notes.read_bytes()
    document = json.loads(sound)
    for damaged in (b"", b"{", b"[]", b'{"version": 1}', json.dumps(document | {"files": {"a": []}}).encode()):
        notes.write_bytes(damaged)
        assert load(folder).fingerprint == first
        assert notes.read_bytes() == sound
    for entry in document["files"].values():
        entry[-1]["sha256"] = "of another version"
    notes.write_text(json.dumps(document | {"version": "another"}))
    assert load(folder).fingerprint == first


def test_a_second_edition_of_the_same_names_sizes_and_times_has_another_fingerprint(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for seed, name in enumerate(f"{label}/{i}.bmp" for label in ("ants", "bees") for i in range(4)):
        write(folder / name, seed)
    first = load(folder)
    assert first.unchanged()
    for seed, path in enumerate(sorted(folder.glob("*/*"))):
        rewrite(path, picture(50 + seed))
    assert not first.unchanged()
    assert load(folder).fingerprint != first.fingerprint


def test_photos_that_were_only_touched_are_unchanged(load: Load, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", bees=4, ants=4)
    dataset = load(folder)
    os.utime(folder / "bees" / "000.jpg")
    assert dataset.unchanged()
    (folder / "bees" / "000.jpg").unlink()
    assert not dataset.unchanged()


def test_labels_and_fingerprint_are_the_same_in_both_forms_of_unicode(load: Load, tmp_path: Path) -> None:
    datasets = []
    for form in ("NFC", "NFD"):
        folder = tmp_path / form / "photos"
        for seed, name in enumerate(f"{label}/{i}é.png" for label in ("café", "bleu") for i in range(5)):
            write(folder / unicodedata.normalize(form, name), seed)
        datasets.append(load(folder))
    one, other = datasets
    assert one.labels == other.labels == ("bleu", unicodedata.normalize("NFC", "café"))
    assert one.fingerprint == other.fingerprint
    assert [split.targets.tolist() for split in (one.train, one.test)] == [
        split.targets.tolist() for split in (other.train, other.test)
    ]


def test_what_test_holds_is_neither_scanned_nor_measured_unless_it_is_asked_for(
    load: Load, tmp_path: Path, said: Said
) -> None:
    folder = tmp_path / "photos"
    for split, count in (("Train", 8), ("Valid", 3), ("Test", 2)):
        write_folder(folder / split, bees=count, ants=count)
    (folder / "Test" / "ants" / "broken.png").touch()
    (folder / "Test" / "ants" / "folder.png").mkdir()
    dataset = load(folder)
    assert len(dataset.test) == 6
    assert dataset.skipped == ()
    assert "looking at 22 files" in str(said)
    other = load(folder, measure="test")
    assert names_of(other, folder)["test"] == {
        f"Test/{label}/{i:03}.jpg" for label in ("ants", "bees") for i in range(2)
    }
    assert other.skipped == ("Test/ants/broken.png: it is empty", "Test/ants/folder.png: it is a folder")


def test_a_split_that_is_a_link_to_another_is_said_and_left_out(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for split in ("train", "val"):
        write_folder(folder / split, bees=4, ants=4)
    (folder / "test").symlink_to("val", target_is_directory=True)
    dataset = load(folder)
    assert dataset.skipped == ("test: it is a link to val",)
    assert len(dataset.test) == 8


def test_without_val_a_part_of_train_is_measured(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_folder(folder / "train", bees=10, ants=10)
    write_folder(folder / "test", bees=3, ants=3)
    names = names_of(load(folder), folder)
    assert len(names["test"]) == 4
    assert all(name.startswith("train/") for name in set.union(*names.values()))


@pytest.mark.slow
def test_examples_are_small_upright_pngs_of_as_many_classes_as_there_are(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_folder(folder / "train", ants=4, bees=4, wasps=4)
    exif = Image.Exif()
    exif[0x0112] = 6  # held on its side
    for label in ("ants", "bees", "wasps"):
        write(folder / "val" / label / "one.jpg", seed=3, size=(1200, 600), exif=exif)
        write(folder / "val" / label / "two.png", seed=4, mode="LA")
    dataset = load(folder)
    (tmp_path / "example.png").write_bytes(dataset.examples[0])
    with Image.open(tmp_path / "example.png") as image:
        assert (image.format, image.size, image.mode) == ("PNG", (256, 512), "RGB")
    assert len(dataset.examples) == 6


@pytest.mark.slow
def test_the_hymenoptera_photos_are_all_found_but_the_placeholder(load: Load, shared_data: Path) -> None:
    dataset = load(shared_data / "hymenoptera")
    assert dataset.labels == ("ants", "bees")
    assert (len(dataset.train) + len(dataset.held_out), len(dataset.test)) == (244, 153)
    assert dataset.skipped == ("train/ants/imageNotFound.gif: it is a GIF",)
    assert np.bincount(dataset.test.targets.numpy()).tolist() == [70, 83]
