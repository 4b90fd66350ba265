"""Numbers that the processes of one server count, each in files of its own, and that any of them adds up.

The files outlive their process. When a process dies, its numbers are kept, and the next process of its name goes on
from there. Imports no torch.
"""

import contextlib
import json
import mmap
from pathlib import Path
from typing import TextIO

_MAX_SERIES = 1 << 14  # 128 KiB of a file


class SharedCounters:
    """The numbers of one process, by name. One thread writes them.

    `values` is an array of float64 that others read while it is written. `slot` says where in it a number is.

    Args:
        path: of the two files, without a suffix. `.values` has the numbers, `.names` has the name of each on a line.
            None keeps the numbers in memory, for this process alone.

    Raises: OSError, if there is no room for the files. A disk that becomes full later only hides new names.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._slots: dict[str, int] = {}
        self._names: TextIO | None = None
        if path is None:
            self.values = memoryview(bytearray(8 * _MAX_SERIES)).cast("d")
            return
        with path.with_suffix(".values").open("a+b") as file:
            # Written, not left out as a hole: whoever fills a hole on a full disk by a mapping of it is killed.
            file.write(bytes(8 * _MAX_SERIES - file.tell()))
            file.flush()
            self.values = memoryview(mmap.mmap(file.fileno(), 8 * _MAX_SERIES)).cast("d")
        self._names = path.with_suffix(".names").open("a+")
        self._names.seek(0)
        self._slots = {name.rstrip("\n"): slot for slot, name in enumerate(self._names)}

    def slot(self, name: str) -> int:
        """Returns where in `values` the number of this name is. Names that find no room share the last place."""
        slot = self._slots.get(name)
        if slot is None:
            if len(self._slots) >= _MAX_SERIES - 1:
                return _MAX_SERIES - 1
            slot = self._slots[name] = len(self._slots)
            if self._names is not None:
                with contextlib.suppress(OSError):  # it stays in the buffer, and goes out with the next one
                    self._names.write(name + "\n")
                    self._names.flush()
        return slot

    def close(self) -> None:
        """Closes the file of names. The numbers can still be written."""
        if self._names is not None:
            self._names.close()

    def items(self) -> dict[str, float]:
        """Returns the numbers of this process by name."""
        return {name: self.values[slot] for name, slot in self._slots.items()}


def series(metric: str, *labels: str) -> str:
    """Returns the name under which the number of a metric with these values of its labels is counted."""
    return json.dumps((metric, *labels))


def total(folder: Path) -> dict[str, float]:
    """Returns the sums over all processes that keep their numbers in `folder`, by name."""
    sums: dict[str, float] = {}
    for path in sorted(folder.glob("*.names")):
        try:
            names = path.read_text().splitlines()
            values = memoryview(path.with_suffix(".values").read_bytes()).cast("d")
        except FileNotFoundError:  # the process begins just now
            continue
        for name, value in zip(names, values, strict=False):
            sums[name] = sums.get(name, 0.0) + value
    return sums
