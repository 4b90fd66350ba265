"""Storage: the version files of each model in a store, and what their headers say. Loads no weights."""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from classifier.header import CheckpointError, Header
from classifier.manifest import MODEL_NAME, VERSION_FILE


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Says whether a file is still the same: one with the same fingerprint is not read again."""

    inode: int
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class VersionFile:
    """A version's file: its header, or what is wrong with it, and whether the problem may pass by itself."""

    version: int
    path: Path
    fingerprint: Fingerprint
    header: Header | None
    problem: str | None = None
    transient: bool = False


class Storage(Protocol):
    """Where a server finds its models. Every method does I/O, and is called in a thread."""

    def models(self) -> list[str]:
        """Lists the names of the models, sorted; none where there is no store. Raises: OSError."""

    def versions(self, model: str, known: Mapping[int, VersionFile]) -> dict[int, VersionFile] | None:
        """Lists the versions of a model, the highest first; None where there is no such model.

        A file in `known` whose fingerprint is the same is not read again, unless its problem may have passed.

        Raises: OSError, where the model is there and cannot be read: nothing is known of it then.
        """


class LocalFolder:
    """A store that is a folder of this machine: `<model>/<version>.safetensors`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def models(self) -> list[str]:
        return model_names(self.folder)

    def versions(self, model: str, known: Mapping[int, VersionFile]) -> dict[int, VersionFile] | None:
        return scan(self.folder / model, known) if is_model_name(model) else None


def is_model_name(name: str) -> bool:
    """Says whether a folder of this name is a model. No other name reaches the disk."""
    return re.fullmatch(MODEL_NAME, name) is not None


def model_names(store: Path) -> list[str]:
    """Lists the folders of the store that are named as models are; none where there is no store. Raises: OSError."""
    try:
        with os.scandir(store) as entries:
            return sorted(entry.name for entry in entries if is_model_name(entry.name) and _is_folder(entry))
    except FileNotFoundError:
        return []


def scan(folder: Path, known: Mapping[int, VersionFile]) -> dict[int, VersionFile] | None:
    """Lists the versions in a model's folder, as `Storage.versions` does."""
    found: dict[int, VersionFile] = {}
    try:
        paths = {int(match[1]): path for path in folder.iterdir() if (match := re.fullmatch(VERSION_FILE, path.name))}
    except (FileNotFoundError, NotADirectoryError):
        return None
    for version, path in sorted(paths.items(), reverse=True):
        try:
            info = path.stat()
        except OSError:  # gone since, or a link to nowhere
            continue
        if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
            continue
        fingerprint = Fingerprint(info.st_ino, info.st_size, info.st_mtime_ns)
        before = known.get(version)
        if before is not None and before.fingerprint == fingerprint and (before.header or not before.transient):
            found[version] = before
        else:
            found[version] = _look_into(version, path, fingerprint)
    return found


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _look_into(version: int, path: Path, fingerprint: Fingerprint) -> VersionFile:
    try:
        return VersionFile(version, path, fingerprint, Header.read(path))
    except CheckpointError as error:
        return VersionFile(version, path, fingerprint, None, str(error))
    except OSError as error:
        return VersionFile(version, path, fingerprint, None, f"cannot be read: {error.strerror}", transient=True)
    except Exception as error:  # noqa: BLE001  no file, however odd, may end the server or stop what it serves
        reason = f"cannot be read: {type(error).__name__}: {error}"
        return VersionFile(version, path, fingerprint, None, reason, transient=isinstance(error, MemoryError))
