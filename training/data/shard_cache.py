"""Holds a part of some archives on this machine, bounded in bytes: those that are read now, and those that come next.

Who reads says beforehand which archives it will need in each of its turns. So an archive is fetched before its turn. If
there is no room, what leaves is what nobody will need, or what will be needed last.
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
from typing import TypeVar

T = TypeVar("T")

_FETCHED_AT_ONCE = 4  # one connection alone rarely gives what a network can
_SHARE_OF_DISK = 0.8  # what is taken of the free space, unless somebody says how much
_ARCHIVE = ".tar"
_LOOK_SECONDS = 0.5

# Writes an archive to a path, whole or not at all, and ends early once it is told that nobody waits any more.
Fetch = Callable[[Path, threading.Event], None]


class ShardCache:
    """Holds archives in a folder that is its own as long as this process lives.

    Use it from one thread only.

    Args:
        scratch: the folder is one of those in `<scratch>/shards`, which this process holds alone.
        max_bytes: of all archives together, and of what is reserved; None: four fifths of what is free on the disk.
        sharers: among so many processes that is shared out evenly.

    Raises: OSError if the folder cannot be made.
    """

    def __init__(self, scratch: Path, *, max_bytes: int | None = None, sharers: int = 1) -> None:
        self.folder, lock = _folder_of_its_own(scratch / "shards")
        self.close = weakref.finalize(self, os.close, lock)  # another process may have the folder then
        for left in self.folder.glob(".*.tmp"):  # of a process that was killed
            left.unlink(missing_ok=True)
        there = sum(path.stat().st_size for path in self.folder.iterdir())
        self._sizes = {path: path.stat().st_size for path in sorted(self.folder.glob(f"*{_ARCHIVE}"))}
        self._used = sum(self._sizes.values())
        free = shutil.disk_usage(self.folder).free + there
        self.max_bytes = (int(free * _SHARE_OF_DISK) if max_bytes is None else max_bytes) // sharers
        self._archives: Mapping[Path, tuple[int, Fetch]] = {}
        self._reserved = 0
        self._turn = threading.BoundedSemaphore(_FETCHED_AT_ONCE)
        self.reserve(0)

    def path_of(self, name: str) -> Path:
        """Returns where the archive of this name is, or will be."""
        return self.folder / f"{name}{_ARCHIVE}"

    def serve(self, archives: Mapping[Path, tuple[int, Fetch]]) -> None:
        """Says how many bytes each archive has, and how it is fetched."""
        self._archives = archives

    def reserve(self, count: int) -> None:
        """Leaves room for so many bytes of something else."""
        self._reserved = count
        while self._used > max(0, self.room):
            self.drop(next(iter(self._sizes)))

    @property
    def room(self) -> int:
        """How many bytes the archives may have together."""
        return self.max_bytes - self._reserved

    @property
    def used(self) -> int:
        """How many bytes they have."""
        return self._used

    @property
    def held(self) -> Collection[Path]:
        """The archives that are here, or are fetched."""
        return self._sizes.keys()

    def size_of(self, path: Path) -> int:
        """Returns how many bytes an archive has, wherever it is."""
        return self._archives[path][0]

    def has(self, path: Path) -> bool:
        """Tells whether an archive is here, and whole."""
        try:
            return path.stat().st_size == self.size_of(path)
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

    def fetch(self, path: Path, stop: threading.Event) -> "Future[None]":
        """Begins to fetch an archive if it is not here, and returns what waits for it."""
        size, fetch = self._archives[path]
        here = self.has(path)
        self._used += size - self._sizes.pop(path, 0)
        self._sizes[path] = size
        if here:
            done: Future[None] = Future()
            done.set_result(None)
            return done
        return in_a_thread(functools.partial(self._fetch_in_turn, functools.partial(fetch, path, stop), stop))

    def drop(self, path: Path) -> None:
        """Lets an archive leave."""
        self._used -= self._sizes.pop(path)
        path.unlink(missing_ok=True)

    def _fetch_in_turn(self, fetch: Callable[[], None], stop: threading.Event) -> None:
        while not self._turn.acquire(timeout=_LOOK_SECONDS):
            if stop.is_set():
                return
        try:
            fetch()
        finally:
            self._turn.release()


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
        by_first_turn = dict.fromkeys(itertools.chain.from_iterable(turns))
        self._to_come = deque(by_first_turn)
        self._turns_left = Counter(itertools.chain.from_iterable(turns))
        self._begun: dict[Path, Future[None]] = {}  # until its last turn is over
        self._begun_bytes = 0
        self._fetching: set[Future[None]] = set()
        # What is here, in the order in which it leaves. What has begun meanwhile is passed over.
        unneeded = [path for path in cache.held if path not in by_first_turn]
        self._leaving = deque([*unneeded, *(path for path in reversed(by_first_turn) if path in cache.held)])

    def is_here(self, turn: int) -> bool:
        """Tells whether a turn could begin without waiting."""
        return all(path in self._begun and self._begun[path].done() for path in self._turns[turn])

    def enter(self, turn: int) -> None:
        """Waits until the archives of a turn are here, however little room there is.

        Raises: what fetching one raises.
        """
        for path in self._turns[turn]:
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
                self._begun_bytes -= self._cache.size_of(path)
                self._leaving.appendleft(path)
        self._look_ahead()

    def _look_ahead(self) -> None:
        """Begins to fetch what comes next, as far as there is room beside what is in use."""
        self._fetching = {each for each in self._fetching if not each.done()}
        while self._to_come and len(self._fetching) < _FETCHED_AT_ONCE:
            path = self._to_come[0]
            if path not in self._begun and self._turns_left[path]:
                if self._begun_bytes + self._cache.size_of(path) > self._cache.room:
                    return
                self._begin(path)
            self._to_come.popleft()

    def _begin(self, path: Path) -> None:
        if path in self._begun:
            return
        size = self._cache.size_of(path)
        self._begun_bytes += size
        new = 0 if path in self._cache.held else size
        while self._leaving and self._cache.used + new > self._cache.room:
            other = self._leaving.popleft()
            if other != path and other not in self._begun and other in self._cache.held:
                self._cache.drop(other)
        fetching = self._begun[path] = self._cache.fetch(path, self._stop)
        if not fetching.done():
            self._fetching.add(fetching)


def in_a_thread(work: Callable[[], T]) -> "Future[T]":
    """Begins work in a thread that no process waits for when it ends."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            outcome = work()
        except BaseException as error:  # noqa: BLE001  it is for whoever waits
            future.set_exception(error)
        else:
            future.set_result(outcome)

    threading.Thread(target=run, name="fetch", daemon=True).start()
    return future


def _folder_of_its_own(parent: Path) -> tuple[Path, int]:
    """Returns a folder that no other process holds, and the descriptor that holds it.

    What lies in others that nobody holds is removed: it was left when several processes were at work.
    """
    ours: tuple[Path, int] | None = None
    for number in itertools.count():
        folder = parent / str(number)
        if ours is not None and not folder.is_dir():
            return ours
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if ours is None:
            ours = folder, lock
            continue
        for left in folder.iterdir():
            if left.name != ".lock":
                left.unlink(missing_ok=True)
        os.close(lock)
    raise AssertionError("there is always another number")
