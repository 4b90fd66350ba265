"""The last seconds of a server: nothing that is sent in that time is lost. Imports no torch.

While a server drains, it says that it is not ready, and each answer says that its connection ends with it. So clients
go elsewhere, or connect anew. Once nobody is connected any more, or once the time is over, the port is closed.
"""

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.telemetry.connections import Connections

_LOOK_SECONDS = 0.05
_HANDSHAKE_SECONDS = 0.05  # in a data centre it takes one

# Linux's <asm-generic/socket.h>. Python has no name for it.
_SO_ATTACH_FILTER = 26
# A program for the packet filter of Linux (man 7 socket, bpf(4)): a packet that begins a connection is dropped.
_NO_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),  # load the flags of the TCP header
    (0x45, 0, 1, 0x02),  # is SYN among them?
    (0x06, 0, 0, 0),  # yes: drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # no: keep all of it
)


@dataclass(slots=True)
class Draining:
    """Says whether the server of this process has begun to drain."""

    begun: bool = False


async def drained(
    look: Callable[[], Connections],
    listener: socket.socket,
    *,
    seconds: float,
    min_seconds: float,
    hurry: asyncio.Event,
) -> None:
    """Waits until the port may be closed, and then turns new clients away.

    That is after so many seconds. It is sooner if no connection is open and none has been opened since the last look.
    It is at once if `hurry` is set.

    Args:
        look: counts the connections.
        min_seconds: it is not sooner than after so many seconds, even if that is more than `seconds`.
    """
    if max(seconds, min_seconds) == 0:
        return
    await _until_drained(look, seconds=seconds, min_seconds=min_seconds, hurry=hurry)
    if not hurry.is_set():
        await _turn_away(listener)


async def _until_drained(
    look: Callable[[], Connections], *, seconds: float, min_seconds: float, hurry: asyncio.Event
) -> None:
    loop = asyncio.get_running_loop()
    began, before = loop.time(), look()
    while not hurry.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), _LOOK_SECONDS)
        now, passed = look(), loop.time() - began
        if passed >= (min_seconds if now == (0, before.opened) else max(seconds, min_seconds)):
            return
        before = now


async def _turn_away(listener: socket.socket) -> None:
    """Lets nobody begin to connect any more, and waits a moment for those who have begun.

    A socket that is closed resets the connections that nobody has accepted yet. After this there are none but those
    that `accept_all` gives. Who is turned away knocks again after a second, and is refused then. Where the system has
    no such filter, nothing happens.
    """
    if sys.platform == "linux":
        import ctypes  # which is needed here alone, and once

        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_NEW_CONNECTIONS))
        with contextlib.suppress(OSError):
            given = struct.pack("HP", len(_NO_NEW_CONNECTIONS), ctypes.addressof(program))
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, given)
            await asyncio.sleep(_HANDSHAKE_SECONDS)


def accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Accepts all connections that wait at a listener that does not block."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            yield connection
