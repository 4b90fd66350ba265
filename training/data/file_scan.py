"""Scans every file of a folder once: hashes its content, and finds out whether it is an image that can be used.

The results are kept for the next time. A file is read again if its size, its inode or one of its times is another: the
time of the last change of its content, which archives and copies set, or of its entry, which nobody can set. What was
found out holds for a content, by its hash, and not for a path.
"""

import hashlib
import json
import os
import stat
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import PIL
from PIL.JpegImagePlugin import JpegImageFile

from classifier import atomic_files
from classifier.image_files.opening import open_file
from classifier.progress import Progress
from classifier.visible import to_mode
from training.data import jpeg
from training.data.decode import FORMATS, reason
from training.data.raw_dataset import File, Member

# Raised whenever the same file would be judged otherwise.
VERSION = f"3, Pillow {PIL.__version__}"
# Size in bytes, time of the last change of the content and of the entry, both in ns, and inode.
_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Holds what was found out about one file.

    Args:
        sha256: the hash of its content; empty if it cannot be read.
        size: (width, height) of the upright image.
        problem: why it cannot be used; None: it can.
    """

    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    problem: str | None = None


def scan_files(
    folder: Path,
    names: Sequence[str],
    *,
    members: Mapping[str, Member] | None = None,
    scratch: Path,
    threads: int,
    progress: Progress,
) -> Mapping[str, FileRecord]:
    """Returns a record for each name, which is a path in `folder`.

    Args:
        members: by name, what is no file of its own, but lies in an archive.
        scratch: where the results are kept for the next time.
        threads: how many files are read at once.

    Raises: OSError if the results cannot be kept.
    """
    # Threads, not processes: decoding and hashing release the interpreter's lock, and nothing needs to be started.
    path = scratch / "photos" / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.json"
    kept = _read(path)

    def at(name: str) -> File:
        return members[name] if members else folder / name

    stamps = {name: _stamp(at(name)) for name in names}
    # Only what is unchanged: were this to hold old records of changed files, Ctrl-C would keep them as new.
    found = {name: kept[name][1] for name, stamp in stamps.items() if stamp and name in kept and kept[name][0] == stamp}
    new = [name for name in names if name not in found]
    if new:
        known = {record.sha256: record for _, record in kept.values()}
        with (
            warnings.catch_warnings(action="ignore"),  # what Pillow finds odd, but reads
            progress.step(f"looking at {len(new):,} files", total=len(new), unit="files") as advance,
            ThreadPoolExecutor(max(1, threads)) as pool,
        ):
            try:
                for name, record in zip(new, pool.map(lambda name: record_of(at(name), known), new), strict=True):
                    found[name] = record
                    advance(1)
            finally:  # after Ctrl-C too: what was scanned needs no second scan
                pool.shutdown(cancel_futures=True)
                others = {  # of splits that are not read this time
                    name: entry
                    for name, entry in kept.items()
                    if name not in stamps and not members and entry[0] == _stamp(folder / name)
                }
                _keep(path, others | {name: (stamp, found[name]) for name in found if (stamp := stamps[name])})
    return {name: found[name] for name in names}


def _stamp(path: File) -> _Stamp | None:
    """Returns what changes whenever a path leads to another content; None if there is no file, or it cannot be asked.

    Folders that change names leave all times of their files alone, and these may have been unpacked in the same moment:
    then the inode tells them apart. Some file systems number their inodes anew each time that they are mounted. That
    costs a hash of each file.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def record_of(path: File, known: Mapping[str, FileRecord] = MappingProxyType({})) -> FileRecord:
    """Returns the record of a file, which is one of the `known` ones, by hash, if the content is the same."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return FileRecord(problem="it is not a file")
        data = path.read_bytes()
    except FileNotFoundError:
        return FileRecord(problem="it is a link to nothing" if path.is_symlink() else "it is not there")
    except OSError as error:
        return FileRecord(problem=reason(error))
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 in known:
        return known[sha256]
    if not data:
        return FileRecord(sha256, problem="it is empty")
    try:
        return FileRecord(sha256, _size_of_sound(data))
    except Exception as error:  # noqa: BLE001  Pillow's parsers and decoders raise nearly anything on damaged files
        return FileRecord(sha256, problem=_gif(data) or reason(error))


def _size_of_sound(data: bytes) -> tuple[int, int]:
    image = open_file(data, formats=FORMATS, max_pixels=None)
    if isinstance(image, JpegImageFile):
        size = jpeg.upright_size(image)
        to_mode(jpeg.smaller(image, 8), mode="RGB", background=0)  # all of the file is read, but few pixels are made
        return size
    return to_mode(image, mode="RGB", background=0).size


def _gif(data: bytes) -> str | None:
    return "it is a GIF" if data.startswith((b"GIF87a", b"GIF89a")) else None


def _read(path: Path) -> dict[str, tuple[_Stamp, FileRecord]]:
    """Returns what was kept; nothing if the file is not there, or does not hold what was written."""
    try:
        document = json.loads(path.read_bytes())
        if document["version"] != VERSION:
            return {}
        return {name: _entry(*entry) for name, entry in document["files"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _entry(size: int, changed: int, entered: int, inode: int, record: dict[str, Any]) -> tuple[_Stamp, FileRecord]:
    if not isinstance(record["sha256"], str):
        raise TypeError("a hash is a string")
    return (size, changed, entered, inode), FileRecord(**record | {"size": tuple(record["size"])})


def _keep(path: Path, entries: Mapping[str, tuple[_Stamp, FileRecord]]) -> None:
    document = {
        "version": VERSION,
        "files": {name: [*stamp, asdict(record)] for name, (stamp, record) in entries.items() if record.sha256},
    }
    atomic_files.replace(path, json.dumps(document).encode())
