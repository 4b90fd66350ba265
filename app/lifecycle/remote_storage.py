"""Storage behind a URL: what it holds is listed there, and fetched into a cache before it is loaded.

Listings and headers are kept in the cache as well. While the store cannot be reached, what was last seen of it counts,
also after a restart.
"""

import contextlib
import errno
import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from app.engine.model_info import PassedOver
from app.lifecycle.cache import Cache
from app.lifecycle.passed_over import Kind, in_model, is_silent
from app.lifecycle.storage import (
    ModelListing,
    Stamp,
    StoreListing,
    VersionFile,
    is_model_name,
    pieces,
    store_listing,
    unreadable,
    version_in,
)
from classifier.header import MAX_HEADER_BYTES, CheckpointError, Header
from classifier.store.remote import RemoteEntry, RemoteStore, StoreError

T = TypeVar("T")

_FIRST_BYTES = 1 << 16  # that are asked for at once; most headers are shorter
_ASKED_AGAIN_SECONDS = 1.0  # after it could not be reached: so a look does not wait for each model and each header


@dataclass(frozen=True, slots=True)
class RemoteStamp:
    """Says whether an object is still the same: its size, and what the store says changes with its content."""

    size: int
    stamp: str

    def is_renumbered(self, other: Stamp) -> bool:
        """Says whether the two are of the same content."""
        return self == other

    def is_touched(self, before: Stamp) -> bool:
        """Says whether the object was written since."""
        return self != before


@dataclass(frozen=True, slots=True)
class _Seen:
    """Is what a folder of the store holds, and why that is not sure now."""

    entries: Sequence[RemoteEntry]
    problem: str | None = None


class RemoteStorage:
    """A store behind a URL: `<url>/<model>/<version>.safetensors`."""

    def __init__(self, store: RemoteStore, cache: Cache) -> None:
        self._store = store
        self._cache = cache
        self._failure: tuple[float, StoreError] | None = None  # when the store could not be reached, if it was so last

    @property
    def name(self) -> str:
        return self._store.url

    def models(self) -> StoreListing:
        seen = self._entries()
        return store_listing([(entry.name, _kind(entry)) for entry in seen.entries], seen.problem)

    def versions(self, model: str, known: Mapping[int, VersionFile]) -> ModelListing | None:
        if not is_model_name(model):
            return None
        try:
            seen = self._entries(model)
        except FileNotFoundError:
            return None
        found: dict[int, VersionFile] = {}
        others = []
        for entry in seen.entries:
            version = version_in(entry.name, _kind(entry))
            if version is not None:
                file = self._file(model, version, entry, known)
                if file is not None:
                    found[version] = file
            elif not is_silent(entry.name):
                others.append((entry.name, _kind(entry)))
        passed_over = in_model(model, others, lambda _: [])
        if seen.problem is not None:
            passed_over = (PassedOver(model, f"it {seen.problem}"), *passed_over)
        return ModelListing({version: found[version] for version in sorted(found, reverse=True)}, passed_over)

    def read_whole(self, model: str, file: VersionFile) -> VersionFile:
        try:
            self.fetch(model, file)
        except CheckpointError as error:
            return VersionFile(file.version, file.path, file.fingerprint, file.header, str(error))
        except OSError as error:
            return unreadable(file.version, file.path, file.fingerprint, error)
        return file

    def fetch(self, model: str, file: VersionFile) -> Path:
        key = file.path.name
        found = self._cache.find(key)
        if found is not None:
            if _is_sound(found, file):
                return found
            self._cache.remove(key)  # the machine may have stopped while it was written

        def write(path: Path) -> None:
            self._store.fetch(model, f"{file.version}.safetensors", to=path, size=file.fingerprint.size)
            _check(path, file)

        return self._cache.fetch(key, file.fingerprint.size, write)

    def is_unchanged(self, file: VersionFile) -> bool:
        del file  # what was fetched bears its hash
        return True

    def _entries(self, *names: str) -> _Seen:
        """Lists a folder. Raises: FileNotFoundError; StoreError, where it cannot be asked and was never seen."""
        key = f"{_hash(self._store.url_of(*names))}.listing"
        try:
            entries = self._asked(lambda: self._store.entries(*names), in_any_case=not names)
        except FileNotFoundError:
            self._cache.remove(key)
            raise
        except StoreError as error:
            kept = _listed(self._cache.read(key))
            if kept is None:
                raise
            return _Seen(kept, f"cannot be read: {error}")
        data = json.dumps([asdict(entry) for entry in entries]).encode()
        if self._cache.read(key) != data:
            self._keep(key, data)
        return _Seen(entries)

    def _asked(self, ask: Callable[[], T], *, in_any_case: bool = False) -> T:
        """Asks the store, unless it could not be reached a moment ago. Raises: what `ask` raises."""
        failure = self._failure
        if not in_any_case and failure is not None and time.monotonic() - failure[0] < _ASKED_AGAIN_SECONDS:
            raise failure[1]
        try:
            answer = ask()
        except StoreError as error:
            if not isinstance(error.__cause__, PermissionError):  # what is refused says nothing of the rest
                self._failure = time.monotonic(), error
            raise
        self._failure = None
        return answer

    def _file(
        self, model: str, version: int, entry: RemoteEntry, known: Mapping[int, VersionFile]
    ) -> VersionFile | None:
        """Says what lies at a version; None where it has gone since it was listed."""
        stamp = RemoteStamp(entry.size, entry.stamp)
        before = known.get(version)
        if before is not None and before.still_holds(stamp):
            return before
        nowhere = self._cache.path_of("none")
        try:
            header = self._header(model, entry)
        except CheckpointError as error:
            return VersionFile(version, nowhere, stamp, None, str(error))
        except FileNotFoundError:
            return None
        except OSError as error:
            return unreadable(version, nowhere, stamp, error)
        except Exception as error:  # noqa: BLE001  no object, however odd, may end the server or stop what it serves
            reason = f"cannot be read: {type(error).__name__}: {error}"
            return VersionFile(version, nowhere, stamp, None, reason, transient=isinstance(error, MemoryError))
        return VersionFile(version, self._cache.path_of(_content_key(header)), stamp, header)

    def _header(self, model: str, entry: RemoteEntry) -> Header:
        """Returns the header of an object. It is kept if it is one. Raises: CheckpointError; OSError."""
        key = f"{_hash(self._store.url_of(model, entry.name), str(entry.size), entry.stamp)}.header"
        kept = self._cache.read(key)
        if kept is not None:
            with contextlib.suppress(CheckpointError):  # it was damaged here: it is read once more
                return Header.parse(io.BytesIO(kept), entry.size)
        end = min(_FIRST_BYTES, entry.size)
        data = self._read(model, entry, 0, end)
        needed = 8 + int.from_bytes(data[:8], "little")
        if end < needed <= min(8 + MAX_HEADER_BYTES, entry.size):
            data += self._read(model, entry, end, needed)
        header = Header.parse(io.BytesIO(data), entry.size)
        self._keep(key, data[:needed])
        return header

    def _read(self, model: str, entry: RemoteEntry, start: int, end: int) -> bytes:
        data = self._asked(lambda: self._store.read(model, entry.name, start=start, end=end))
        if len(data) != end - start:
            raise OSError(errno.EIO, "the object came only in part")
        return data

    def _keep(self, key: str, data: bytes) -> None:
        """Keeps for later what is needed now in any case. A disk that is full ends nothing."""
        with contextlib.suppress(OSError):
            self._cache.put(key, data)


def _listed(kept: bytes | None) -> list[RemoteEntry] | None:
    """Returns the listing that was kept; None where there is none that can be understood."""
    if kept is not None:
        with contextlib.suppress(ValueError, TypeError):
            return [RemoteEntry(**each) for each in json.loads(kept)]
    return None


def _content_key(header: Header) -> str:
    return f"{_hash(header.sha256, header.layout_sha256)}.safetensors"


def _check(path: Path, file: VersionFile) -> None:
    """Checks that a file that was fetched is the object that was listed. Raises: OSError; DamagedError."""
    if path.stat().st_size != file.fingerprint.size:
        raise OSError(errno.EIO, "the object came only in part")
    with path.open("rb") as content:
        header = Header.parse(content, file.fingerprint.size)
        if header != file.header:
            raise OSError(errno.ESTALE, "the object was replaced while it was fetched")
        header.check_body(pieces(content))


def _is_sound(path: Path, file: VersionFile) -> bool:
    try:
        _check(path, file)
    except (OSError, CheckpointError):
        return False
    return True


def _kind(entry: RemoteEntry) -> Kind:
    return Kind.FOLDER if entry.is_folder else Kind.FILE


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
