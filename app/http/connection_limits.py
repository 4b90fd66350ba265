"""What a connection may do outside of the request that is being answered: state machines without sockets and timers.

Without these limits, a client that sends one byte now and then holds a connection for ever. One whose headers never end
takes memory without bound. `app.http.protocol` reports what comes, asks what to do, and does it.
"""

from enum import Enum
from typing import Literal

from app.http.problems import Problem

MAX_HEADERS_BYTES = 64 * 1024

# So much of what nobody wants is still read, for so long, before the connection is closed. Closing at once would reset
# it, and the reset would overtake the answer.
LINGER_BYTES = 1 << 20
LINGER_SECONDS = 2.0


class Entry(Enum):
    """What becomes of a new connection."""

    ACCEPTED = "it may send requests"
    REJECTED = "it gets an answer that there are too many, and is closed"
    ABORTED = "it is closed without an answer"


class OpenConnections:
    """Counts the open connections of one server.

    At most `limit` are accepted at once. Rejected ones take no place of an accepted one, but until they are closed they
    cost memory as well. So at most `limit` of those are open, too.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open = dict.fromkeys(Entry, 0)

    def enter(self) -> Entry:
        """Counts a new connection in. The protocol must call `leave` with the result when it is closed."""
        if self._open[Entry.ACCEPTED] < self.limit:
            entry = Entry.ACCEPTED
        elif self._open[Entry.REJECTED] < self.limit:
            entry = Entry.REJECTED
        else:
            entry = Entry.ABORTED
        self._open[entry] += 1
        return entry

    def leave(self, entry: Entry) -> None:
        """Counts a closed connection out."""
        self._open[entry] -= 1


# What the next byte of a connection belongs to: no request, a request's first line or headers, or its body.
# Words, not an Enum: Python 3.11 takes 0.1 us to look a member of one up, and each request asks several times.
Place = Literal["between", "headers", "body"]


class Rejection(Enum):
    """How a connection ends on which something is wrong."""

    ANSWER = "the problem is written, and what still comes is read for a while"
    AFTER_ANSWER = "the request before it is sound: its answer comes, and is the last"
    CLOSE = "closed at once: another answer would be taken for that of another request"


class ConnectionLimits:
    """Follows one connection: where it is in a request, how many bytes came there, and whether it is rejected."""

    __slots__ = ("_counted", "place", "rejected")

    def __init__(self) -> None:
        self.place: Place = "between"
        self.rejected = False
        self._counted = 0

    def message_begun(self) -> None:
        """The first byte of a request has come."""
        self.place = "headers"

    def headers_complete(self) -> None:
        """All headers of a request have come."""
        self.place = "body"
        self._counted = 0

    def message_complete(self) -> None:
        """A request has come whole."""
        self.place = "between"

    def received(self, size: int) -> Problem | None:
        """Counts `size` more bytes, and returns the problem if they make the headers too large.

        Called for what comes in headers and after a rejection. The bytes of a body are the application's to count.
        """
        self._counted += size
        if self.rejected or self._counted <= MAX_HEADERS_BYTES:
            return None
        return Problem("header_too_large", f"the headers may have {MAX_HEADERS_BYTES:,} bytes at the most")

    @property
    def exhausted(self) -> bool:
        """Says whether a rejected connection has sent all that is still read of it."""
        return self.rejected and self._counted > LINGER_BYTES

    def timed(self, *, answering: bool) -> bool:
        """Says whether a timer must run now, because the client has to send something and nobody works for it.

        Args:
            answering: a request of this connection is being answered.
        """
        return not self.rejected and (self.place == "headers" or not answering)

    def late(self, seconds: float) -> Problem | None:
        """The problem of a client whose timer of so many seconds has run out; None if it waits for no answer."""
        if self.place != "headers":
            return None
        return Problem("upload_too_slow", f"the headers did not come within {seconds:g} seconds")

    def reject(self, *, answering: bool, started: bool, queued: bool) -> Rejection:
        """Accepts no request from now on, and returns how the connection ends.

        Args:
            answering: a request of this connection is being answered.
            started: a part of that answer is on its way.
            queued: more requests wait behind that one.
        """
        self.rejected = True
        self._counted = 0
        in_body = self.place == "body"
        if answering and not in_body:
            return Rejection.AFTER_ANSWER
        if queued or (in_body and (not answering or started)):
            return Rejection.CLOSE
        return Rejection.ANSWER
