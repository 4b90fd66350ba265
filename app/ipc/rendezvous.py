"""How front-ends and the engine process find each other: by sockets that they inherit, and not by a path.

A rendezvous is a pair of sockets, which outlives the processes. A front-end makes a connection and sends one end of it
through the pair. Whichever engine process comes next takes it out. Nothing in the file system is needed, and no
stranger can come in between.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Rendezvous(NamedTuple):
    """The side where the engine process accepts connections, and the side where front-ends connect."""

    engine: socket.socket
    front_ends: socket.socket


@contextmanager
def rendezvous() -> Iterator[Rendezvous]:
    """Makes a rendezvous, and closes it in the end. Raises: OSError, if there is no descriptor left."""
    engine, front_ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with engine, front_ends:
        engine.setblocking(False)
        front_ends.setblocking(False)
        yield Rendezvous(engine, front_ends)


def connect(front_ends: socket.socket) -> socket.socket:
    """Makes a stream to the engine process, or to the next one if there is none now, and returns our end of it.

    Raises: OSError, if too many wait already, or if there is no descriptor left.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            socket.send_fds(front_ends, [b"."], [theirs.fileno()])
    except OSError:
        ours.close()
        raise
    return ours


def accept(engine: socket.socket) -> socket.socket | None:
    """Returns the next stream to a front-end; None if it was lost on its way, which the front-end notices.

    Raises: BlockingIOError, if none waits.
    """
    _, descriptors, _, _ = socket.recv_fds(engine, 1, 1)
    if not descriptors:
        return None
    stream = socket.socket(fileno=descriptors[0])
    stream.set_inheritable(False)
    return stream
