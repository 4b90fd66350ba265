"""Numbers of several processes in one folder are added up, and are not lost with the process that counted them."""

import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from app.telemetry.counters import SharedCounters, total

Start = Callable[[str], SharedCounters]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Returns a function by which a process of that name begins to count."""
    with ExitStack() as started:
        yield lambda name: started.enter_context(closing(SharedCounters(tmp_path / name)))


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


def test_without_a_folder_they_are_in_memory() -> None:
    counts = SharedCounters()
    add(counts, "a", 2)
    add(counts, "b", 0.5)
    add(counts, "a", 2)
    assert counts.items() == {"a": 4, "b": 0.5}


def test_a_number_that_was_asked_for_is_there_before_it_is_counted(start: Start, tmp_path: Path) -> None:
    start("one").slot("a")
    assert total(tmp_path) == {"a": 0}


def test_those_of_several_processes_are_added_up_by_name(start: Start, tmp_path: Path) -> None:
    one, other = start("one"), start("other")
    add(one, "both", 1)
    add(other, "other", 10)
    add(other, "both", 100)
    assert total(tmp_path) == {"both": 101, "other": 10}


def test_what_is_counted_is_seen_at_once(start: Start, tmp_path: Path) -> None:
    counts = start("one")
    slot = counts.slot("a")
    for i in range(1, 4):
        counts.values[slot] += 1
        assert total(tmp_path) == {"a": i}


def test_a_process_of_the_same_name_goes_on_where_the_last_one_was(start: Start, tmp_path: Path) -> None:
    before = start("one")
    add(before, "a", 2)
    add(before, "b", 3)
    after = start("one")  # the one before has not even closed its files: it was killed
    add(after, "b", 1)
    add(after, "c", 1)
    assert after.items() == total(tmp_path) == {"a": 2, "b": 4, "c": 1}


def test_a_process_that_has_just_begun_disturbs_nobody(start: Start, tmp_path: Path) -> None:
    add(start("one"), "a")
    (tmp_path / "begun.names").touch()
    (tmp_path / "halfway.names").write_text("a\n")
    (tmp_path / "halfway.values").touch()
    assert total(tmp_path) == {"a": 1}


def test_where_there_is_no_folder_any_more_there_is_nothing(tmp_path: Path) -> None:
    assert total(tmp_path / "none") == {}


def test_more_names_than_there_is_room_for_share_a_number_and_leave_the_others_alone(
    start: Start, tmp_path: Path
) -> None:
    counts = start("one")
    names = [str(i) for i in range(len(counts.values) + 5)]
    for name in names:
        add(counts, name)
    kept = counts.items()
    assert kept == total(tmp_path) == dict.fromkeys(names[: len(counts.values) - 1], 1)
    assert counts.slot(names[-1]) == counts.slot(names[-2]) == len(counts.values) - 1


def test_a_full_disk_is_an_error_when_a_process_begins(start: Start) -> None:
    """If it were noticed only when the process counts, it would kill: so does a failed write to a mapped file."""
    with no_room(), pytest.raises(OSError, match="File too large"):
        start("one")


def test_the_room_for_all_numbers_is_taken_when_a_process_begins(start: Start, tmp_path: Path) -> None:
    start("one")
    values, zeros = tmp_path / "one.values", tmp_path / "zeros"
    zeros.write_bytes(values.read_bytes())
    if not zeros.stat().st_blocks:
        pytest.skip("this file system takes no room for zeros")
    assert values.stat().st_blocks == zeros.stat().st_blocks


def test_a_disk_that_becomes_full_loses_no_number_and_harms_nobody(start: Start, tmp_path: Path) -> None:
    counts = start("one")
    add(counts, "a")
    with no_room():
        add(counts, "b", 2)
        add(counts, "b", 2)
        assert counts.items() == {"a": 1, "b": 4}
        assert total(tmp_path) == {"a": 1}
    add(counts, "c")
    assert total(tmp_path) == {"a": 1, "b": 4, "c": 1}
