"""What is written in one turn of the loop leaves in one call, in order, and nothing is lost when it ends."""

import asyncio
from typing import Any

import pytest

from app.ipc.corked import Corked

pytestmark = pytest.mark.anyio


class Recorded(asyncio.Transport):
    """A transport that notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.closing = False

    def writelines(self, list_of_data: Any) -> None:
        self.calls.append(b"".join(list_of_data))

    def close(self) -> None:
        self.closing = True
        self.calls.append("close")

    def is_closing(self) -> bool:
        return self.closing


async def a_turn() -> None:
    await asyncio.sleep(0)


async def test_what_is_written_in_one_turn_leaves_in_one_call() -> None:
    transport = Recorded()
    corked = Corked(transport)
    corked.write(b"one ", memoryview(b"two "))
    corked.write(b"three")
    assert transport.calls == []
    await a_turn()
    assert transport.calls == [b"one two three"]
    corked.write(b"four")
    await a_turn()
    assert transport.calls == [b"one two three", b"four"]


async def test_nothing_is_called_where_nothing_was_written() -> None:
    transport = Recorded()
    corked = Corked(transport)
    corked.write()
    await a_turn()
    assert transport.calls == []


async def test_what_was_written_before_the_end_comes_before_it() -> None:
    transport = Recorded()
    corked = Corked(transport)
    corked.write(b"last")
    corked.close()
    await a_turn()
    assert transport.calls == [b"last", "close"]


async def test_what_is_written_to_a_connection_that_has_ended_is_dropped() -> None:
    transport = Recorded()
    corked = Corked(transport)
    corked.write(b"never read")
    transport.closing = True
    await a_turn()
    corked.write(b"nor this")
    await a_turn()
    assert transport.calls == []


async def test_a_reader_gets_all_of_it_and_then_the_end() -> None:
    received = bytearray()
    over = asyncio.Event()

    class Writing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            corked = Corked(transport)
            for i in range(1000):
                corked.write(b"%d," % i, bytes(1000))
            corked.close()

    class Reading(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            received.extend(data)

        def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  however it ended
            over.set()

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Writing, "127.0.0.1", 0)
    async with server, asyncio.timeout(30):
        await loop.create_connection(Reading, *server.sockets[0].getsockname())
        await over.wait()
    assert bytes(received) == b"".join(b"%d," % i + bytes(1000) for i in range(1000))
