"""Files that were fetched from elsewhere, bounded in bytes, for several processes."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.lifecycle.cache import Cache


def writes(data: bytes, noted: list[bytes] | None = None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        if noted is not None:
            noted.append(data)
        path.write_bytes(data)

    return write


def used_ago(path: Path, seconds: float) -> None:
    before = path.stat().st_mtime - seconds
    os.utime(path, (before, before))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "not" / "there yet"


@pytest.fixture
def cache(folder: Path) -> Cache:
    return Cache(folder, max_bytes=100)


def test_a_file_is_made_once_and_found_afterwards(cache: Cache) -> None:
    made: list[bytes] = []
    assert cache.find("a") is None
    path = cache.fetch("a", 3, writes(b"abc", made))
    assert cache.fetch("a", 3, writes(b"xyz", made)) == path == cache.find("a") == cache.path_of("a")
    assert path.read_bytes() == b"abc"
    assert made == [b"abc"]


def test_a_small_file_is_replaced(cache: Cache) -> None:
    assert cache.read("a") is None
    cache.put("a", b"one")
    cache.put("a", b"two")
    assert cache.read("a") == b"two"


def test_what_was_used_longest_ago_leaves_for_what_needs_room(cache: Cache) -> None:
    for age, key in enumerate("abc"):
        used_ago(cache.fetch(key, 30, writes(bytes(30))), 100 - age)
    cache.find("a")  # which is used now
    cache.fetch("d", 30, writes(bytes(30)))
    assert [key for key in "abcd" if cache.path_of(key).exists()] == ["a", "c", "d"]


def test_all_together_never_have_more_bytes_than_they_may(cache: Cache, folder: Path) -> None:
    for number in range(50):
        cache.fetch(f"{number}", number, writes(bytes(number)))
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 100


def test_a_file_that_is_larger_than_the_cache_is_refused_and_nothing_leaves(cache: Cache) -> None:
    cache.fetch("a", 30, writes(bytes(30)))
    with pytest.raises(OSError, match="101 bytes do not fit into the cache of 100: give it more"):
        cache.fetch("b", 101, writes(bytes(101)))
    assert cache.find("a") is not None


def test_what_fails_leaves_nothing(cache: Cache, folder: Path) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        cache.fetch("a", 8, write)
    assert cache.find("a") is None
    assert list(folder.iterdir()) == []


def test_what_an_ended_process_left_half_written_leaves_after_an_hour(cache: Cache, folder: Path) -> None:
    cache.put("a", b"a")
    (folder / "b.1.part").write_bytes(bytes(10))
    (folder / "c.1.part").write_bytes(bytes(10))
    used_ago(folder / "b.1.part", 3601)
    cache.put("d", b"d")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c.1.part", "d"]


def test_two_that_want_the_same_file_make_it_once(folder: Path) -> None:
    made: list[bytes] = []
    begun, gate = threading.Event(), threading.Event()

    def write(path: Path) -> None:
        begun.set()
        gate.wait(30)
        writes(b"abc", made)(path)

    paths: list[Path] = []
    first = threading.Thread(target=lambda: paths.append(Cache(folder, max_bytes=100).fetch("a", 3, write)))
    second = threading.Thread(target=lambda: paths.append(Cache(folder, max_bytes=100).fetch("a", 3, write)))
    first.start()
    begun.wait(30)
    second.start()
    gate.set()
    first.join(30)
    second.join(30)
    assert made == [b"abc"]
    assert paths == [folder / "a", folder / "a"]
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_in_a_folder_that_may_only_be_read_what_is_there_is_found(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("a", b"a")

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refused)
    assert cache.read("a") == b"a"
