"""Storage: the version files of each model in a store, and what their headers say. Loads no weights."""

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from app.engine.model_info import PassedOver
from app.lifecycle.passed_over import Kind, in_model, in_store, is_silent, names_in_folder
from classifier.header import CheckpointError, Header
from classifier.manifest import MODEL_NAME, VERSION_FILE

_PIECE = 1 << 20  # bytes that are read and hashed at once


class Stamp(Protocol):
    """Says whether a version's file is still the same: one with an equal stamp is not read again."""

    @property
    def size(self) -> int:
        """Returns the size of the file in bytes."""

    def is_renumbered(self, other: Any) -> bool:
        """Says whether the two are stamps of the same content, though they may differ."""

    def is_touched(self, before: Any) -> bool:
        """Says whether the file was written to since, or touched: so a person asks for another try."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Is the stamp of a file on this machine.

    Size and time of modification can be kept, as `cp -p` and archives do. Nobody can set the time of the last change
    of the inode (ctime).
    """

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, info: os.stat_result) -> "Fingerprint":
        """Takes it from what `stat` says."""
        return cls(info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)

    def is_renumbered(self, other: "Fingerprint") -> bool:
        """Says whether the two have all but the inode in common.

        Some file systems (FUSE) number their inodes anew now and then. A file that is replaced has another ctime.
        """
        return replace(self, inode=other.inode) == other

    def is_touched(self, before: "Fingerprint") -> bool:
        """Says whether the file was written to since, or touched: so a person asks for another try."""
        return self.inode == before.inode and self.modified_ns != before.modified_ns


@dataclass(frozen=True, slots=True)
class VersionFile:
    """A version's file: its header, or what is wrong with it, and whether the problem may pass by itself."""

    version: int
    path: Path
    fingerprint: Stamp
    header: Header | None
    problem: str | None = None
    transient: bool = False

    def still_holds(self, stamp: Stamp) -> bool:
        """Says whether a file with this stamp need not be read again."""
        return self.fingerprint == stamp and (self.header is not None or not self.transient)


@dataclass(frozen=True, slots=True)
class StoreListing:
    """The names of the models in a store, sorted, and what is passed over beside them.

    Args:
        problem: why the store cannot be read now; this is what was last seen of it then.
    """

    models: tuple[str, ...]
    passed_over: tuple[PassedOver, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ModelListing:
    """The versions in a model's folder by number, the highest first, and what is passed over beside them."""

    versions: Mapping[int, VersionFile]
    passed_over: tuple[PassedOver, ...] = ()


class Storage(Protocol):
    """Where a server finds its models. Every method does I/O, and is called in a thread."""

    @property
    def name(self) -> str:
        """Returns what a person calls the store. Does no I/O."""

    def models(self) -> StoreListing:
        """Lists the models. Raises: OSError, also where there is no store."""

    def versions(self, model: str, known: Mapping[int, VersionFile]) -> ModelListing | None:
        """Lists the versions of a model; None where there is no such model.

        A file in `known` whose fingerprint is the same is not read again, unless its problem may have passed.

        Raises: OSError, where the model is there and cannot be read: nothing is known of it then.
        """

    def read_whole(self, model: str, file: VersionFile) -> VersionFile:
        """Reads all of a file whose header is known. Returns it with what is wrong with it, if anything is."""

    def fetch(self, model: str, file: VersionFile) -> Path:
        """Returns a file of this machine that has the content. Raises: OSError; CheckpointError, if it is damaged."""

    def is_unchanged(self, file: VersionFile) -> bool:
        """Says whether the file is still the one that it was."""


class LocalFolder:
    """A store that is a folder of this machine: `<model>/<version>.safetensors`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        return str(self.folder.absolute())

    def models(self) -> StoreListing:
        return list_models(self.folder)

    def versions(self, model: str, known: Mapping[int, VersionFile]) -> ModelListing | None:
        return list_versions(self.folder / model, known) if is_model_name(model) else None

    def read_whole(self, model: str, file: VersionFile) -> VersionFile:
        del model
        return _read(file.version, file.path, file.fingerprint, whole=True)

    def fetch(self, model: str, file: VersionFile) -> Path:
        del model
        return file.path

    def is_unchanged(self, file: VersionFile) -> bool:
        try:
            return file.fingerprint.is_renumbered(Fingerprint.of(file.path.stat()))
        except OSError:
            return False


def is_model_name(name: str) -> bool:
    """Says whether a folder of this name is a model. No other name reaches the disk."""
    return re.fullmatch(MODEL_NAME, name) is not None


def list_models(store: Path) -> StoreListing:
    """Lists the folders of the store that are named as models, as `Storage.models` does."""
    return store_listing(_entries(store))


def store_listing(entries: Iterable[tuple[str, Kind]], problem: str | None = None) -> StoreListing:
    """Tells the models among what lies in a store from the rest."""
    models, others = [], []
    for name, kind in entries:
        if kind is Kind.FOLDER and is_model_name(name):
            models.append(name)
        elif not is_silent(name):
            others.append((name, kind))
    return StoreListing(tuple(sorted(models)), in_store(others), problem)


def version_in(name: str, kind: Kind) -> int | None:
    """Returns the version that an entry of a model's folder is; None where it is none."""
    match = re.fullmatch(VERSION_FILE, name)
    return int(match[1]) if match and kind is Kind.FILE else None


def list_versions(folder: Path, known: Mapping[int, VersionFile]) -> ModelListing | None:
    """Lists the versions in a model's folder, as `Storage.versions` does."""
    numbers, others = [], []
    try:
        for name, kind in _entries(folder):
            version = version_in(name, kind)
            if version is not None:
                numbers.append(version)
            else:
                others.append((name, kind))
    except (FileNotFoundError, NotADirectoryError):
        return None
    found: dict[int, VersionFile] = {}
    for version in sorted(numbers, reverse=True):
        path = folder / f"{version}.safetensors"
        try:
            fingerprint = Fingerprint.of(path.stat())
        except FileNotFoundError:  # gone since
            continue
        except OSError as error:
            found[version] = unreadable(version, path, Fingerprint(0, 0, 0, 0), error)
            continue
        before = known.get(version)
        if before is not None and before.still_holds(fingerprint):
            found[version] = before
        else:
            found[version] = _read(version, path, fingerprint)
    return ModelListing(found, in_model(folder.name, others, lambda name: names_in_folder(folder / name)))


def _entries(folder: Path) -> list[tuple[str, Kind]]:
    """Lists what is in a folder and not silent. Raises: OSError."""
    with os.scandir(folder) as entries:
        return [(entry.name, _kind(entry)) for entry in entries if not is_silent(entry.name)]


def _kind(entry: "os.DirEntry[str]") -> Kind:
    try:
        if entry.is_dir():
            return Kind.FOLDER
        if entry.is_file():
            return Kind.FILE
        entry.stat()
    except OSError as error:  # whoever reads the file is told of any other one
        return Kind.NOTHING if error.errno in (errno.ENOENT, errno.ELOOP) else Kind.FILE
    return Kind.SPECIAL


def _read(version: int, path: Path, fingerprint: Stamp, *, whole: bool = False) -> VersionFile:
    """Reads a file's header, or all of it, and says what is wrong with it."""
    header = None
    try:
        with path.open("rb") as file:
            fingerprint = Fingerprint.of(os.fstat(file.fileno()))
            header = Header.parse(file, fingerprint.size)
            if whole:
                header.check_body(pieces(file))
    except CheckpointError as error:
        return VersionFile(version, path, fingerprint, header, str(error))
    except OSError as error:
        return unreadable(version, path, fingerprint, error)
    except Exception as error:  # noqa: BLE001  no file, however odd, may end the server or stop what it serves
        reason = f"cannot be read: {type(error).__name__}: {error}"
        return VersionFile(version, path, fingerprint, None, reason, transient=isinstance(error, MemoryError))
    return VersionFile(version, path, fingerprint, header)


def unreadable(version: int, path: Path, stamp: Stamp, error: OSError) -> VersionFile:
    """Returns a version's file that cannot be read now."""
    return VersionFile(version, path, stamp, None, f"cannot be read: {error.strerror or error}", transient=True)


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """Gives the rest of a file, one piece after the other."""
    while piece := file.read(_PIECE):
        yield piece
