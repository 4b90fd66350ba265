"""Clients that send no more, but may still wait for an answer.

A client that closes its sending half (`nc -N`, socat) and one that has gone look the same: both send a FIN. They differ
once something is sent to them: a client that has gone answers with a reset. Each answer begins with the same bytes,
whatever it says. So if it takes a while, its first bytes are sent ahead, one at a time. The write that follows a reset
fails, and the connection is lost, which cancels the work. A client that waits sees the very bytes that it would see.
"""

import asyncio
import os
from typing import Any

# Each answer begins so: uvicorn's, and those of `app.http.problems`.
START = b"HTTP/1.1 "

# Of so many such clients in a second, most get their answer before a byte is sent ahead, and so in one piece. If there
# are more, each of them is asked at once: most have gone, and what they asked for would hold up all others.
FEW = 8
FIRST_SECONDS = 0.05
# To the next byte; each time it takes four times as long. So clients that are seconds away are found out about, too.
NEXT_SECONDS = 0.001


class HalfClosed:
    """Counts the connections of one server that are half-closed, second by second."""

    def __init__(self) -> None:
        self._since = 0.0
        self._number = 0

    def are_many(self, now: float) -> bool:
        """Counts one more, and says whether more than a few have come in this second."""
        if now - self._since >= 1:
            self._since, self._number = now, 0
        self._number += 1
        return self._number > FEW


class HalfClosedTransport:
    """The transport of such a client. It sends the start of the next answer ahead, and leaves it out of that answer.

    Only one answer may be begun ahead: the one that is written first from now on.

    Args:
        transport: of the connection. Nothing may be waiting to be written.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, shared: HalfClosed) -> None:
        self._transport = transport
        self._loop = loop
        self._shared = shared
        self._sent = 0
        self._next = NEXT_SECONDS
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> bool:
        """Begins to send ahead, now or later. Returns whether the client may still be there."""
        seconds = FIRST_SECONDS
        if self._shared.are_many(self._loop.time()):
            if not self._sent_at_once(2):
                return False
            seconds = self._next
        self._timer = self._loop.call_later(seconds, self._send_ahead)
        return True

    def write(self, data: bytes) -> None:
        """Writes what is not sent yet of a piece of an answer."""
        self.stop()
        sent, self._sent = self._sent, 0
        self._transport.write(data[sent:])

    def close(self) -> None:
        """Closes the connection once everything is written."""
        self.stop()
        self._transport.close()

    def stop(self) -> None:
        """Sends nothing ahead any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _sent_at_once(self, count: int) -> bool:
        """Sends bytes by calls of the kernel: a client near by has reset before the second. False: it has gone."""
        number = self._transport.get_extra_info("socket").fileno()
        try:
            for _ in range(count):
                self._sent += os.write(number, START[self._sent : self._sent + 1])
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _send_ahead(self) -> None:
        self._transport.write(START[self._sent : self._sent + 1])
        self._sent += 1
        if self._sent == len(START) or self._transport.is_closing():
            self.stop()
        else:
            self._timer = self._loop.call_later(self._next, self._send_ahead)
            self._next *= 4
