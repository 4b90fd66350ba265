"""HTTP as bytes on a connection: for what no HTTP client would send, and for when it is sent."""

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

PATIENCE = 30.0  # seconds; a deadline, not a pace


@dataclass(frozen=True, slots=True)
class Response:
    """One response; its fields are named as those of an HTTP client's."""

    status_code: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


class Connection:
    """One connection to a server on loopback. Whatever does not come within `PATIENCE` fails the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Returns once all of it is on its way. Raises: ConnectionError."""
        async with asyncio.timeout(PATIENCE):
            self._writer.write(data)
            await self._writer.drain()

    def send_now(self, data: bytes) -> None:
        """Sends without a turn of the loop. Nothing else may be on its way."""
        sock = self._writer.transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(sock.fileno())) as same:
            same.sendall(data)

    async def exactly(self, size: int) -> bytes:
        """The next so many bytes."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readexactly(size)

    async def response(self, *, method: str = "POST", begun: bytes = b"") -> Response:
        """The next one, whole; an interim answer (1xx) has no content. `begun` was read of it before."""
        async with asyncio.timeout(PATIENCE):
            head = begun + await self._reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 "), head
            first, *lines = head.decode("latin-1").split("\r\n")[:-2]
            status = int(first.split()[1])
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            content = b""
            if status >= 200 and method != "HEAD":
                content = await self._content(headers)
            return Response(status, headers, content)

    async def _content(self, headers: dict[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return await self._reader.readexactly(int(headers["content-length"]))
        content = b""
        while size := int(await self._reader.readline(), 16):
            content += await self._reader.readexactly(size)
            await self._reader.readline()
        await self._reader.readline()
        return content

    async def rest(self) -> bytes:
        """What comes until the server closes the connection. Raises: ConnectionError, where it was reset."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    def send_no_more(self) -> None:
        """Closes the sending half of the connection. The server reads a FIN."""
        self._writer.write_eof()

    def close(self) -> None:
        """Closes the connection. The server reads a FIN, and a reset once it has written something."""
        self._writer.transport.abort()

    def hang_up(self) -> None:
        """Resets the connection."""
        socket = self._writer.get_extra_info("socket")
        socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()


def request(
    target: str = "/predict",
    body: bytes | None = None,
    *,
    method: str = "POST",
    more: Mapping[str, str] | None = None,
    **headers: str,
) -> bytes:
    """Returns the bytes of one request. A body brings its length.

    Args:
        more: more headers. Underscores in the names of all headers stand for hyphens.
    """
    given = {
        "host": "127.0.0.1",
        **{name.replace("_", "-"): value for name, value in {**headers, **(more or {})}.items()},
    }
    if body is not None:
        given.setdefault("content-type", "image/png")
        given.setdefault("content-length", str(len(body)))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def chunked(*pieces: bytes) -> bytes:
    """Returns the pieces as chunks of a body; an empty one is its end."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
