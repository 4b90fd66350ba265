"""A proxy on loopback that cuts connections off after some bytes, or lets the rest trickle, as networks do."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_PIECE = 1 << 14
_PAUSE = 0.1  # seconds between the bytes that trickle


class CuttingProxy:
    """Forwards connections to a port of this machine.

    Attributes:
        bytes_left: so many bytes may still come back on each connection. Then it is reset. None: all.
        trickles: it is not reset then. A byte comes from time to time.
    """

    def __init__(self, target: int) -> None:
        self.bytes_left: int | None = None
        self.trickles = False
        self._closed = threading.Event()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for forward in (self._ask, self._answer):
                    threading.Thread(target=forward, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(_PIECE):
                server.sendall(piece)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        came = 0
        with contextlib.suppress(OSError), client, server:
            while piece := server.recv(_PIECE):
                came += len(piece)
                if self.bytes_left is not None and came > self.bytes_left:
                    if self.trickles:
                        self._trickle(client, piece)
                    break
                client.sendall(piece)
            client.shutdown(socket.SHUT_RDWR)

    def _trickle(self, client: socket.socket, piece: bytes) -> None:
        for i in range(len(piece)):
            if self._closed.wait(_PAUSE):
                return
            client.sendall(piece[i : i + 1])


@contextmanager
def cutting_proxy(target: int) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
