"""Finds the control groups of this process, which bound what it may use. Imports no torch.

A limit of a group holds for all groups below it, so those of every level count that can be seen.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class _Mount(NamedTuple):
    """A hierarchy of control groups in the file system.

    Attributes:
        root: the names from the top of the hierarchy to the group that is mounted, as this process sees them.
        folder: where that group is.
        unified: it is of version 2.
    """

    root: list[str]
    folder: Path
    unified: bool


def groups(root: Path, controller: str) -> Iterator[Path]:
    """Gives the folders of this process's groups, and of all groups above them.

    Args:
        root: the folder that has `proc` and what `proc/self/mountinfo` names.
        controller: what the groups of version 1 bound: "cpu" or "memory". Those of version 2 bound everything.
    """
    mounts, paths = list(_mounts(root, controller)), dict(_paths(root, controller))
    for unified, path in paths.items():
        own = [mount for mount in mounts if mount.unified is unified]
        found = [(mount, names) for mount in own if (names := _below(mount, path)) is not None]
        # Where no mount is above it, the path is that of another view, such as the host's. A container sees its own
        # group as the whole hierarchy then.
        for mount, names in found or [(mount, path) for mount in own]:
            group = mount.folder.joinpath(*(name for name in names if name != ".."))
            yield group
            yield from (above for above in group.parents if above.is_relative_to(mount.folder))


def text_of(file: Path) -> str:
    """Returns what is in a file of the system; nothing where it cannot be read."""
    try:
        return os.fsdecode(file.read_bytes())
    except OSError:
        return ""


def _below(mount: _Mount, path: Sequence[str]) -> list[str] | None:
    """Returns the names from the mounted group to the one at `path`; None where it is not below, or cannot be found."""
    depth = len(mount.root)
    if list(path[:depth]) == mount.root:
        names = list(path[depth:])
        return None if ".." in names else names
    # In a namespace whose mounts are older than itself, groups above its own have no names: /../.. is two levels up.
    if set(mount.root) == {".."}:
        known = list(path)
        while known[:1] == [".."]:
            known.pop(0)
        unknown = depth - (len(path) - len(known))
        for group in sorted(mount.folder.glob("/".join(["*"] * unknown))):
            if str(os.getpid()) in text_of(group.joinpath(*known, "cgroup.procs")).split():
                return [*group.relative_to(mount.folder).parts, *known]
    return None


def _paths(root: Path, controller: str) -> Iterator[tuple[bool, list[str]]]:
    """Gives this process's group in the hierarchy of version 2, and in that of version 1 which has the controller."""
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or controller in controllers.split(","):
            yield not controllers, _names(path)


def _mounts(root: Path, controller: str) -> Iterator[_Mount]:
    for line in text_of(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        where, what = before.split(" "), after.split(" ")
        if len(where) < 5 or len(what) < 3:
            continue
        unified = what[0] == "cgroup2"
        if unified or (what[0] == "cgroup" and controller in what[2].split(",")):
            yield _Mount(_names(_plain(where[3])), root.joinpath(*_names(_plain(where[4]))), unified)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _plain(field: str) -> str:
    """Returns a field of mountinfo as it is: spaces and the like stand there in octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits[1], 8)), field)
