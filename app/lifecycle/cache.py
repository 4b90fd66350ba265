"""Cache: files of this machine that were fetched from elsewhere, bounded in bytes. Several processes may share it."""

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PART = ".part"  # the end of the name of what is on its way
_LOCK = ".lock"
_STALE_SECONDS = 3600.0  # so long after the last byte, whoever fetched it has ended


class Cache:
    """Holds files by a key each. Whatever was used longest ago leaves when there is no room.

    Args:
        folder: is made when something is put into it.
        max_bytes: of all files together.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def path_of(self, key: str) -> Path:
        """Returns where the file of this key lies, or would lie."""
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
        """Makes a small file, or replaces it. Raises: OSError."""
        self._make(key, len(data), lambda path: _write(path, data))

    def fetch(self, key: str, size: int, write: Callable[[Path], None]) -> Path:
        """Returns the file of this key. Where there is none, `write` makes it.

        A second process that wants the same file waits for the first one.

        Args:
            size: of the file, in bytes.
            write: fills the file at a path that it is given. If it raises, there is no file.

        Raises: OSError, where there is no room; what `write` raises.
        """
        with self._locked(key):
            found = self.find(key)
            return self._make(key, size, write) if found is None else found

    def _make(self, key: str, size: int, write: Callable[[Path], None]) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room(size)
        path = self.path_of(key)
        part = path.with_name(f"{key}.{os.getpid()}.{secrets.token_hex(4)}{_PART}")
        try:
            write(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _make_room(self, size: int) -> None:
        """Removes what was used longest ago, until so many bytes fit."""
        if size > self._max_bytes:
            reason = f"{size:,} bytes do not fit into the cache of {self._max_bytes:,}: give it more (cache_bytes)"
            raise OSError(errno.EFBIG, reason, str(self._folder))
        files = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    files.append((entry.stat(), entry))
        free = self._max_bytes - size - sum(info.st_size for info, _ in files)
        for info, entry in sorted(files, key=lambda each: each[0].st_mtime_ns):
            is_stale = time.time() - info.st_mtime > _STALE_SECONDS
            leaves = is_stale if entry.name.endswith((_PART, _LOCK)) else free < 0
            if leaves:
                Path(entry.path).unlink(missing_ok=True)
                free += info.st_size

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Lets one process after the other do what it does for this key."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self.path_of(f"{key}{_LOCK}")
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
