"""Clients that send no more, but may still wait for an answer.

A client that closes its sending half (`nc -N`, socat) and one that has gone look the same: both send a FIN. They differ
once something is sent to them: a client that has gone answers with a reset. Each answer begins with the same bytes,
whatever it says. So if it takes a while, its first bytes are sent ahead, one at a time. The write that follows a reset
fails, and the connection is lost, which cancels the work. A client that waits sees the very bytes that it would see.
"""

import asyncio
from typing import Any

# Each answer begins so: uvicorn's, and those of `app.http.problems`.
START = b"HTTP/1.1 "

# Most answers are there before the first byte is sent ahead. A reset may be there before the second byte. From then on
# the time from one byte to the next doubles: the nine bytes find out about clients that are up to two seconds away.
FIRST_SECONDS = 0.05
SECOND_SECONDS = 0.02


class HalfClosedTransport:
    """The transport of such a client. It sends the start of the next answer ahead, and leaves it out of that answer.

    Only one answer may be begun ahead: the one that is written first from now on.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._sent = 0
        self._wait = SECOND_SECONDS
        self._timer: asyncio.TimerHandle | None = loop.call_later(FIRST_SECONDS, self._send_ahead)

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

    def _send_ahead(self) -> None:
        self._transport.write(START[self._sent : self._sent + 1])
        self._sent += 1
        left = self._sent < len(START) and not self._transport.is_closing()
        self._timer = self._loop.call_later(self._wait, self._send_ahead) if left else None
        self._wait *= 2
