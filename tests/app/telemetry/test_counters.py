"""Numbers of several processes are added up, and are not lost with the process that counted them."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.telemetry.counters import SharedCounters, allocate, total


class Server:
    """The memory of some processes, by their names."""

    def __init__(self) -> None:
        self.memory: dict[str, int] = {}

    def start(self, name: str) -> SharedCounters:
        """A process of that name begins to count."""
        if name not in self.memory:
            self.memory[name] = allocate()
        return SharedCounters(self.memory[name])

    def total(self) -> dict[str, float]:
        return total(self.memory.values())


@pytest.fixture(params=["memory without a file", "a file without a name"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    if request.param == "a file without a name":  # as on macOS
        monkeypatch.delattr(os, "memfd_create", raising=False)
    server = Server()
    yield server
    for descriptor in server.memory.values():
        os.close(descriptor)


def add(counts: SharedCounters, name: str, number: float = 1) -> None:
    counts.values[counts.slot(name)] += number


@contextmanager
def no_room() -> Iterator[None]:
    """Lets no file grow, which looks like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_those_of_one_process_alone_need_nothing_shared() -> None:
    counts = SharedCounters()
    add(counts, "a", 2)
    add(counts, "b", 0.5)
    add(counts, "a", 2)
    assert counts.items() == {"a": 4, "b": 0.5}


def test_a_number_that_was_asked_for_is_there_before_it_is_counted(server: Server) -> None:
    server.start("one").slot("a")
    assert server.total() == {"a": 0}


def test_those_of_several_processes_are_added_up_by_name(server: Server) -> None:
    one, other = server.start("one"), server.start("other")
    add(one, "both", 1)
    add(other, "other", 10)
    add(other, "both", 100)
    assert server.total() == {"both": 101, "other": 10}


def test_what_is_counted_is_seen_at_once(server: Server) -> None:
    counts = server.start("one")
    slot = counts.slot("a")
    for i in range(1, 4):
        counts.values[slot] += 1
        assert server.total() == {"a": i}


def test_a_process_of_the_same_name_goes_on_where_the_last_one_was(server: Server) -> None:
    before = server.start("one")
    add(before, "a", 2)
    add(before, "b", 3)
    after = server.start("one")  # the one before has not even closed its files: it was killed
    add(after, "b", 1)
    add(after, "c", 1)
    assert after.items() == server.total() == {"a": 2, "b": 4, "c": 1}


def test_a_process_that_has_just_begun_disturbs_nobody(server: Server) -> None:
    add(server.start("one"), "a")
    server.memory["begun"] = allocate()
    assert server.total() == {"a": 1}


def test_a_name_that_is_half_written_is_none_yet_and_the_next_process_writes_over_it(server: Server) -> None:
    add(server.start("one"), "a")
    descriptor = server.memory["one"]
    os.pwrite(descriptor, b"half of a na", os.fstat(descriptor).st_size)
    assert server.total() == {"a": 1}
    add(server.start("one"), "b", 2)
    assert server.total() == server.start("one").items() == {"a": 1, "b": 2}


def test_more_names_than_there_is_room_for_share_a_number_and_leave_the_others_alone(server: Server) -> None:
    counts = server.start("one")
    names = [str(i) for i in range(len(counts.values) + 5)]
    for name in names:
        add(counts, name)
    kept = counts.items()
    assert kept == server.total() == dict.fromkeys(names[: len(counts.values) - 1], 1)
    assert counts.slot(names[-1]) == counts.slot(names[-2]) == len(counts.values) - 1


def test_a_full_disk_is_an_error_when_a_process_begins(server: Server) -> None:
    """If it were noticed only when the process counts, it would kill: so does a failed write to a mapped file."""
    with no_room(), pytest.raises(OSError, match="File too large"):
        server.start("one")


def test_the_room_for_all_numbers_is_taken_when_a_process_begins(server: Server) -> None:
    values = server.start("one").values
    if not os.fstat(server.memory["one"]).st_blocks:
        pytest.skip("this file system takes no room for zeros")
    assert os.fstat(server.memory["one"]).st_blocks * 512 >= values.nbytes


def test_a_disk_that_becomes_full_loses_no_number_and_harms_nobody(server: Server) -> None:
    counts = server.start("one")
    add(counts, "a")
    with no_room():
        add(counts, "b", 2)
        add(counts, "b", 2)
        assert counts.items() == {"a": 1, "b": 4}
        assert server.total() == {"a": 1}
    add(counts, "c")
    assert server.total() == {"a": 1, "b": 4, "c": 1}
