"""Hands what one process has made to another, over a pipe. Tensors and arrays go beside it, in memory without a name.

The memory is a memfd, and its descriptor crosses the pipe (SCM_RIGHTS, see unix(7)). No file system bounds it, where
/dev/shm, which torch uses, has 64 MB in a container. Whoever is killed leaves nothing behind. And no process waits
until somebody reads what is large: it can go on to its next job.

Outside of Linux there is no memfd. There, torch shares tensors in its own way.
"""

import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from io import BytesIO
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from training.errors import TrainingError

_HAS_MEMFD = hasattr(os, "memfd_create")


class HandoverError(TrainingError):
    """The system has no memory or no descriptor left for what is handed over."""

    @classmethod
    def because(cls, reason: str) -> "HandoverError":
        """Returns the error as one line that says what to do."""
        return cls(
            f"a batch cannot be handed over by its worker process ({reason}): "
            "try fewer --workers or a smaller --batch-size"
        )


def send(pipe: Connection, message: object) -> None:
    """Sends a message to whoever calls `receive` at the other end of the pipe, a socket.

    Raises:
        HandoverError: nothing was sent, and another message can be.
        OSError: nobody is at the other end any more.
    """
    if not _HAS_MEMFD:
        pipe.send(message)
        return
    body, buffers = BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(body, protocol=5, buffer_callback=buffers.append).dump(message)
    arrays = [buffer.raw() for buffer in buffers]
    try:
        _send_first(pipe, arrays)
    except ConnectionError:
        raise
    except OSError as error:
        raise HandoverError.because(error.strerror or str(error)) from error
    pipe.send(([array.nbytes for array in arrays], body.getvalue()))


def receive(pipe: Connection) -> Any:
    """Returns the next message. Its tensors and arrays are the receiver's own.

    Raises:
        HandoverError: the message came, and cannot be taken.
        EOFError, OSError: nobody is at the other end any more.
    """
    if not _HAS_MEMFD:
        return pipe.recv()
    try:
        channel = socket.fromfd(pipe.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise HandoverError.because(error.strerror or str(error)) from error
    with channel:
        first, handles, _, _ = socket.recv_fds(channel, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not first:
        raise EOFError
    with os.fdopen(handles[0], "rb") if handles else nullcontext() as memory:
        sizes, body = pipe.recv()
        if sizes and memory is None:
            raise HandoverError.because("Too many open files")  # the system drops the descriptor, and says no more
        arrays = [np.empty(size, np.uint8) for size in sizes]
        if memory is not None:
            memory.seek(0)
            for array in arrays:
                memory.readinto(array.data)
    return pickle.loads(body, buffers=arrays)  # noqa: S301  from a process of our own


def _send_first(pipe: Connection, arrays: Sequence[memoryview]) -> None:
    """Sends one byte, and with it the memory that holds the arrays if there are any."""
    with socket.fromfd(pipe.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        if not arrays:
            channel.sendall(b".")
            return
        handle = _nameless()
        try:
            with os.fdopen(handle, "wb", closefd=False) as memory:
                for array in arrays:
                    memory.write(array)
            socket.send_fds(channel, [b"."], [handle])
        finally:
            os.close(handle)


def _nameless() -> int:
    try:
        return os.memfd_create("flambeau")
    except OSError:  # some systems are told to refuse it (vm.memfd_noexec, seccomp)
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


class _Pickler(pickle.Pickler):
    """Takes tensors for the arrays that they are, as pickle's protocol 5 keeps those out of the message."""

    def reducer_override(self, value: object) -> Any:
        torch = sys.modules.get("torch")
        if torch is not None and type(value) is torch.Tensor:
            return _tensor, (value.numpy(),)  # type: ignore[attr-defined]
        return NotImplemented


def _tensor(array: np.ndarray[Any, Any]) -> Any:
    import torch

    return torch.from_numpy(array)
