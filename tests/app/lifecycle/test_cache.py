"""Files that were fetched from elsewhere, bounded in bytes, for several processes."""

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.lifecycle.cache import Cache
from tests.support.raw import PATIENCE


def key(name: str) -> str:
    return f"{hashlib.sha256(name.encode()).hexdigest()}.safetensors"


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
    assert cache.find(key("a")) is None
    path = cache.fetch(key("a"), 3, writes(b"abc", made))
    assert cache.fetch(key("a"), 3, writes(b"xyz", made)) == path == cache.find(key("a")) == cache.path_of(key("a"))
    assert path.read_bytes() == b"abc"
    assert made == [b"abc"]


def test_a_small_file_is_replaced(cache: Cache) -> None:
    assert cache.read(key("a")) is None
    cache.put(key("a"), b"one")
    cache.put(key("a"), b"two")
    assert cache.read(key("a")) == b"two"


def test_what_was_used_longest_ago_leaves_for_what_needs_room(cache: Cache) -> None:
    for age, name in enumerate("abc"):
        used_ago(cache.fetch(key(name), 30, writes(bytes(30))), 100 - age)
    cache.find(key("a"))  # which is used now
    cache.fetch(key("d"), 30, writes(bytes(30)))
    assert [name for name in "abcd" if cache.path_of(key(name)).exists()] == ["a", "c", "d"]


def test_all_together_never_have_more_bytes_than_they_may(cache: Cache, folder: Path) -> None:
    for number in range(50):
        cache.fetch(key(f"{number}"), number, writes(bytes(number)))
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 100


def test_a_file_that_is_larger_than_the_cache_is_refused_and_nothing_leaves(cache: Cache) -> None:
    cache.fetch(key("a"), 30, writes(bytes(30)))
    with pytest.raises(OSError, match=r"101 bytes do not fit into the cache of 100 \(--cache-gb\)"):
        cache.fetch(key("b"), 101, writes(bytes(101)))
    assert cache.find(key("a")) is not None


def test_what_fails_leaves_nothing(cache: Cache, folder: Path) -> None:
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        cache.fetch(key("a"), 8, write)
    assert cache.find(key("a")) is None
    assert list(folder.iterdir()) == []


def test_what_an_ended_process_left_half_written_leaves_after_an_hour(cache: Cache, folder: Path) -> None:
    cache.put(key("a"), b"a")
    old, new = (folder / f"{key(name)}.1f.0a.part" for name in "bc")
    for part in (old, new):
        part.write_bytes(bytes(10))
    used_ago(old, 3601)
    cache.put(key("d"), bytes(80))
    assert set(folder.iterdir()) == {folder / key("a"), new, folder / key("d")}


def test_what_was_left_of_a_file_leaves_when_the_file_is_fetched_anew(cache: Cache, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{key('a')}.1f.0a.part").write_bytes(bytes(90))
    cache.fetch(key("a"), 60, writes(bytes(60)))
    assert list(folder.iterdir()) == [folder / key("a")]


def test_what_is_on_its_way_counts_and_what_does_not_fit_beside_it_is_refused(cache: Cache, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{key('b')}.1f.0a.part").write_bytes(bytes(90))
    with pytest.raises(OSError, match="do not fit beside what is on its way"):
        cache.fetch(key("a"), 60, writes(bytes(60)))


def test_what_lies_in_the_folder_and_is_not_of_the_cache_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=100)
    (tmp_path / "folder").mkdir()
    for name in ("uv.lock", "film.part", "thesis.doc", f"{'a' * 64}.safetensors.bak"):
        (tmp_path / name).write_bytes(bytes(1000))
        used_ago(tmp_path / name, 10_000)
    before = set(tmp_path.iterdir())
    cache.fetch(key("a"), 60, writes(bytes(60)))
    cache.fetch(key("b"), 60, writes(bytes(60)))
    assert set(tmp_path.iterdir()) == before | {cache.path_of(key("b"))}


def test_where_the_disk_has_less_room_than_the_cache_may_have_the_disk_counts(
    cache: Cache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used_ago(cache.fetch(key("a"), 30, writes(bytes(30))), 100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    Cache(folder, max_bytes=100).fetch(key("b"), 35, writes(bytes(35)))
    assert cache.find(key("a")) is None


def test_two_that_want_the_same_file_make_it_once(folder: Path) -> None:
    made: list[bytes] = []
    begun, gate = threading.Event(), threading.Event()

    def write(path: Path) -> None:
        begun.set()
        gate.wait(30)
        writes(b"abc", made)(path)

    paths: list[Path] = []
    first = threading.Thread(target=lambda: paths.append(Cache(folder, max_bytes=100).fetch(key("a"), 3, write)))
    second = threading.Thread(target=lambda: paths.append(Cache(folder, max_bytes=100).fetch(key("a"), 3, write)))
    first.start()
    begun.wait(30)
    second.start()
    gate.set()
    first.join(30)
    second.join(30)
    assert made == [b"abc"]
    assert paths == [folder / key("a")] * 2
    assert [path.name for path in folder.iterdir()] == [key("a")]


def test_in_a_folder_that_may_only_be_read_what_is_there_is_found(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(key("a"), b"a")

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refused)
    monkeypatch.setattr("app.lifecycle.cache._lock", refused)
    assert cache.read(key("a")) == b"a"
    assert cache.fetch(key("a"), 1, writes(b"x")) == cache.path_of(key("a"))


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "cache", max_bytes=100)
    with pytest.raises(OSError, match=r"the cache /.*/file/cache: Not a directory"):
        cache.fetch(key("a"), 3, writes(b"abc"))
    with pytest.raises(OSError, match=r"the cache /.*/file/cache: Not a directory"):
        cache.put(key("a"), b"abc")


def test_of_many_that_want_the_same_file_one_at_a_time_makes_it(folder: Path) -> None:
    inside, most, made = threading.Semaphore(1), [0], list[bytes]()

    def write(path: Path) -> None:
        assert inside.acquire(blocking=False)
        most[0] += 1
        inside.release()
        if most[0] < 3:
            raise OSError("the network is gone")
        writes(b"abc", made)(path)

    def want() -> None:
        with contextlib.suppress(OSError):
            Cache(folder, max_bytes=100).fetch(key("a"), 3, write)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert made == [b"abc"]
    assert most == [3]


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(
    cache: Cache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits has opened the file that the first one removes; the next one locks another file of that name."""
    flock, locked = fcntl.flock, list[int]()

    def removed_once(file: Any, how: int) -> None:
        flock(file, how)
        if not locked:
            (path,) = folder.glob("*.lock")
            path.rename(folder / "removed")
            path.touch()
        locked.append(how)

    monkeypatch.setattr(fcntl, "flock", removed_once)
    cache.fetch(key("a"), 3, writes(b"abc"))
    assert len(locked) == 2
