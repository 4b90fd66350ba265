"""Finds shards behind a URL, and reads them: again where the network fails, and never another one than before."""

import fnmatch
import glob
import hashlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from classifier import atomic_files
from classifier.progress import Progress
from classifier.store.remote import RemoteStore
from training.data.shard_pattern import matching
from training.errors import TrainingError

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
    def file_name(self) -> str:
        """What it is called on this machine, where a person may read it."""
        stem = self.name.removesuffix(".tar")
        return f"{self.key[:16]}-{stem}" if re.fullmatch(r"[\w.-]{1,100}", stem) else self.key[:16]


def found(pattern: str) -> list[RemoteShard]:
    """Returns the objects that a pattern of URLs means, by their URLs.

    Args:
        pattern: as in `shard_pattern.matching`; `*`, `?` and `[...]` may stand in the name, not in the folder.

    Raises: TrainingError if one of them is not there; StoreError if the store cannot be asked.
    """
    folders: dict[str, dict[str, RemoteShard]] = {}

    def find(text: str) -> list[RemoteShard]:
        folder, _, name = text.rpartition("/")
        if glob.has_magic(folder):
            raise TrainingError(f"{text}: of a URL only the last part may hold *, ? or [...]")
        if folder not in folders:
            folders[folder] = _listed(folder)
        there = folders[folder]
        names = sorted(fnmatch.filter(there, name)) if glob.has_magic(name) else [name] if name in there else []
        return [there[each] for each in names]

    return sorted(matching(pattern, find), key=lambda shard: shard.url)


def _listed(folder: str) -> dict[str, RemoteShard]:
    store = RemoteStore(folder)
    try:
        entries = store.entries()
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
    """

    def __init__(self, progress: Progress) -> None:
        self.hashes: dict[RemoteShard, str] = {}  # what each is known to have
        self._progress = progress

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
                raise changed(shard)
            beside.replace(path)

    def read(self, shard: RemoteShard, start: int, end: int, stop: threading.Event) -> bytes:
        """Reads a part of a shard, and tries for a few minutes. Raises: TrainingError."""
        for wait in (*_WAITS, None):
            if stop.is_set():
                raise TrainingError(f"{shard.url}: nobody waits for it any more")
            try:
                piece = shard.store.read(shard.name, start=start, end=end)
            except FileNotFoundError as error:
                raise TrainingError(f"{shard.url} is not there any more") from error
            except OSError as error:
                if wait is None:
                    raise TrainingError(
                        f"{error}; once it can be reached, start again, with --resume if training had begun"
                    ) from error
                self._progress.say(f"{error}: trying again in {wait:.0f} s")
                stop.wait(wait)
            else:
                if len(piece) != end - start:
                    raise changed(shard)
                return piece
        raise AssertionError("the last try returns or raises")


def changed(shard: RemoteShard) -> TrainingError:
    """Returns the error of a shard that is another one than before."""
    return TrainingError(f"{shard.url} is not what it was when it was looked at: start again, without --resume")
