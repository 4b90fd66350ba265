"""Front-ends and the engine process find each other, whichever of them is there first."""

import resource
from pathlib import Path

import pytest

from app.ipc.rendezvous import accept, connect, rendezvous


def test_what_one_side_connects_the_other_accepts_in_its_order() -> None:
    with rendezvous() as meeting:
        first, second = connect(meeting.front_ends), connect(meeting.front_ends)
        with first, second:
            for ours, said in ((first, b"1"), (second, b"2")):
                theirs = accept(meeting.engine)
                assert theirs is not None
                with theirs:
                    ours.sendall(said)
                    assert theirs.recv(10) == said
                    assert not theirs.get_inheritable()


def test_who_accepts_where_nobody_waits_is_told_at_once() -> None:
    with rendezvous() as meeting, pytest.raises(BlockingIOError):
        accept(meeting.engine)


def test_a_connection_waits_for_an_engine_process_and_its_end_is_seen_by_the_front_end() -> None:
    with rendezvous() as meeting, connect(meeting.front_ends) as ours:
        theirs = accept(meeting.engine)
        assert theirs is not None
        theirs.close()
        assert ours.recv(10) == b""


def test_when_more_front_ends_wait_than_may_the_next_one_is_told_at_once_and_nothing_is_leaked() -> None:
    with rendezvous() as meeting:
        waiting, problem = [], None
        while problem is None:
            before = descriptors()
            try:
                waiting.append(connect(meeting.front_ends))
            except OSError as error:
                problem = error
        assert descriptors() == before
        for each in waiting:
            each.close()


def descriptors() -> int:
    """Returns how many this process has, where the system says so."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def test_a_connection_that_is_lost_for_want_of_descriptors_ends_for_the_front_end_too() -> None:
    with rendezvous() as meeting, connect(meeting.front_ends) as ours:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            assert accept(meeting.engine) is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert ours.recv(10) == b""
