"""The files and folders below a folder: what systems and training leave there is no part of it."""

import os
import unicodedata
from pathlib import Path

import pytest

from tests.support.photo_files import touch
from training.data.folder_tree import FolderTree, walk
from training.errors import TrainingError


def seen(tree: FolderTree) -> list[str]:
    return list(tree.below(""))


def test_files_come_before_the_folders_beside_them_and_all_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.png", "b/a/9.png", "b/a/z/1.png", "b/10.png", "a/1.png", "top.txt")
    assert seen(walk(tmp_path, ())) == ["top.txt", "a/1.png", "b/10.png", "b/2.png", "b/a/9.png", "b/a/z/1.png"]


@pytest.mark.parametrize("name", ["é.png", "ü.png"])
def test_a_name_stands_at_the_same_place_in_both_forms_of_unicode(tmp_path: Path, name: str) -> None:
    for form in ("NFC", "NFD"):
        touch(tmp_path / form, *(unicodedata.normalize(form, each) for each in (name, "f.png", "z.png")))
    first, second = (walk(tmp_path / form, ()) for form in ("NFC", "NFD"))
    assert [unicodedata.normalize("NFC", each) for each in seen(second)] == seen(first)


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "#recycle", "@Recycle", "#snapshot", "@Recently-Snapshot", ".@__thumb", "~snapshot"),
        *("__MACOSX", ".Trashes", ".AppleDouble", ".Spotlight-V100", "Network Trash Folder"),
        *("$RECYCLE.BIN", "$Recycle.Bin", "System Volume Information", "FOUND.000", "LOST.DIR"),
        *("RECYCLER", "$WINDOWS.~BT", "$WinREAgent", "msdownld.tmp", "resource.frk", "@tmp", "@sharebin", "trashbox"),
        *("lost+found", ".Trash-1000", ".ipynb_checkpoints", "__pycache__"),
    ],
)
@pytest.mark.parametrize("where", ["", "bees/", "train/bees/", "bees/2024/june/"])
def test_folders_of_systems_are_not_seen_at_any_depth(tmp_path: Path, name: str, where: str) -> None:
    touch(tmp_path, "bees/1.png", f"{where}{name}/1.png", f"{where}{name}/bees/2.png")
    tree = walk(tmp_path, ())
    assert seen(tree) == ["bees/1.png"]
    assert (tree.odd, tree.outputs) == ({}, [])


@pytest.mark.parametrize("name", ["Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r", "._1.png", ".DS_Store"])
def test_files_of_systems_are_not_seen(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "bees/1.png", f"bees/{name}", name)
    assert seen(walk(tmp_path, ())) == ["bees/1.png"]


def test_names_that_only_resemble_those_of_systems_are_seen(tmp_path: Path) -> None:
    names = ["#1", "$100", "@home", "found", "lost", "recycle"]
    touch(tmp_path, *(f"{name}/1.png" for name in names))
    assert seen(walk(tmp_path, ())) == [f"{name}/1.png" for name in names]


def test_what_training_writes_to_is_no_data_wherever_it_lies_and_whatever_it_is_called(tmp_path: Path) -> None:
    touch(tmp_path, "bees/1.png", "bees/out/photos/2.png", "made/by us/store/1.png", "link to me/3.png")
    outputs = [tmp_path / "bees" / "out", tmp_path / "made" / "by us", tmp_path / "not there"]
    (tmp_path / "runs").symlink_to(tmp_path / "link to me", target_is_directory=True)
    tree = walk(tmp_path, [*outputs, tmp_path / "runs"])
    assert seen(tree) == ["bees/1.png"]
    assert sorted(tree.outputs) == ["bees/out", "link to me", "made/by us", "runs"]
    assert tree.folders[""] == ["bees"]  # "made" is there for the output alone


def test_runs_and_models_of_earlier_commands_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    touch(tmp_path, "bees/1.png", "ants/1.png", "store/insects/1.safetensors", "store/insects/12.safetensors")
    touch(tmp_path / "old" / "insects", "log.jsonl", "checkpoint.pth.tar", "model_best.pth.tar", "confusion.png")
    touch(tmp_path / "old", "photos/a4f2.json", "features/77-training.npy")
    tree = walk(tmp_path, ())
    assert tree.folders[""] == ["ants", "bees"]
    assert sorted(tree.outputs) == ["old/insects", "store/insects"]


def test_a_class_stays_one_if_a_checkpoint_lies_beside_its_photos(tmp_path: Path) -> None:
    touch(tmp_path, "bees/1.png", "bees/1.safetensors", "ants/1.png", "ants/log.jsonl")
    assert walk(tmp_path, ()).folders[""] == ["ants", "bees"]


def test_a_folder_that_training_writes_to_is_not_the_data_itself(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="give another --store or --runs"):
        walk(tmp_path, [tmp_path / "." / ".." / tmp_path.name])


@pytest.mark.parametrize(
    ("target", "why"),
    [(".", "a folder above itself"), ("..", "a folder above itself"), ("inner", "bees/inner"), ("../ants", "ants")],
)
def test_a_link_to_what_is_read_elsewhere_is_said_and_not_followed(tmp_path: Path, target: str, why: str) -> None:
    touch(tmp_path, "ants/1.png", "bees/1.png", "bees/inner/2.png")
    (tmp_path / "bees" / "back").symlink_to(target, target_is_directory=True)
    tree = walk(tmp_path, ())
    assert seen(tree) == ["ants/1.png", "bees/1.png", "bees/inner/2.png"]
    assert tree.odd == {"bees/back": f"it is a link to {why}"}


def test_a_link_to_a_folder_above_the_data_ends(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "ants/1.png", "bees/1.png")
    (tmp_path / "photos" / "bees" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert seen(walk(tmp_path / "photos", ())) == ["ants/1.png", "bees/1.png"]


def test_a_link_to_another_class_gives_no_photo_two_classes(tmp_path: Path) -> None:
    touch(tmp_path, "ants/1.png", "bees/1.png")
    (tmp_path / "ants" / "more").symlink_to(tmp_path / "bees", target_is_directory=True)
    (tmp_path / "wasps").symlink_to("bees", target_is_directory=True)
    tree = walk(tmp_path, ())
    assert seen(tree) == ["ants/1.png", "bees/1.png"]
    assert tree.odd == {"wasps": "it is a link to bees", "ants/more": "it is a link to bees"}
    assert tree.folders[""] == ["ants", "bees"]


def test_links_as_kubernetes_makes_them_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "..2024_05_01", "ants/1.png", "bees/1.png")
    (tmp_path / "..data").symlink_to("..2024_05_01", target_is_directory=True)
    for label in ("ants", "bees"):
        (tmp_path / label).symlink_to(f"..data/{label}", target_is_directory=True)
    assert seen(walk(tmp_path, ())) == ["ants/1.png", "bees/1.png"]


def test_a_link_that_leads_to_itself_is_left_to_whoever_reads_files(tmp_path: Path) -> None:
    touch(tmp_path, "bees/1.png")
    (tmp_path / "bees" / "2.png").symlink_to("2.png")
    assert seen(walk(tmp_path, ())) == ["bees/1.png", "bees/2.png"]


@pytest.mark.slow
def test_folders_may_lie_deeper_than_python_s_stack(tmp_path: Path) -> None:
    places = [tmp_path / "bees"]
    places += [Path(f"{places[0]}{'/d' * depth}") for depth in range(1, 1100)]
    for place in places:
        place.mkdir()
    (places[-1] / "1.png").touch()
    try:
        assert len(seen(walk(tmp_path, ()))) == 1
    finally:  # what removes a test's folder would not get so deep
        (places[-1] / "1.png").unlink()
        for place in reversed(places):
            place.rmdir()


def test_a_folder_that_is_called_like_an_image_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "bees/1.png", "bees/2.png/3.png")
    tree = walk(tmp_path, ())
    assert (seen(tree), tree.odd) == (["bees/1.png"], {"bees/2.png": "it is a folder"})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "bees/1.png")
    (tmp_path / "bees" / "locked").mkdir(mode=0)
    assert walk(tmp_path, ()).odd == {"bees/locked": "it cannot be read: Permission denied"}
