"""Cache: files of this machine that were fetched from elsewhere, bounded in bytes. Several processes may share it."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

# Whatever else lies in the folder is not ours.
_OURS = re.compile(r"[0-9a-f]{64}\.[a-z]+(\.[0-9a-f.]+\.part|\.lock)?")
_STALE_SECONDS = 3600.0  # so long after the last byte, whoever fetched it has ended
_LOCK_SECONDS = 60.0  # so long at most a process waits for another one that fetches the same file
_LOCK_PAUSE = 0.05


class Cache:
    """Holds files by a key each. Whatever was used longest ago leaves when there is no room.

    Args:
        folder: is made when something is put into it.
        max_bytes: of all files together. If the disk has less, the disk counts.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._room = 0  # so many bytes fit without another look at the folder

    def path_of(self, key: str) -> Path:
        """Returns where the file of this key lies, or would lie.

        Args:
            key: 64 hexadecimal digits, a dot, and a word.
        """
        return self._folder / key

    def find(self, key: str) -> Path | None:
        """Returns the file of this key, and notes that it is used; None where there is none."""
        path = self.path_of(key)
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError:  # a folder that may only be read
            return path if path.is_file() else None
        return path

    def read(self, key: str) -> bytes | None:
        """Returns the content of a small file; None where there is none that can be read."""
        path = self.find(key)
        with contextlib.suppress(OSError):
            return None if path is None else path.read_bytes()
        return None

    def put(self, key: str, data: bytes) -> None:
        """Makes a small file, or replaces it. Raises: OSError, which names the folder."""
        with self._named():
            self._make(key, len(data), lambda path: path.write_bytes(data))

    def remove(self, key: str) -> None:
        """Removes a file, if it is there and may be removed."""
        with contextlib.suppress(OSError):
            self.path_of(key).unlink()

    def fetch(self, key: str, size: int, write: Callable[[Path], object]) -> Path:
        """Returns the file of this key. Where there is none, `write` makes it.

        A second process that wants the same file waits for the first one.

        Args:
            size: of the file, in bytes.
            write: fills the file at a path that it is given. If it raises, there is no file.

        Raises: OSError, where there is no room, or where the folder cannot be used; what `write` raises.
        """
        found = self.find(key)
        if found is not None:
            return found
        with self._locked(key):
            found = self.find(key)
            if found is not None:
                return found
            for left in self._folder.glob(f"{key}.*.part"):  # by a process that was killed
                left.unlink(missing_ok=True)
            return self._make(key, size, write)

    def _make(self, key: str, size: int, write: Callable[[Path], object]) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        if size > self._room:
            self._make_room(size)
        self._room -= size
        path = self.path_of(key)
        part = path.with_name(f"{key}.{os.getpid():x}.{secrets.token_hex(4)}.part")
        try:
            write(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _make_room(self, size: int) -> None:
        """Removes what was used longest ago, until so many bytes fit. Raises: OSError, if they do not."""
        if size > self._max_bytes:
            raise OSError(errno.EFBIG, f"{size:,} bytes do not fit into the cache of {self._max_bytes:,} (--cache-gb)")
        files = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                        files.append((entry.stat(follow_symlinks=False), Path(entry.path)))
        total = sum(info.st_size for info, _ in files)
        room = min(self._max_bytes - total, shutil.disk_usage(self._folder).free)
        for info, path in sorted(files, key=lambda each: each[0].st_mtime_ns):
            is_stale = time.time() - info.st_mtime > _STALE_SECONDS
            if is_stale if path.suffix in (".part", ".lock") else room < size:
                path.unlink(missing_ok=True)
                room += info.st_size
        if room < size:
            raise OSError(errno.ENOSPC, f"{size:,} bytes do not fit beside what is on its way into the cache")
        self._room = size + (room - size) // 2  # others may write, too

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Lets one process after the other do what it does for this key."""
        path = self.path_of(f"{key}.lock")
        with self._named():
            self._folder.mkdir(parents=True, exist_ok=True)
            end = time.monotonic() + _LOCK_SECONDS
            while (lock := _lock(path)) is None:
                if time.monotonic() > end:
                    raise OSError(errno.EAGAIN, "another process has been fetching the same file for long")
                time.sleep(_LOCK_PAUSE)
        with lock:
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Lets an error say that it is one of the cache, and not of the store."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, f"the cache {self._folder}: {error.strerror or error}") from error


def _lock(path: Path) -> BinaryIO | None:
    """Locks a file until it is closed. Returns None where somebody else has it, or has just removed it."""
    file = path.open("wb")
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    file.close()
    return None
