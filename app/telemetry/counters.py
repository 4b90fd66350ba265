"""Numbers that the processes of one server count, each in memory of its own, and that any of them adds up.

The memory outlives its process. When a process dies, its numbers are kept, and the next process of its name goes on
from there. It has no path: whoever has its file descriptor has it, whatever becomes of the file system. Imports no
torch.
"""

import contextlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterable

_MAX_SERIES = 1 << 14
_VALUES = 8 * _MAX_SERIES  # bytes; behind them stands the name of each number, on a line


def allocate() -> int:
    """Makes memory for the numbers of one process, and returns its file descriptor.

    Where the system knows no memory without a file, it is a file that has no name any more.

    Raises: OSError, if there is no room. Memory that becomes scarce later only hides new names.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("flambeau-counters")
    else:
        with tempfile.TemporaryFile(prefix="flambeau-", buffering=0) as file:
            descriptor = os.dup(file.fileno())
    try:
        # Written, not left out as a hole: whoever fills a hole where there is no room, by a mapping of it, is killed.
        written = 0
        while written < _VALUES:
            written += os.pwrite(descriptor, bytes(_VALUES - written), written)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class SharedCounters:
    """The numbers of one process, by name. One thread writes them.

    `values` is an array of float64 that others read while it is written. `slot` says where in it a number is.

    Args:
        descriptor: of memory that `allocate` has made, and that stays open. None keeps the numbers for this process
            alone.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._untold = b""  # names that are not written yet
        if descriptor is None:
            self._slots: dict[str, int] = {}
            self._end = 0
            self.values = memoryview(bytearray(_VALUES)).cast("d")
        else:
            names = _names(descriptor)
            self._slots = {name: slot for slot, name in enumerate(names)}
            self._end = _VALUES + sum(len(name) + 1 for name in names)
            self.values = memoryview(mmap.mmap(descriptor, _VALUES)).cast("d")

    def slot(self, name: str) -> int:
        """Returns where in `values` the number of this name is. Names that find no room share the last place.

        Args:
            name: as `series` makes it.
        """
        slot = self._slots.get(name)
        if slot is None:
            if len(self._slots) >= _MAX_SERIES - 1:
                return _MAX_SERIES - 1
            slot = self._slots[name] = len(self._slots)
            if self._descriptor is not None:
                self._untold += name.encode() + b"\n"
                with contextlib.suppress(OSError):  # it goes out with the next one
                    written = os.pwrite(self._descriptor, self._untold, self._end)
                    self._untold = self._untold[written:]
                    self._end += written
        return slot

    def items(self) -> dict[str, float]:
        """Returns the numbers of this process by name."""
        return {name: self.values[slot] for name, slot in self._slots.items()}


def series(metric: str, *labels: str) -> str:
    """Returns the name under which the number of a metric with these values of its labels is counted, in ASCII."""
    return json.dumps((metric, *labels))


def total(descriptors: Iterable[int]) -> dict[str, float]:
    """Returns the sums over the processes that keep their numbers in these memories, by name."""
    sums: dict[str, float] = {}
    for descriptor in descriptors:
        names = _names(descriptor)
        values = memoryview(os.pread(descriptor, 8 * len(names), 0)).cast("d")
        for name, value in zip(names, values, strict=True):
            sums[name] = sums.get(name, 0.0) + value
    return sums


def _names(descriptor: int) -> list[str]:
    """Returns the names that are written whole, in the order of their numbers."""
    text = os.pread(descriptor, os.fstat(descriptor).st_size - _VALUES, _VALUES)
    return text.decode().split("\n")[:-1]
