"""Finds the files and folders below a folder, without what systems, file servers and training itself leave there."""

import os
import re
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from classifier.image_files.names import is_of_the_system, is_photo
from classifier.manifest import VERSION_FILE
from training.data.folder_names import composed, shown
from training.errors import TrainingError

_OF_A_RUN = {"checkpoint.pth.tar", "log.jsonl"}


@dataclass(frozen=True, slots=True)
class FolderTree:
    """Holds what lies in a folder and below. Paths have "/" and begin in the folder, which is "" itself.

    Args:
        files: by folder, the names of the files in it, sorted by their composed form (NFC).
        folders: by folder, the names of the folders in it, sorted alike.
        odd: what stands where a file or folder would, but cannot be used, and why.
        outputs: folders that are no data, because training writes there.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    folders: dict[str, list[str]] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)

    def below(self, folder: str) -> Iterator[str]:
        """Gives the paths of all files in a folder and below: first those in it, then those of each folder in it."""
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            yield from (join(here, name) for name in self.files.get(here, ()))
            waiting += [join(here, name) for name in reversed(self.folders.get(here, ()))]

    def photos(self, folder: str) -> Iterator[str]:
        """Gives the paths of all files in a folder and below that are called like images."""
        return filter(is_photo, self.below(folder))


def join(folder: str, name: str) -> str:
    """Returns the path of what is called `name` in `folder`."""
    return f"{folder}/{name}" if folder else name


def walk(folder: Path, outputs: Collection[Path]) -> FolderTree:
    """Reads a folder and all below it. Links are followed, but each folder is read once only.

    Args:
        outputs: folders that training writes to.

    Raises: TrainingError if the folder is not there, cannot be read, or is an output itself.
    """
    if not folder.is_dir():
        raise TrainingError(f"the folder of photos {folder} {'is a file' if folder.exists() else 'is not there'}")
    identities = {_identity(output) for output in outputs if output.is_dir()}
    if _identity(folder) in identities:
        raise TrainingError(f"{folder} is a folder that training writes to: give another --store or --runs")
    walk = _Walk(folder, identities)
    walk.run()
    if "" in walk.tree.odd:
        raise TrainingError(f"{folder}: {walk.tree.odd['']}")
    return walk.tree


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


class _Walk:
    """Reads folders one after the other, without recursion: they may lie deeper than Python's stack."""

    def __init__(self, folder: Path, outputs: set[tuple[int, int]]) -> None:
        self.tree = FolderTree()
        self._folder = folder
        self._outputs = outputs
        self._seen: dict[tuple[int, int], str] = {}

    def run(self) -> None:
        waiting, links = [""], deque[str]()
        while waiting or links:
            # Links come last: a folder belongs where it really is.
            is_link = not waiting
            here = links.popleft() if is_link else waiting.pop()
            for entry in self._read(here, is_link=is_link):
                (links if entry.is_symlink() else waiting).append(join(here, entry.name))
        for output in self.tree.outputs:
            self._remove_emptied(output)

    def _read(self, here: str, *, is_link: bool) -> "list[os.DirEntry[str]]":
        """Notes what lies in a folder, and returns the folders in it."""
        try:
            identity = _identity(self._folder / here)
            with os.scandir(self._folder / here) as entries:
                found = sorted((entry for entry in entries if not is_of_the_system(entry.name)), key=_by_composed_name)
        except OSError as error:
            self.tree.odd[here] = f"it cannot be read: {error.strerror}"
            return []
        there = self._seen.get(identity)
        if there is not None and (_is_above(there, here) or is_link):
            self._leave_out(
                here, f"it is a link to {'a folder above itself' if _is_above(there, here) else shown(there)}"
            )
            return []
        files: list[str] = []
        folders: list[os.DirEntry[str]] = []
        odd: list[str] = []
        for entry in found:
            if not _is_folder(entry):
                files.append(entry.name)
            elif here and is_photo(entry.name):
                odd.append(join(here, entry.name))
            else:
                folders.append(entry)
        if identity in self._outputs or (here and _is_output(files)):
            self._leave_out(here)
            return []
        self._seen[identity] = here
        self.tree.files[here] = files
        self.tree.folders[here] = [entry.name for entry in folders]
        self.tree.odd.update(dict.fromkeys(odd, "it is a folder"))
        return folders

    def _leave_out(self, here: str, why: str | None = None) -> None:
        folder, _, name = here.rpartition("/")
        self.tree.folders[folder].remove(name)
        if why is None:
            self.tree.outputs.append(here)
        else:
            self.tree.odd[here] = why

    def _remove_emptied(self, output: str) -> None:
        """Leaves out the folders above an output in which no photo is: they are there for the output alone."""
        folder, _, name = output.rpartition("/")
        while folder and not any(self.tree.photos(folder)):
            folder, _, name = folder.rpartition("/")
            if name in self.tree.folders[folder]:
                self.tree.folders[folder].remove(name)


def _is_above(there: str, here: str) -> bool:
    return not there or f"{here}/".startswith(f"{there}/")


def _by_composed_name(entry: "os.DirEntry[str]") -> tuple[str, str]:
    return composed(entry.name), entry.name


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: whoever reads the file will say so
        return False


def _is_output(names: Collection[str]) -> bool:
    """Tells whether these files are those of a run, or the versions of a model."""
    if _OF_A_RUN.issubset(names):
        return True
    return any(re.fullmatch(VERSION_FILE, name) for name in names) and not any(map(is_photo, names))
