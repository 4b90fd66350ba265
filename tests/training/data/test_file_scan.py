"""What was found out about files: it is kept, and it is never believed of another content."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.photo_files import picture, rewrite, write
from tests.support.runs import Said
from training.data import file_scan
from training.data.file_scan import FileRecord, scan_files

NAMES = ["a.bmp", "b.bmp", "c.bmp"]


def scan(folder: Path, said: Said, names: list[str] = NAMES) -> Mapping[str, FileRecord]:
    return scan_files(folder / "photos", names, scratch=folder / "scratch", threads=1, progress=said.progress)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`photos` with three images of one size in bytes, whatever is in them."""
    for seed, name in enumerate(NAMES):
        write(tmp_path / "photos" / name, seed)
    return tmp_path


def test_files_that_are_as_they_were_are_not_read_again(
    folder: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scan(folder, said)
    monkeypatch.setattr(file_scan, "record_of", lambda *_: pytest.fail("a file was read"))
    assert scan(folder, said) == first
    assert str(said).count("looking at") == 1


def test_another_content_of_the_same_size_and_time_is_seen(folder: Path, said: Said) -> None:
    first = scan(folder, said)
    rewrite(folder / "photos" / "b.bmp", picture(99))
    second = scan(folder, said)
    assert second["b.bmp"].sha256 != first["b.bmp"].sha256
    assert [second[name] for name in ("a.bmp", "c.bmp")] == [first[name] for name in ("a.bmp", "c.bmp")]
    assert "looking at 1 files" in str(said)


def test_files_that_changed_places_are_seen(folder: Path, said: Said) -> None:
    first = scan(folder, said)
    one, other, aside = (folder / "photos" / name for name in ("a.bmp", "b.bmp", "aside"))
    times = one.stat().st_mtime_ns
    os.utime(other, ns=(times, times))
    scan(folder, said)
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    second = scan(folder, said)
    assert (second["a.bmp"], second["b.bmp"]) == (first["b.bmp"], first["a.bmp"])


def test_folders_that_changed_names_are_seen_though_no_time_of_a_file_is_another(tmp_path: Path, said: Said) -> None:
    folder, names = tmp_path / "photos", ["red/1.bmp", "blue/1.bmp"]
    for seed, name in enumerate(names):
        write(folder / name, seed)
        os.utime(folder / name, ns=(10**18, 10**18))
    first = scan(tmp_path, said, names)
    for old, new in (("red", "aside"), ("blue", "red"), ("aside", "blue")):
        (folder / old).rename(folder / new)
    second = scan(tmp_path, said, names)
    assert [second[name] for name in names] == [first[name] for name in reversed(names)]


def test_a_link_to_another_file_is_seen(folder: Path, said: Said) -> None:
    link = folder / "photos" / "link.bmp"
    times = (folder / "photos" / "a.bmp").stat().st_mtime_ns
    for name in ("a.bmp", "b.bmp"):
        os.utime(folder / "photos" / name, ns=(times, times))
    link.symlink_to("a.bmp")
    first = scan(folder, said, ["link.bmp"])
    link.unlink()
    link.symlink_to("b.bmp")
    assert scan(folder, said, ["link.bmp"]) != first


def test_what_is_read_again_but_has_the_same_content_is_not_decoded_again(
    folder: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scan(folder, said)
    for name in NAMES:
        os.utime(folder / "photos" / name)
    (folder / "photos" / "c.bmp").rename(folder / "photos" / "moved.bmp")
    monkeypatch.setattr(file_scan, "_size_of_sound", lambda _: pytest.fail("an image was decoded"))
    again = scan(folder, said, ["a.bmp", "b.bmp", "moved.bmp"])
    assert [again[name] for name in ("a.bmp", "b.bmp", "moved.bmp")] == [first[name] for name in NAMES]


def test_a_scan_that_is_interrupted_keeps_nothing_of_files_that_it_has_not_read(
    folder: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scan(folder, said)
    for seed, name in enumerate(NAMES):
        rewrite(folder / "photos" / name, picture(50 + seed))

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as pressed:
        pressed.setattr(file_scan, "record_of", press)
        with pytest.raises(KeyboardInterrupt):
            scan(folder, said)
    second = scan(folder, said)
    assert [name for name in NAMES if second[name] == first[name]] == []


def test_files_of_another_split_need_no_second_look(folder: Path, said: Said) -> None:
    for names in (NAMES, NAMES[:1], [*NAMES[:1], "new.bmp"], NAMES):
        write(folder / "photos" / "new.bmp", 7)
        scan(folder, said, names)
    assert [line.split(":")[0] for line in str(said).splitlines()] == ["looking at 3 files", "looking at 1 files"]
    (notes,) = (folder / "scratch" / "photos").iterdir()
    (folder / "photos" / "b.bmp").unlink()
    write(folder / "photos" / "a.bmp", 8)
    scan(folder, said, ["a.bmp"])
    assert "b.bmp" not in json.loads(notes.read_bytes())["files"], "what is gone is forgotten"


@pytest.mark.parametrize("sha256", [[], None, 5, {}])
def test_notes_with_a_hash_that_is_none_are_made_anew(folder: Path, said: Said, sha256: object) -> None:
    first = scan(folder, said)
    (notes,) = (folder / "scratch" / "photos").iterdir()
    document = json.loads(notes.read_bytes())
    document["files"]["a.bmp"][-1]["sha256"] = sha256
    notes.write_text(json.dumps(document))
    write(folder / "photos" / "b.bmp", 8)
    assert scan(folder, said)["a.bmp"] == first["a.bmp"]
