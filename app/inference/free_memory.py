"""Says how much memory there is for a batch: more than that, and the system ends the whole process."""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from classifier.control_groups import groups, text_of

_ROOT = Path("/")
# Of version 2 of control groups, and of version 1: the limit, what is held, and what of it are files that were read.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(root: Path = _ROOT) -> float:
    """Returns how many bytes this machine and this container have left; infinite where the system does not say.

    Args:
        root: where Linux shows `proc` and `sys`.
    """
    available = _number_behind("MemAvailable:", root / "proc/meminfo", otherwise=math.inf) * 1024
    return min([available, *(left for group in groups(root, "memory") for left in _left(group))])


def _left(group: Path) -> Iterator[float]:
    """Gives what the limit of a group leaves, if it has one. What was read of files is given back when it is needed."""
    for limit, used, files in _FILES:
        with suppress(OSError, ValueError):  # "max" is no number: there is no limit
            held = int((group / used).read_text())
            kept = _number_behind(files, group / "memory.stat", otherwise=0)
            yield max(0, int((group / limit).read_text()) - held + kept)


def _number_behind(name: str, file: Path, *, otherwise: float) -> float:
    """Returns the number that follows a name in a file of the system."""
    for line in text_of(file).splitlines():
        match line.split():
            case [word, number, *_] if word == name and number.isdecimal():
                return int(number)
    return otherwise
