"""Finds shards behind a URL, and reads them: again where the network fails, and never another one than before."""

import fnmatch
import functools
import glob
import hashlib
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from classifier import atomic_files
from classifier.progress import Progress
from classifier.store.remote import RemoteStore, http_status
from training.data.folder_names import shown
from training.data.shard_pattern import matching
from training.errors import TrainingError

T = TypeVar("T")

PIECE = 1 << 24  # bytes that are asked for at once
_WAITS = (1.0, 4.0, 16.0, 60.0, 120.0)  # seconds, before it is tried again


@dataclass(frozen=True, slots=True)
class RemoteShard:
    """Is an object that holds samples.

    Args:
        size: in bytes.
        key: another one whenever the object is.
    """

    store: RemoteStore
    name: str
    size: int
    key: str

    @property
    def url(self) -> str:
        """Where it is."""
        return self.store.url_of(self.name)

    @property
    def called(self) -> str:
        """Where it is, for messages."""
        return shown(self.url)

    @property
    def file_name(self) -> str:
        """What it is called on this machine, where a person may read it."""
        stem = self.name.removesuffix(".tar")
        return f"{self.key[:16]}-{stem}" if re.fullmatch(r"[\w.-]{1,100}", stem, re.ASCII) else self.key[:16]


def found(pattern: str, progress: Progress) -> list[RemoteShard]:
    """Returns the objects that a pattern of URLs means, by their URLs.

    Args:
        pattern: as in `shard_pattern.matching`; `*`, `?` and `[...]` may stand in the name, not in the folder.

    Raises: TrainingError if one of them is not there, or if the store cannot be asked for some minutes.
    """
    folders: dict[str, dict[str, RemoteShard]] = {}

    def find(text: str) -> list[RemoteShard]:
        folder, _, name = text.rpartition("/")
        if glob.has_magic(folder):
            raise TrainingError(f"{text}: of a URL only the last part may hold *, ? or [...]")
        if folder not in folders:
            folders[folder] = _listed(folder, progress)
        there = folders[folder]
        if not glob.has_magic(name):
            return [there[name]] if name in there else []
        # What begins with a dot is hidden, as for files.
        visible = [each for each in there if each.startswith(".") <= name.startswith(".")]
        return [there[each] for each in sorted(fnmatch.filter(visible, name))]

    return sorted(matching(pattern, find), key=lambda shard: shard.url)


def _listed(folder: str, progress: Progress) -> dict[str, RemoteShard]:
    store = RemoteStore(folder)
    try:
        entries = patiently(store.entries, progress, threading.Event())
    except FileNotFoundError:
        return {}
    return {
        each.name: RemoteShard(
            store,
            each.name,
            each.size,
            hashlib.sha256(f"{store.url_of(each.name)}\0{each.size}\0{each.stamp}".encode()).hexdigest(),
        )
        for each in entries
        if not each.is_folder
    }


class Reader:
    """Reads shards. Its methods may be called by several threads.

    Args:
        progress: is told when something must be tried again.
        forget: is called with a shard that is not what it was: what was found out about it does not hold.
    """

    def __init__(self, progress: Progress, forget: Callable[[RemoteShard], None]) -> None:
        self.hashes: dict[RemoteShard, str] = {}  # what each is known to have
        self._progress = progress
        self._forget = forget

    def fetch(self, shard: RemoteShard, path: Path, stop: threading.Event) -> None:
        """Writes a shard to `path`. Raises: TrainingError if it is not what it was."""
        sha256 = hashlib.sha256()
        with atomic_files.temporary(path) as beside:
            with beside.open("wb") as file:
                for start in range(0, shard.size, PIECE):
                    piece = self.read(shard, start, min(start + PIECE, shard.size), stop)
                    sha256.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            if self.hashes.setdefault(shard, sha256.hexdigest()) != sha256.hexdigest():
                raise self.changed(shard)
            beside.replace(path)

    def read(self, shard: RemoteShard, start: int, end: int, stop: threading.Event) -> bytes:
        """Reads a part of a shard. Raises: TrainingError if it is not what it was, or cannot be reached for minutes."""
        try:
            piece = patiently(
                functools.partial(shard.store.read, shard.name, start=start, end=end), self._progress, stop
            )
        except FileNotFoundError as error:
            raise TrainingError(f"{shard.called} is not there any more") from error
        except _OutOfRangeError as error:
            raise self.changed(shard) from error
        if len(piece) != end - start:
            raise self.changed(shard)
        return piece

    def changed(self, shard: RemoteShard) -> TrainingError:
        """Returns the error of a shard that is not what it was, and forgets what was found out about it."""
        self._forget(shard)
        return TrainingError(f"{shard.called} is not what it was when it was looked at: start again, without --resume")


class _OutOfRangeError(Exception):
    """An object has become shorter than what is asked of it."""


def patiently(ask: Callable[[], T], progress: Progress, stop: threading.Event) -> T:
    """Asks a store, for some minutes again where it does not answer.

    Raises: FileNotFoundError; TrainingError, if it refuses, if it does not answer, or if `stop` is set.
    """
    for wait in (*_WAITS, None):
        if stop.is_set():
            raise TrainingError("nobody waits for it any more")
        try:
            return ask()
        except FileNotFoundError:
            raise
        except OSError as error:
            status = http_status(error)
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise _OutOfRangeError from error
            if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) or isinstance(
                error.__cause__, PermissionError
            ):
                raise TrainingError(f"{shown(str(error))}; start again when it may be read") from error
            if wait is None:
                raise TrainingError(
                    f"{shown(str(error))}; once it can be reached, start again, with --resume if training had begun"
                ) from error
            if not stop.is_set():
                progress.say(f"{shown(str(error))}: trying again in {wait:.0f} s")
            stop.wait(wait)
    raise AssertionError("the last try returns or raises")
