"""Counts the cores that this process may use, for both sides. Imports no torch.

Linux says it in two ways. The affinity mask names cores. A quota of a control group says how much time on any of them
may be used: `docker --cpus 2` and Kubernetes' `limits.cpu` set one, and the mask then still names all cores.
"""

import os
import re
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Cores:
    """So many cores may be used, at least 1.

    Attributes:
        reason: why it is that number, for a person.
        by_quota: it is that of a quota, which libraries do not see.
    """

    count: int
    reason: str
    by_quota: bool = False

    def __str__(self) -> str:
        return f"{self.count} ({self.reason})"

    def bound_libraries(self, environment: MutableMapping[str, str]) -> None:
        """Lets libraries that count cores by themselves start no more threads than this many.

        They read it from the environment when they are imported. What is set there already stays.
        """
        if self.by_quota:
            environment.setdefault("OMP_NUM_THREADS", str(self.count))  # torch's own, and those of NumPy's OpenBLAS
            environment.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(min(self.count, 32)))  # processes


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


def usable_cores(root: Path = _ROOT) -> int:
    """Returns the number of cores that this process may use, at least 1; see `find_cores`."""
    return find_cores(root).count


def find_cores(root: Path = _ROOT) -> Cores:
    """Finds the smallest of the affinity mask and of all quotas that hold for this process.

    A quota holds for a group and all groups below it, so those of every level count that can be seen. A quota is
    rounded up. What cannot be read is no quota.

    Args:
        root: the folder that has `proc` and what `proc/self/mountinfo` names.
    """
    there = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    cores = Cores(allowed, "all of the machine" if allowed >= there else f"its CPU affinity, of {there}")
    for file, quota, period in _quotas(root):
        count = max(1, -(-quota // period))
        if count < cores.count:
            reason = f"a CPU quota of {quota / period:.3g} in /{file.relative_to(root)}"
            cores = Cores(count, reason, by_quota=True)
    return cores


def _quotas(root: Path) -> Iterator[tuple[Path, int, int]]:
    """Gives each quota: its file, and the microseconds on a core that may be used in a period of so many."""
    for group in _groups(root):
        file = group / "cpu.max"  # version 2
        numbers = _text(file).split()
        if not numbers:
            file = group / "cpu.cfs_quota_us"  # version 1, where -1 means none
            numbers = [*_text(file).split(), *_text(group / "cpu.cfs_period_us").split()]
        if len(numbers) == 2 and all(number.isdecimal() and int(number) for number in numbers):
            yield file, int(numbers[0]), int(numbers[1])


def _groups(root: Path) -> Iterator[Path]:
    """Gives the folders of this process's groups, and of all groups above them."""
    mounts, paths = list(_mounts(root)), dict(_paths(root))
    for unified, path in paths.items():
        own = [mount for mount in mounts if mount.unified is unified]
        found = [(mount, names) for mount in own if (names := _below(mount, path)) is not None]
        # Where no mount is above it, the path is that of another view, such as the host's. A container sees its own
        # group as the whole hierarchy then.
        for mount, names in found or [(mount, path) for mount in own]:
            group = mount.folder.joinpath(*(name for name in names if name != ".."))
            yield group
            yield from (above for above in group.parents if above.is_relative_to(mount.folder))


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
            if str(os.getpid()) in _text(group.joinpath(*known, "cgroup.procs")).split():
                return [*group.relative_to(mount.folder).parts, *known]
    return None


def _paths(root: Path) -> Iterator[tuple[bool, list[str]]]:
    """Gives this process's group in the hierarchy of version 2, and in that of version 1 which bounds the CPU."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or "cpu" in controllers.split(","):
            yield not controllers, _names(path)


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        where, what = before.split(" "), after.split(" ")
        if len(where) < 5 or len(what) < 3:
            continue
        unified = what[0] == "cgroup2"
        if unified or (what[0] == "cgroup" and "cpu" in what[2].split(",")):
            yield _Mount(_names(_plain(where[3])), root.joinpath(*_names(_plain(where[4]))), unified)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _plain(field: str) -> str:
    """Returns a field of mountinfo as it is: spaces and the like stand there in octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits[1], 8)), field)


def _text(file: Path) -> str:
    try:
        return os.fsdecode(file.read_bytes())
    except OSError:
        return ""
