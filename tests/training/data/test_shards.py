"""Shards: which files a pattern means, which samples are in them, and what is wrong with one."""

import functools
import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.photo_files import write
from tests.support.runs import Said
from tests.support.shard_files import archive, samples
from training.data import shards
from training.data.dataset import Dataset, name_of
from training.errors import TrainingError
from training.recipes.builtin import builtin

RECIPE = builtin("shards").replace(held_out=0.25)
Load = Callable[..., Dataset]


@pytest.fixture
def load(load_files: Load) -> Load:
    return functools.partial(load_files, RECIPE)


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[int], bytes]:
    return lambda seed: write(tmp_path / "one.jpg", seed=seed).read_bytes()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a-{000..002}.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("{b,a}-000.tar", ["b-000.tar", "a-000.tar"]),
        ("{a,b}-00{0..1}.tar", ["a-000.tar", "a-001.tar", "b-000.tar", "b-001.tar"]),
        ("a-*.tar", ["a-000.tar", "a-001.tar", "a-002.tar"]),
        ("a-001.tar", ["a-001.tar"]),
        ("{a,*}-000.tar", ["a-000.tar", "b-000.tar"]),
    ],
)
def test_a_pattern_means_files_in_its_order_and_each_once(tmp_path: Path, pattern: str, names: list[str]) -> None:
    for name in ("a-000.tar", "a-001.tar", "a-002.tar", "b-000.tar", "b-001.tar"):
        (tmp_path / name).touch()
    assert [path.name for path in shards.paths_of(tmp_path / pattern)] == names


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a-000.tar").touch()
    with pytest.raises(TrainingError, match="means no shard: is the first number larger than the last"):
        shards.paths_of(tmp_path / "a-{9..0}.tar")
    for pattern in ("a-{000..001}.tar", "b-*.tar", "nothing"):
        with pytest.raises(TrainingError, match=r"there is no such shard .*put the pattern into quotes"):
            shards.paths_of(tmp_path / pattern)
    with pytest.raises(TrainingError, match="no such shard"):
        shards.paths_of(tmp_path / "a-{000..99999999}.tar")


def test_images_are_read_from_their_places_in_any_order(
    load: Load, tmp_path: Path, photo: Callable[[int], bytes]
) -> None:
    for i in range(3):
        archive(tmp_path / "birds" / f"data-{i:03}.tar", samples(photo, 4 * i, 4))
    dataset = load(tmp_path / "birds" / "data-{000..002}.tar")
    assert dataset.labels == ("9", "10")  # in the order of numbers
    assert dataset.name == "birds"
    assert len(dataset.train) + len(dataset.held_out) + len(dataset.test) == 12
    for split in (dataset.train, dataset.held_out, dataset.test):
        rows = torch.randperm(len(split))
        ((images, targets),) = split.batches([rows], device=torch.device("cpu"))
        for image, target, row in zip(images, targets, rows.tolist(), strict=True):
            member = split.pictures[split.rows[row]]  # type: ignore[attr-defined]
            number = int(member.name.partition(".")[0])
            path = write(tmp_path / "same.jpg", seed=number)
            assert np.array_equal(image.numpy(), RECIPE.preprocess.to_pixels(Image.open(path)))
            assert int(target) == (number % 3 == 0)


def test_shards_that_are_called_like_splits_are_splits(
    load: Load, tmp_path: Path, photo: Callable[[int], bytes], said: Said
) -> None:
    for split, first, count in (("train", 0, 9), ("val", 9, 6), ("test", 15, 3)):
        archive(tmp_path / f"{split}-000.tar", samples(photo, first, count))
    pattern = tmp_path / "{train,val,test}-000.tar"
    dataset = load(pattern)
    assert (len(dataset.train) + len(dataset.held_out), len(dataset.test)) == (9, 6)
    assert "left out: 3 samples in shards that are called like test" in str(said)
    assert len(load(pattern, measure="test").test) == 3
    with pytest.raises(TrainingError, match="has no shards that are called like test"):
        load(tmp_path / "{train,val}-000.tar", measure="test")


def test_what_was_scanned_is_known_again_until_the_shard_changes(
    load: Load, tmp_path: Path, photo: Callable[[int], bytes], said: Said
) -> None:
    path = archive(tmp_path / "data.tar", samples(photo, 0, 9))
    first = load(path)
    assert str(said).count("looking at") == 1
    assert load(path).fingerprint == first.fingerprint
    assert str(said).count("looking at") == 1
    assert first.unchanged()
    archive(path, samples(photo, 0, 8) | {"00008.jpg": photo(99), "00008.cls": b"9"})
    assert not first.unchanged()
    assert load(path).fingerprint != first.fingerprint


def test_the_fingerprint_covers_the_classes(load: Load, tmp_path: Path, photo: Callable[[int], bytes]) -> None:
    files = samples(photo, 0, 9)
    first = load(archive(tmp_path / "data.tar", files)).fingerprint
    assert load(archive(tmp_path / "data.tar", files | {"00001.cls": b"10"})).fingerprint != first


def test_a_damaged_image_is_named_and_left_out_or_refused(
    load: Load, tmp_path: Path, photo: Callable[[int], bytes], said: Said
) -> None:
    path = archive(tmp_path / "data.tar", samples(photo, 0, 9) | {"00001.jpg": b"no image"})
    assert len(load(path).skipped) == 1
    assert "skipped data.tar/00001.jpg: it is not a JPEG" in str(said)
    with pytest.raises(TrainingError, match=r"--strict, .*data\.tar/00001\.jpg"):
        load(path, strict=True)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "data.tar holds no image: leave the shard out"),
        ({"a.cls": b"1"}, "data.tar holds no image: leave the shard out"),
        ({"a.jpg": b"x"}, "a.jpg has no class: a file of the same name that ends in .cls is expected"),
        ({"a.jpg": b"x", "b.cls": b"1"}, "a.jpg has no class"),
        ({"a.jpg": b"x", "a.png": b"x", "a.cls": b"1"}, "a.png is a second image of the same sample"),
        ({"a.jpg": b"x", "a.cls": b" "}, "a.cls holds no class: a number or a word is expected"),
        ({"a.jpg": b"x", "a.cls": b"\xff\xfe"}, "a.cls holds no class: a number or a word is expected"),
        ({"a.jpg": b"x", "a.cls": b"1" * 300}, "a.cls has 300 bytes, which is no class"),
    ],
)
def test_what_is_wrong_in_a_shard_is_one_line(load: Load, tmp_path: Path, files: dict[str, bytes], why: str) -> None:
    with pytest.raises(TrainingError) as refused:
        load(archive(tmp_path / "data.tar", files))
    assert why in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_shard_that_was_cut_off_is_refused_wherever_it_was_cut(
    load: Load, tmp_path: Path, photo: Callable[[int], bytes]
) -> None:
    path = archive(tmp_path / "data.tar", {"a.jpg": photo(1), "a.cls": b"1", "b.jpg": photo(2), "b.cls": b"1"})
    whole = path.read_bytes()
    for length in range(0, len(whole.rstrip(b"\0")), 256):
        path.write_bytes(whole[:length])
        with pytest.raises(TrainingError, match=r"was cut off|is no tar file, or is damaged"):
            load(path)


def test_a_damaged_header_is_not_taken_for_the_end(load: Load, tmp_path: Path, photo: Callable[[int], bytes]) -> None:
    path = archive(tmp_path / "data.tar", samples(photo, 0, 4))
    with tarfile.open(path) as tar:
        places = [info.offset for info in tar]
    whole = path.read_bytes()
    for place in places:
        path.write_bytes(whole[: place + 150] + b"x" + whole[place + 151 :])  # in the check sum
        with pytest.raises(TrainingError, match="is damaged"):
            load(path)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(**values: str) -> bytes:
    info = tarfile.TarInfo("a.png")
    info.pax_headers = values
    return info.tobuf(tarfile.PAX_FORMAT)


HOSTILE = {
    "a size below 0": header("b.cls", 0) + header("c.cls", 0) + header("a.png", -1024),
    "a size below 0 of an unknown kind": header("b.cls", 0) + header("x", -512, b"Z"),
    "many headers of a header": b"".join(header("x", 512, tarfile.XHDTYPE) + bytes(512) for _ in range(3000)),
    "a map that is none": pax(**{"GNU.sparse.map": "abc"}),
    "a size that is none": pax(**{"GNU.sparse.size": "x", "GNU.sparse.map": "0,1"}),
    "a size beyond the end": header("a.png", 1 << 40) + b"x" * 2000,
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_one_line(load: Load, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.tar"
    path.write_bytes(content + bytes(10240))
    with pytest.raises(TrainingError) as refused:
        load(path)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
@pytest.mark.parametrize("name", ["a.png", "a.cls"])
def test_a_link_is_refused_by_its_name(load: Load, tmp_path: Path, kind: bytes, name: str) -> None:
    (tmp_path / "data.tar").write_bytes(header(name, 0, kind) + bytes(10240))
    with pytest.raises(TrainingError, match=rf"{name} is a link: write the shard with the files themselves"):
        load(tmp_path / "data.tar")


def test_a_file_with_holes_is_refused_by_its_name(load: Load, tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.png")
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40), "GNU.sparse.name": "a.png"}
    (tmp_path / "data.tar").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(10240))
    with pytest.raises(TrainingError, match=r"a\.png is stored with its holes left out"):
        load(tmp_path / "data.tar")


def test_classes_without_an_image_are_counted(
    load: Load, tmp_path: Path, photo: Callable[[int], bytes], said: Said
) -> None:
    load(archive(tmp_path / "data.tar", samples(photo, 0, 9) | {"x.cls": b"9", "y.cls": b"9"}))
    assert "left out: 2 files of a class without an image" in str(said)


def test_the_order_of_a_pattern_and_of_an_archive_changes_nothing(
    load: Load, tmp_path: Path, photo: Callable[[int], bytes]
) -> None:
    files = samples(photo, 0, 6)
    archive(tmp_path / "a.tar", files)
    archive(tmp_path / "b.tar", samples(photo, 6, 6))
    first = load(tmp_path / "{a,b}.tar")
    archive(tmp_path / "a.tar", dict(reversed(files.items())))
    other = load(tmp_path / "{b,a}.tar")
    assert first.fingerprint == other.fingerprint
    for part in ("train", "held_out", "test"):
        one, two = getattr(first, part), getattr(other, part)
        assert [one.pictures[row].name for row in one.rows] == [two.pictures[row].name for row in two.rows]


def test_a_compressed_shard_is_refused_with_what_to_do(
    load: Load, tmp_path: Path, photo: Callable[[int], bytes]
) -> None:
    path = archive(tmp_path / "data.tar", samples(photo, 0, 9))
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(TrainingError, match=r"is compressed: unpack it first, e\.g\. by gunzip"):
        load(path)
    path.write_bytes(b"no archive" * 99)
    with pytest.raises(TrainingError, match="is no tar file, or is damaged"):
        load(path)


def test_a_shard_that_becomes_shorter_while_it_is_used_is_one_line(
    load: Load, tmp_path: Path, photo: Callable[[int], bytes]
) -> None:
    path = archive(tmp_path / "data.tar", samples(photo, 0, 9))
    dataset = load(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(TrainingError, match=r"cannot be used: .*has become shorter; it could when training began"):
        list(dataset.train.batches([torch.arange(len(dataset.train))], device=torch.device("cpu")))


def test_a_data_set_of_shards_is_called_as_its_folder(tmp_path: Path) -> None:
    assert name_of(RECIPE, tmp_path / "birds" / "data-{00..15}.tar") == "birds"
