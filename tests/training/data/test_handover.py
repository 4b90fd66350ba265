"""What one process makes comes to the other as it was, whatever its size; want of memory says what to do."""

import os
import resource
import socket
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np
import pytest
import torch

from training.data import handover
from training.data.handover import HandoverError, receive, send

LARGE = 50_000_000  # bytes; a socket holds some 200,000

Ends = tuple[Connection, Connection]


@pytest.fixture
def ends() -> Iterator[Ends]:
    here, there = Pipe()
    with here, there:
        yield here, there


def test_tensors_and_arrays_come_as_they_were_sent(ends: Ends) -> None:
    tensor, array = torch.arange(24).view(2, 3, 4), np.arange(6.0).reshape(2, 3)
    send(ends[0], ("a word", [tensor, None], {"array": array, "view": array[:, ::2], "empty": np.zeros((0, 3))}))
    word, (got, nothing), arrays = receive(ends[1])
    assert (word, nothing) == ("a word", None)
    assert torch.equal(got, tensor)
    assert got.dtype == tensor.dtype
    assert np.array_equal(arrays["array"], array)
    assert np.array_equal(arrays["view"], array[:, ::2])
    assert arrays["empty"].shape == (0, 3)


def test_what_came_is_the_receivers_own(ends: Ends) -> None:
    tensor = torch.zeros(3)
    send(ends[0], tensor)
    receive(ends[1]).fill_(1)
    assert tensor.sum() == 0


@pytest.mark.slow
def test_messages_keep_their_order_and_none_waits_for_a_reader(ends: Ends) -> None:
    for number in range(3):
        send(ends[0], torch.full((LARGE,), number, dtype=torch.uint8))
        send(ends[0], number)
    for number in range(3):
        assert (receive(ends[1]) == number).all()
        assert receive(ends[1]) == number


def test_no_descriptor_stays_open(ends: Ends) -> None:
    before = _descriptors()
    send(ends[0], torch.zeros(3))
    kept = receive(ends[1])
    assert _descriptors() == before
    assert len(kept) == 3


def test_a_system_that_refuses_such_memory_gives_a_file_without_a_name(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "memfd_create", refused)
    send(ends[0], np.ones(LARGE, np.uint8))
    assert receive(ends[1]).sum() == LARGE


def test_without_such_memory_all_goes_through_the_pipe(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "_HAS_MEMFD", False)
    send(ends[0], ("a word", np.ones(3)))
    word, array = receive(ends[1])
    assert (word, array.sum()) == ("a word", 3)


def test_want_of_memory_says_what_to_do_and_nothing_was_sent(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", lambda _: os.open("/dev/full", os.O_WRONLY))
    before = _descriptors()
    with pytest.raises(HandoverError, match=r"No space left.*fewer --workers") as refusal:
        send(ends[0], torch.zeros(3))
    send(ends[0], refusal.value)
    assert str(receive(ends[1])) == str(refusal.value)
    assert _descriptors() == before


@pytest.mark.parametrize("spare", [0, 1])
def test_want_of_descriptors_says_what_to_do(ends: Ends, spare: int) -> None:
    send(ends[0], torch.zeros(3))
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))
    try:
        with pytest.raises(HandoverError, match=r"Too many open files.*fewer --workers"):
            receive(ends[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_end_that_is_gone_is_not_taken_for_want_of_memory(ends: Ends) -> None:
    ends[1].close()
    with pytest.raises(ConnectionError):
        send(ends[0], torch.zeros(3))
    with pytest.raises(EOFError):
        receive(ends[0])


def test_memory_whose_message_never_came_is_given_back(ends: Ends) -> None:
    handle = os.memfd_create("half a message")
    with socket.fromfd(ends[0].fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        socket.send_fds(channel, [b"."], [handle])
    os.close(handle)
    ends[0].close()  # as a worker that is killed
    before = _descriptors()
    with pytest.raises(EOFError):
        receive(ends[1])
    assert _descriptors() == before


def _descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))  # noqa: PTH208  names are all that counts
