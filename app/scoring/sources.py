"""Finds the images that a person means: a file, a folder, a list, a table, a tar file, or what lies below a URL."""

import csv
import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from app.scoring.errors import ScoringError
from classifier.image_files.names import is_of_the_system, is_photo
from classifier.store.address import AddressError, store_address
from classifier.store.remote import RemoteStore

_TABLES = {".csv": ",", ".tsv": "\t"}
_LISTS = {".txt", ".lst"}
_PATH = "path"  # the column of a table


class Source(NamedTuple):
    """Says where an image is.

    Args:
        name: what its row is called.
        place: the file, the tar file or the URL of the folder in which it lies.
        key: the name of the object below a URL; empty otherwise.
        offset, size: its place in a tar file; 0 and -1: it is a file of its own.
    """

    name: str
    place: str
    key: str = ""
    offset: int = 0
    size: int = -1


@dataclass(frozen=True, slots=True)
class Found:
    """Holds the images in their order, each once.

    Args:
        left_out: how many files are not called like images; in a tar file also those that are links to others.
        repeated: how many were named again.
    """

    sources: tuple[Source, ...]
    left_out: int
    repeated: int


def find(inputs: Iterable[str]) -> Found:
    """Returns the images that are meant.

    Args:
        inputs: files, folders, `.txt` with a path in each line, `.csv` and `.tsv` with a column `path`, `.tar`, or URLs
            of folders.

    Raises: ScoringError; OSError, which names the file, or StoreError.
    """
    sources: dict[Source, None] = {}
    left_out = named = 0
    for text in inputs:
        for source in _of(text):
            if source is None:
                left_out += 1
            else:
                named += 1
                sources[source] = None
    return Found(tuple(sources), left_out, named - len(sources))


def _of(text: str) -> Iterator[Source | None]:
    """Gives the images of one input, and None for each file that is not called like one."""
    try:
        place = store_address(text)
    except AddressError as error:
        raise ScoringError(str(error)) from error
    if isinstance(place, str):
        yield from _below(place)
    elif place.is_dir():
        yield from _in_folder(place)
    elif not place.exists():
        raise ScoringError(f"{text} is not there")
    elif place.suffix.lower() == ".tar":
        yield from _in_tar(place)
    elif place.suffix.lower() in _LISTS:
        yield from _listed(place)
    elif place.suffix.lower() in _TABLES:
        yield from _in_table(place)
    else:
        yield Source(str(place), str(place.absolute()))


def _in_folder(folder: Path) -> Iterator[Source | None]:
    seen: set[tuple[int, int]] = set()  # a link may lead to a folder above itself
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        status = os.stat(here)  # noqa: PTH116  a Path for each takes ten times as long
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_of_the_system(name))
        for name in sorted(files):
            if not is_of_the_system(name):
                path = os.path.join(here, name)  # noqa: PTH118  as above
                yield Source(path, os.path.abspath(path)) if is_photo(name) else None  # noqa: PTH100  as above


def _raise(error: OSError) -> None:
    raise error


def _listed(path: Path) -> Iterator[Source]:
    for line in _text(path).split("\n"):  # other characters that end lines elsewhere may be in a name
        name = line.removesuffix("\r")
        if name.strip():
            yield _beside(path, name)


def _in_table(path: Path) -> Iterator[Source]:
    rows = csv.DictReader(io.StringIO(_text(path), newline=""), delimiter=_TABLES[path.suffix.lower()])
    try:
        if _PATH not in (rows.fieldnames or ()):
            raise ScoringError(f"{path} has no column {_PATH}; its columns are {', '.join(rows.fieldnames or ())}")
        for row in rows:
            if row[_PATH]:
                yield _beside(path, row[_PATH])
    except csv.Error as error:
        raise ScoringError(f"{path} is no table that can be read: {error} (after line {rows.line_num})") from error


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScoringError(f"{path} is not UTF-8") from error


def _beside(path: Path, name: str) -> Source:
    """Returns a file that a list names: its path begins at the folder of the list, unless it is absolute."""
    return Source(name, str(path.parent.absolute() / name))


def _in_tar(path: Path) -> Iterator[Source | None]:
    size = path.stat().st_size
    files: dict[str, tarfile.TarInfo] = {}  # a hard link leads to one that came before it
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if info.isdir() or any(map(is_of_the_system, info.name.split("/"))):
                    continue
                file = files[info.name] = files[info.linkname] if info.islnk() else info
                if not file.isreg() or file.issparse() or not is_photo(info.name):
                    yield None
                    continue
                if file.size < 0 or file.offset_data + file.size > size:
                    raise ScoringError(f"{path} was cut off in {info.name}")
                yield Source(f"{path}/{info.name}", str(path.absolute()), "", file.offset_data, file.size)
    except (OSError, ScoringError):
        raise
    except Exception as error:  # whatever tarfile raises on damaged or hostile headers
        raise ScoringError(f"{path} is no tar file that is whole and not compressed: {error}") from error


def _below(url: str) -> Iterator[Source | None]:
    for name in RemoteStore(url).names():
        if not any(map(is_of_the_system, name.split("/"))):
            yield Source(f"{url}/{name}", url, name) if is_photo(name) else None
