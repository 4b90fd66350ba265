"""Corked: what is written to a connection in one turn of the event loop leaves it in one system call."""

import asyncio

Piece = bytes | memoryview


class Corked:
    """Writes to a transport when the turn of the event loop is over, as TCP_CORK does.

    A system call costs as much as the rest of writing an answer. And the reader at the other end is woken once, for all
    that came in this turn, instead of for the first of it.
    """

    __slots__ = ("_loop", "_pieces", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pieces: list[Piece] = []

    def write(self, *pieces: Piece) -> None:
        """Writes the pieces, in order, when the turn is over. They must not change until then."""
        if not self._pieces:
            self._loop.call_soon(self._uncork)
        self._pieces += pieces

    def close(self) -> None:
        self._uncork()
        self._transport.close()

    def _uncork(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            if not self._transport.is_closing():
                self._transport.writelines(pieces)
