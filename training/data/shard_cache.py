"""Holds a part of some archives on this machine, bounded in bytes: those that are read now, and those that come next.

Who reads says beforehand which archives it will need in each of its turns. So an archive is fetched before its turn,
and leaves after its last one, when there is no room for the next.
"""

import fcntl
import functools
import itertools
import os
import shutil
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

_FETCHED_AT_ONCE = 4  # one connection alone rarely gives what a network can
_SHARE_OF_DISK = 0.8  # what is taken of the free space, unless somebody says how much
_ARCHIVE = ".tar"

# Writes an archive to a path, whole or not at all, and ends early once it is told that nobody waits any more.
Fetch = Callable[[Path, threading.Event], None]


class ShardCache:
    """Holds archives in a folder that is its own as long as this process lives.

    Use it from one thread only.

    Args:
        scratch: the folder is one of those in `<scratch>/shards`, which this process holds alone.
        max_bytes: of all archives together; None: four fifths of what is free on the disk.

    Raises: OSError if the folder cannot be made.
    """

    def __init__(self, scratch: Path, *, max_bytes: int | None = None) -> None:
        self.folder, lock = _folder_of_its_own(scratch / "shards")
        self.close = weakref.finalize(self, os.close, lock)  # another process may have the folder then
        for left in self.folder.glob(".*.tmp"):  # of a process that was killed
            left.unlink(missing_ok=True)
        # Whatever is used moves to the end; the first leaves first.
        self._held = {path: path.stat().st_size for path in sorted(self.folder.glob(f"*{_ARCHIVE}"))}
        free = shutil.disk_usage(self.folder).free + sum(self._held.values())
        self.max_bytes = int(free * _SHARE_OF_DISK) if max_bytes is None else max_bytes
        self._archives: Mapping[Path, tuple[int, Fetch]] = {}
        self._reserved = 0

    def path_of(self, name: str) -> Path:
        """Returns where the archive of this name is, or will be."""
        return self.folder / f"{name}{_ARCHIVE}"

    def serve(self, archives: Mapping[Path, tuple[int, Fetch]]) -> None:
        """Says how many bytes each archive has, and how it is fetched."""
        self._archives = archives

    def reserve(self, count: int) -> None:
        """Leaves room for so many bytes of something else."""
        self._reserved = count

    @property
    def room(self) -> int:
        """How many bytes the archives may have together."""
        return self.max_bytes - self._reserved

    def has(self, path: Path) -> bool:
        """Tells whether an archive is here, and whole."""
        try:
            return path.stat().st_size == self._archives[path][0]
        except FileNotFoundError:
            return False

    @contextmanager
    def window(self, turns: Sequence[Collection[Path]]) -> Iterator["Window"]:
        """Gives what lets a reader wait for its archives, turn by turn, while the next are fetched."""
        stop = threading.Event()
        try:
            yield Window(self, turns, stop)
        finally:
            stop.set()

    def begin(self, path: Path, keep: Collection[Path], stop: threading.Event) -> "Future[None]":
        """Begins to fetch an archive if it is not here, and returns what waits for it.

        Args:
            keep: archives that do not leave for it.
        """
        size, fetch = self._archives[path]
        self._held.pop(path, None)
        if self.has(path):
            self._held[path] = size
            here: Future[None] = Future()
            here.set_result(None)
            return here
        self._make_room(size, keep)
        self._held[path] = size
        return _in_a_thread(functools.partial(fetch, path, stop))

    def fits(self, path: Path, keep: Collection[Path]) -> bool:
        """Tells whether there is room for an archive beside those that stay."""
        if self.has(path):
            return True
        kept = sum(self._held.get(each, 0) for each in keep)
        return kept + self._archives[path][0] <= self.room

    def _make_room(self, size: int, keep: Collection[Path]) -> None:
        used = sum(self._held.values())
        for path in [path for path in self._held if path not in keep]:
            if used + size <= self.room:
                return
            used -= self._held.pop(path)
            path.unlink(missing_ok=True)


class Window:
    """Is the way of one reader through the archives, in turns that are counted from 0.

    Args:
        turns: the archives of each turn.
        stop: is set when the reader has left.
    """

    def __init__(self, cache: ShardCache, turns: Sequence[Collection[Path]], stop: threading.Event) -> None:
        self._cache = cache
        self._turns = turns
        self._stop = stop
        self._to_come = deque(dict.fromkeys(itertools.chain.from_iterable(turns)))  # by their first turns
        self._turns_left = Counter(itertools.chain.from_iterable(turns))
        self._begun: dict[Path, Future[None]] = {}  # until its last turn is over

    def enter(self, turn: int) -> None:
        """Waits until the archives of a turn are here. Raises: what fetching one raises."""
        for path in self._turns[turn]:  # however little room there is
            self._begin(path)
        self._look_ahead()
        for path in self._turns[turn]:
            self._begun[path].result()

    def leave(self, turn: int) -> None:
        """Says that a turn is over. Call it in the order of the turns."""
        for path in self._turns[turn]:
            self._turns_left[path] -= 1
            if not self._turns_left[path]:
                del self._begun[path]
        self._look_ahead()

    def _look_ahead(self) -> None:
        while self._to_come and sum(not each.done() for each in self._begun.values()) < _FETCHED_AT_ONCE:
            path = self._to_come[0]
            if path not in self._begun and self._turns_left[path]:
                if not self._cache.fits(path, self._begun):
                    return
                self._begin(path)
            self._to_come.popleft()

    def _begin(self, path: Path) -> None:
        if path not in self._begun:
            self._begun[path] = self._cache.begin(path, self._begun, self._stop)


def _in_a_thread(work: Callable[[], None]) -> "Future[None]":
    """Begins work in a thread that no process waits for when it ends."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  it is for whoever waits
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="fetch", daemon=True).start()
    return future


def _folder_of_its_own(parent: Path) -> tuple[Path, int]:
    """Returns a folder that no other process holds, and the descriptor that holds it."""
    for number in itertools.count():
        folder = parent / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return folder, lock
    raise AssertionError("there is always another number")
