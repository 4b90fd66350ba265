"""What the processes of a server share has no path, and is gone with them."""

import os
import resource

import pytest

from app.processes.errors import CannotStart
from app.processes.shared import shared
from app.telemetry.counters import SharedCounters, total


def test_each_process_counts_in_memory_of_its_own() -> None:
    with shared(["one", "other"]) as made:
        for name in ("one", "other"):
            counters = SharedCounters(made.counters[name])
            counters.values[counters.slot("a")] += 1
        assert total(made.counters.values()) == {"a": 2}


def test_all_of_it_is_closed_in_the_end() -> None:
    with shared(["one", "other"]) as made:
        descriptors = [*made.counters.values(), *(side.fileno() for side in made.rendezvous)]
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_where_it_cannot_be_made_one_line_says_what_to_do() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(CannotStart, match=r"Too many open files.*--front-ends 0"), shared(["one"]):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
