"""Counts the cores that this process may use, for both sides. Imports no torch."""

import os


def usable_cores() -> int:
    """Returns the number of cores that the operating system lets this process use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
