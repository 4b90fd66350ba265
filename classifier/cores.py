"""Counts the cores that this process may use, for both sides. Imports no torch.

Linux says it in two ways. The affinity mask names cores. A quota of a control group says how much time on any of them
may be used: `docker --cpus 2` and Kubernetes' `limits.cpu` set one, and the mask then still names all cores.
"""

import os
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from classifier.control_groups import groups, text_of

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
    for group in groups(root, "cpu"):
        file = group / "cpu.max"  # version 2
        numbers = text_of(file).split()
        if not numbers:
            file = group / "cpu.cfs_quota_us"  # version 1, where -1 means none
            numbers = [*text_of(file).split(), *text_of(group / "cpu.cfs_period_us").split()]
        if len(numbers) == 2 and all(number.isdecimal() and int(number) for number in numbers):
            yield file, int(numbers[0]), int(numbers[1])
