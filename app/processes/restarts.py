"""When a process that has ended is started again: at once, then after longer and longer waits, and at last no more."""

import time
from collections.abc import Callable, Sequence

WAITS = (0, 0.5, 1, 2, 4, 8, 16, 30)  # seconds
_SETTLED_SECONDS = 600.0
_EARLY_SECONDS = 10.0
_MAX_EARLY_ENDS = 3


class RestartPolicy:
    """Decides for one process, from how long it lived each time.

    Ends in a row wait longer and longer. A life of ten minutes ends the row: the next restart comes at once again.
    A process that ends within ten seconds, three times in a row, will not live: it is given up.

    Args:
        waits: the seconds before the first restart of a row, the second and so on; the last one stands for all further.
        clock: the time in seconds.
    """

    def __init__(self, *, waits: Sequence[float] = WAITS, clock: Callable[[], float] = time.monotonic) -> None:
        self._waits = waits
        self._clock = clock
        self._began = clock()
        self._ends = 0  # in a row
        self._early_ends = 0  # in a row

    def started(self) -> None:
        """Notes that the process has been started now."""
        self._began = self._clock()

    def ended(self) -> float | None:
        """Notes that the process has ended now.

        Returns: The seconds to wait before it is started again. None: it is given up.
        """
        lived = self._clock() - self._began
        self._ends = 1 if lived >= _SETTLED_SECONDS else self._ends + 1
        self._early_ends = self._early_ends + 1 if lived < _EARLY_SECONDS else 0
        if self._early_ends == _MAX_EARLY_ENDS:
            return None
        return self._waits[min(self._ends, len(self._waits)) - 1]
