"""Says how much memory there is for a batch: more than that, and the system ends the whole process."""

import math
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")


def free_memory(root: Path = _ROOT) -> float:
    """Returns how many bytes this machine and this container have left; infinite where the system does not say.

    Args:
        root: where Linux shows `proc` and `sys`.
    """
    free = math.inf
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    with suppress(OSError, ValueError):  # "max" is no number: there is no limit
        group = root / "sys/fs/cgroup"
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        free = min(free, max(0, limit - used))
    return free
