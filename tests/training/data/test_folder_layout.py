"""What folders mean: splits are told from classes, and where both are possible a line says what to do."""

import unicodedata
from pathlib import Path

import pytest

from tests.support.photo_files import touch
from training.data.folder_layout import FolderLayout, layout_of
from training.data.folder_names import Role
from training.data.folder_tree import walk
from training.errors import TrainingError


def read(folder: Path, *names: str, splits: bool = True, measure: Role = "val") -> FolderLayout:
    """The layout of a folder with these files. A name that ends in "/" stands for the classes ants and bees."""
    paths = [
        path for name in names for path in ([f"{name}{of}/1.png" for of in _CLASSES] if name[-1] == "/" else [name])
    ]
    return layout_of(walk(touch(folder, *paths), ()), "photos", splits=splits, measure=measure)


_CLASSES = ("ants", "bees")


def refused(folder: Path, *names: str, splits: bool = True, measure: Role = "val") -> str:
    """The line that says why."""
    with pytest.raises(TrainingError) as caught:
        read(folder, *names, splits=splits, measure=measure)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("train", "val"),
    [
        *(("train", "val"), ("train", "valid"), ("Train", "Val"), ("training", "validation"), ("TRAIN", "VALID")),
        *(("train", "dev"), ("train", "eval"), ("training_set", "validation_set"), ("train2017", "val2017")),
    ],
)
@pytest.mark.parametrize("test", [None, "test", "Testing", "test_set"])
def test_splits_are_no_classes_and_val_is_measured(tmp_path: Path, train: str, val: str, test: str | None) -> None:
    layout = read(tmp_path, f"{train}/", f"{val}/", *([] if test is None else [f"{test}/"]))
    assert layout.train.folders == {label: [f"{train}/{label}"] for label in _CLASSES}
    assert layout.measured is not None
    assert layout.measured.folders == {label: [f"{val}/{label}"] for label in _CLASSES}
    assert layout.said[0] == f"trained on: {train}/; measured on: {val}/"
    assert any(f"left out: {test}/ (2 photos)" in line and "--test" in line for line in layout.said) == (
        test is not None
    )


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "Testing"), ("train_set", "test_set")])
def test_without_val_a_part_of_train_is_measured_and_test_is_left_out(tmp_path: Path, train: str, test: str) -> None:
    layout = read(tmp_path, f"{train}/", f"{test}/")
    assert (layout.train.name, layout.measured) == (train, None)
    assert "there is no val/" in layout.said[0]
    assert f"left out: {test}/" in layout.said[1]


@pytest.mark.parametrize("val", [[], ["val/"]])
def test_test_is_measured_if_it_is_asked_for(tmp_path: Path, val: list[str]) -> None:
    layout = read(tmp_path, "train/", *val, "Test/", measure="test")
    assert layout.measured is not None
    assert layout.measured.name == "Test"
    assert layout.said[1:] == (("left out: val/ (2 photos)",) if val else ())


@pytest.mark.parametrize("names", [["train/", "val/"], ["ants/1.png", "bees/1.png"]])
def test_a_test_set_that_is_not_there_is_not_measured(tmp_path: Path, names: list[str]) -> None:
    assert "photos has no test/" in refused(tmp_path, *names, measure="test")


def test_a_test_set_of_no_classes_is_left_out(tmp_path: Path) -> None:
    layout = read(tmp_path, "train/", "test/1.png", "test/2.png")
    assert layout.said[1] == "left out: test/ (2 photos)"
    assert "holds images, but no class folders" in refused(tmp_path, measure="test")


def test_what_has_no_photos_is_left_out_beside_splits(tmp_path: Path) -> None:
    notes = ["README.roboflow.txt", "data.yaml", "annotations/1.xml", "labels/ants/1.txt", "train/_classes.csv"]
    layout = read(tmp_path, "train/", "valid/", *notes)
    assert list(layout.train.folders) == ["ants", "bees"]
    assert layout.said[1:] == ("left out: annotations/, labels/ (no photos)",)


def test_photos_that_are_in_no_class_folder_are_said(tmp_path: Path) -> None:
    assert read(tmp_path / "a", "train/", "val/", "train/1.png", "train/2.jpg").said[0] == (
        "left out: 2 photos that are in no class folder, e.g. train/1.png"
    )
    assert "e.g. all.png" in read(tmp_path / "b", "ants/1.png", "bees/1.png", "all.png").said[0]


@pytest.mark.parametrize(
    "names",
    [
        ["car/1.png", "bus/1.png", "train/1.png"],
        ["car/1.png", "bus/1.png", "train/1.png", "test/1.png"],
        ["car/1.png", "bus/sedan/1.png", "train/1.png"],
        ["valid/1.png", "invalid/1.png"],
        ["dev/1.png", "prod/1.png"],
    ],
)
def test_a_class_may_be_called_like_a_split_if_photos_lie_in_it_beside_other_classes(
    tmp_path: Path, names: list[str]
) -> None:
    layout = read(tmp_path, *names)
    assert list(layout.train.folders) == sorted({name.split("/")[0] for name in names})
    assert layout.measured is None


def test_in_a_split_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    layout = read(
        tmp_path, *(f"{split}/{label}/1.png" for split in ("train", "val") for label in ("train", "test", "car"))
    )
    assert list(layout.train.folders) == ["car", "test", "train"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train/", "ants/1.png", "bees/1.png"], ["train/", "beside ants/, bees/", "source.splits=false"]),
        (["train/", "val/", "wasps/1.png"], ["beside wasps/"]),
        (["train/", "test/", "unseen/1.png"], ["beside unseen/"]),
        (["ants/1.png", "bees/1.png", "test/"], ["has test/", "beside ants/, bees/"]),
        (["ants/1.png", "bees/1.png", "test/1.png"], ["has test/", "called like a split"]),
        (["train/", "fold2/", "val/"], ["beside fold2/"]),
        (["val/", "valid/", "train/"], ["val/, valid/, which both mean val"]),
        (["Train/", "train/", "val/"], ["Train/, train/, which both mean train"]),
        (["train/", "dev/", "eval/"], ["which both mean val"]),
        (["val/"], ["has val/ but no train/", "name photos/val"]),
        (["test/"], ["has test/ but no train/"]),
        (["valid/", "test/"], ["has test/, valid/ but no train/"]),
        (["Train/"], ["has Train/ but no val/", "name photos/Train"]),
        (["train/1.png", "test/1.png"], ["photos/train holds images, but no class folders"]),
        (["train/1.png", "val/1.png", "test/1.png"], ["photos/train holds images, but no class folders"]),
        (["train/", "val/1.png"], ["photos/val holds images, but no class folders"]),
        (["train/1.png", "val/"], ["photos/train holds images"]),
        (["a\nb/", "ants/1.png", "test/"], ["beside a\\nb/, ants/"]),
        (["name\udcff/1.png", "bees/1.png"], ["photos/name\\udcff: a class needs a name in UTF-8"]),
        (["double/"], ["only one class, double", "ants, bees", "name photos/double"]),
        (["data/train/", "data/val/"], ["only one class, data", "train, val", "name photos/data"]),
        (["a/b/c/", "README.md"], ["only one class, a", "ants, bees", "name photos/a/b/c"]),
        (["training_set/training_set/", "test_set/test_set/"], ["in training_set/training_set/", "to training_set/"]),
        (["train/images/1.png", "train/labels/1.txt", "val/images/1.png"], ["object detection", "images/, labels/"]),
        (["images/train/1.png", "labels/train/1.txt"], ["object detection"]),
        (["train/images/1.png", "train/masks/1.png", "val/images/1.png", "val/masks/1.png"], ["images/, masks/"]),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused_in_a_line_that_says_what_to_do(
    tmp_path: Path, names: list[str], words: list[str]
) -> None:
    message = refused(tmp_path, *names)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["session1/", "session2/"], ["session1/, session2/", "ants, bees", "source.splits=false"]),
        (["session1/", "session2/bees/1.png", "session2/wasps/1.png"], ["(bees)"]),
        (["session1/", "session2/Bees/1.png"], ["(Bees)"]),
        (["session1/", "session2/", "more/1.png"], ["session1/, session2/"]),
        (["session1/", "session2/", "session1/overview.jpg", "session2/overview.jpg"], ["session1/, session2/"]),
        (["site1/images/", "site2/images/"], ["site1/, site2/", "(ants, bees)"]),
        (["site1/monday/", "site2/friday/"], ["site1/, site2/", "ants, bees"]),
        (["session1/ants/1", "session1/bees/1", "session2/ants/1", "session2/bees/1"], ["(ants, bees)"]),
        (["train/s1/", "train/s2/", "val/s1/"], ["s1/, s2/ in photos/train"]),
        (["train/s1/1.png", "train/s2/1.png", "val/s1/", "val/s2/"], ["s1/, s2/ in photos/val"]),
        (["ants/train/1.png", "ants/val/1.png", "bees/train/1.png", "bees/val/1.png"], ["splits above", "train/ants"]),
        (["ants/1.png", "ants/2.png", "ants/test/3.png", "bees/1.png", "bees/2.png", "bees/test/3.png"], ["test/ants"]),
        (["fold1/train/", "fold1/val/", "fold2/train/", "fold2/val/"], ["fold1/, fold2/"]),
    ],
)
def test_folders_of_the_same_names_in_several_folders_are_refused(
    tmp_path: Path, names: list[str], words: list[str]
) -> None:
    message = refused(tmp_path, *names)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(
    "names",
    [
        ["asl_alphabet_train/asl_alphabet_train/", "asl_alphabet_test/asl_alphabet_test/ants_test.png"],
        ["insects-train/", "insects-test/1.png"],
        ["trainInsects/ants/1.png", "validInsects/bees/1.png"],
        ["1.train/ants/1.png", "1.train/bees/1.png", "2.test/1.png"],
        ["Train (1)/", "Valid (1)/"],
        ["ants_train/1.png", "ants_val/1.png", "bees_train/1.png", "bees_val/1.png"],
        ["insects train set/ants/1.png", "insects test set/bees/1.png", "car/1.png"],
    ],
)
def test_folders_of_one_name_with_the_words_of_several_splits_are_refused(tmp_path: Path, names: list[str]) -> None:
    message = refused(tmp_path, *names)
    assert "called like splits of the same photos" in message or "folders of the same names" in message
    assert "add --set source.splits=false" in message
    tops = {name.split("/")[0] for name in names}
    assert set(read(tmp_path, splits=False).train.folders) == tops


@pytest.mark.parametrize(
    "names", [["steam train/1.png", "test tube/1.png"], ["freight train/1.png", "train/1.png", "express train/1.png"]]
)
def test_a_class_may_have_the_word_of_a_split_in_its_name(tmp_path: Path, names: list[str]) -> None:
    assert list(read(tmp_path, *names).train.folders) == sorted(name.split("/")[0] for name in names)


@pytest.mark.parametrize(
    ("names", "there"),
    [
        (["data/train/", "data/val/", "preview/1.png"], "photos/data"),
        (["data/Train/", "data/Test/", "samples/1.png"], "photos/data"),
        (["archive/insects/train/", "archive/insects/valid/", "figures/1.png"], "photos/archive/insects"),
        (
            ["train/insects/train/", "train/insects/val/", "train/wasps/1.png", "val/wasps/1.png"],
            "photos/train/insects",
        ),
    ],
)
def test_a_class_in_which_there_are_splits_is_refused(tmp_path: Path, names: list[str], there: str) -> None:
    message = refused(tmp_path, *names)
    assert f"name {there}" in message
    assert "add --set source.splits=false" in message


@pytest.mark.parametrize(
    "names",
    [
        ["ants/1.png", "bees/2024/june/1.png", "bees/2024/july/1.png"],
        ["animals/ants/1.png", "animals/bees/1.png", "plants/roses/1.png"],
        ["ants/images/1.png", "ants/boxes.txt", "bees/images/1.png", "bees/boxes.txt"],
        ["ants/1.png", "ants/2.png", "ants/more/3.png", "bees/1.png", "bees/2.png", "bees/more/3.png"],
    ],
)
def test_classes_may_have_folders_in_them(tmp_path: Path, names: list[str]) -> None:
    assert list(read(tmp_path, *names).train.folders) == sorted({name.split("/")[0] for name in names})


@pytest.mark.parametrize(
    "names", [["session1/", "session2/"], ["train/", "test/"], ["ants/1.png", "test/1.png"], ["train/", "bees/1.png"]]
)
def test_every_folder_is_a_class_if_the_recipe_says_so(tmp_path: Path, names: list[str]) -> None:
    layout = read(tmp_path, *names, splits=False)
    assert list(layout.train.folders) == sorted({name.split("/")[0] for name in names})
    assert (layout.measured, layout.said) == (None, ())


@pytest.mark.parametrize("label", ["café", "Ångström", "한국"])
def test_labels_are_in_one_form_of_unicode_whatever_the_folders_are_in(tmp_path: Path, label: str) -> None:
    one, other = (unicodedata.normalize(form, label) for form in ("NFC", "NFD"))
    layout = read(tmp_path, f"train/{other}/1.png", "train/b/1.png", f"val/{one}/1.png", "val/b/1.png")
    assert layout.measured is not None
    assert layout.train.folders == {"b": ["train/b"], one: [f"train/{other}"]}
    assert layout.measured.folders == {"b": ["val/b"], one: [f"val/{one}"]}


def test_two_folders_whose_names_differ_in_the_form_of_unicode_are_one_class(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    layout = read(tmp_path, f"{one}/1.png", f"{other}/2.png", "bar/1.png")
    assert list(layout.train.folders) == ["bar", one]
    assert sorted(layout.train.folders[one]) == sorted([one, other])
    assert f"{one}/ twice" in layout.said[0]


@pytest.mark.parametrize(
    ("one", "other"), [("Cat", "cat"), ("cat", "cat "), ("two words", "two  words"), ("cat", "ｃａｔ")]
)
@pytest.mark.parametrize("val", [False, True])
def test_classes_that_differ_in_case_or_spacing_only_are_refused(
    tmp_path: Path, one: str, other: str, val: bool
) -> None:
    if val:
        names = [f"train/{one}/1.png", "train/dog/1.png", f"val/{other}/1.png", "val/dog/1.png"]
    else:
        names = [f"{one}/1.png", f"{other}/1.png", "dog/1.png"]
    assert "differ in case or spacing only" in refused(tmp_path, *names)


def test_letters_in_both_cases_are_classes(tmp_path: Path) -> None:
    assert list(read(tmp_path, "a/1.png", "A/1.png", "ß/1.png").train.folders) == ["A", "a", "ß"]
