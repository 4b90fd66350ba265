"""Corked: what is written to a connection in one turn of the event loop leaves it in one system call."""

import asyncio

Piece = bytes | memoryview


class Corked:
    """A transport as its writer sees it: what is written waits until the turn is over.

    A system call costs as much as the rest of writing an answer. And who reads at the other end is woken once, for all
    that came in this turn, instead of for the first of it.
    """

    __slots__ = ("_loop", "_pieces", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._pieces: list[Piece] = []

    def write(self, *pieces: Piece) -> None:
        """What is in `pieces` must not change until it has left."""
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
