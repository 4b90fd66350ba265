"""Which images a person means."""

import os
import tarfile
from pathlib import Path

import fsspec
import pytest

from app.scoring.errors import ScoringError
from app.scoring.sources import find
from tests.support.checkpoints import png
from tests.support.memory_store import memory_url
from tests.support.shard_files import archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.png", "a.JPG", "b/1.webp", "notes.txt", ".hidden.png", "__MACOSX/a.png", "b/.git/x.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(png())
    return tmp_path / "photos"


def names(*inputs: str | Path) -> list[str]:
    return [source.name for source in find(map(str, inputs)).sources]


def test_a_folder_means_its_images_however_deep_in_order(folder: Path) -> None:
    assert names(folder) == [f"{folder}/{name}" for name in ("a.JPG", "b/1.webp", "b/2.png")]
    assert find([str(folder)]).left_out == 1


def test_links_are_followed_and_a_folder_is_read_once(folder: Path, tmp_path: Path) -> None:
    (folder / "b" / "up").symlink_to(folder)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.png").touch()
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    assert len(names(folder)) == 4


def test_a_file_is_itself_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(png())
    assert names(tmp_path / "picture") == [f"{tmp_path}/picture"]


def test_a_list_names_files_from_its_own_folder_on(folder: Path) -> None:
    (folder / "list.txt").write_text("\ufeffa.JPG\r\n\n \nb/2.png\n/somewhere/else.png\nmissing.png\nx\u2028\x85 .png")
    found = find([str(folder / "list.txt")]).sources
    assert [source.name for source in found] == [
        "a.JPG",
        "b/2.png",
        "/somewhere/else.png",
        "missing.png",
        "x\u2028\x85 .png",
    ]
    assert [source.place for source in found[:3]] == [f"{folder}/a.JPG", f"{folder}/b/2.png", "/somewhere/else.png"]


@pytest.mark.parametrize(("name", "separator"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_a_table_names_them_in_its_column_path(folder: Path, name: str, separator: str) -> None:
    (folder / name).write_text(separator.join(["label", "path"]) + "\n" + separator.join(["x", "b/2.png"]) + "\n")
    assert names(folder / name) == ["b/2.png"]
    (folder / name).write_text(separator.join(["label", "file"]) + "\n")
    with pytest.raises(ScoringError, match="has no column path; its columns are label, file"):
        find([str(folder / name)])


def test_a_tar_file_means_the_images_in_it(tmp_path: Path) -> None:
    path = archive(tmp_path / "data.tar", {"1.png": png(1), "1.cls": b"3", "x/2.png": png(2)})
    found = find([str(path)])
    assert [source.name for source in found.sources] == [f"{path}/1.png", f"{path}/x/2.png"]
    assert found.left_out == 1
    for source, image in zip(found.sources, (png(1), png(2)), strict=True):
        assert path.read_bytes()[source.offset :][: source.size] == image


def test_a_table_may_have_line_ends_in_its_cells_and_says_which_line_is_none(folder: Path) -> None:
    (folder / "rows.csv").write_text('path,label\n"a\nb.png",x\n"c\u2028d.png",y\n')
    assert names(folder / "rows.csv") == ["a\nb.png", "c\u2028d.png"]
    (folder / "rows.csv").write_text("path\n" + "x" * 200_000)
    with pytest.raises(ScoringError, match=r"is no table that can be read: field larger .*after line 1"):
        find([str(folder / "rows.csv")])


def test_links_in_a_tar_file_mean_what_they_lead_to_or_are_counted(tmp_path: Path) -> None:
    for name in ("1.png", "._1.png", "__MACOSX/z.png"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(png())
    (tmp_path / "p" / "2.png").hardlink_to(tmp_path / "p" / "1.png")
    (tmp_path / "p" / "3.png").symlink_to("1.png")
    with tarfile.open(tmp_path / "p.tar", "w") as tar:
        tar.add(tmp_path / "p", "p")
    found = find([str(tmp_path / "p.tar")])
    assert sorted(source.name.rpartition("/")[2] for source in found.sources) == ["1.png", "2.png"]
    assert len({source.offset for source in found.sources}) == 1
    assert found.left_out == 1


def test_a_tar_file_that_was_cut_off_in_its_only_image_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "data.tar", {"1.png": bytes(50_000)})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ScoringError, match=r"was cut off in 1\.png"):
        find([str(path)])


def test_a_tar_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "data.tar", {"1.png": png(1), "2.png": bytes(5000)})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ScoringError, match=r"was cut off in 2\.png|is no tar file that is whole"):
        find([str(path)])


@pytest.mark.parametrize("content", [b"junk" * 999, b"\x1f\x8b" + bytes(600)])
def test_what_is_no_tar_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.tar").write_bytes(content)
    with pytest.raises(ScoringError, match="is no tar file that is whole and not compressed"):
        find([str(tmp_path / "data.tar")])


def test_a_url_means_the_images_below_it() -> None:
    url = memory_url()
    for name in ("b.png", "x/a.jpg", "x/y/c.png", "x/notes.txt", ".hidden/a.png"):
        fsspec.filesystem("memory").pipe_file(f"{url}/{name}", png())
    found = find([url])
    assert [source.name for source in found.sources] == [f"{url}/{name}" for name in ("b.png", "x/a.jpg", "x/y/c.png")]
    assert found.left_out == 1


def test_an_image_that_is_named_twice_is_one(folder: Path) -> None:
    found = find([str(folder), str(folder / "a.JPG"), str(folder)])
    assert len(found.sources) == 3
    assert found.repeated == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [("nowhere", "nowhere is not there"), ("foo://bucket/x", "foo:// is no store"), ("s3://", "names no place|needs")],
)
def test_what_is_not_there_is_one_line(text: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScoringError, match=why):
        find([text])


def test_a_list_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScoringError, match="is not UTF-8"):
        find([str(tmp_path / "list.txt")])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_not_passed_over(folder: Path) -> None:
    (folder / "b").chmod(0)
    with pytest.raises(PermissionError):
        find([str(folder)])
