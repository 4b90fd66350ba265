"""The end of a server's life, as clients see it: nothing that they send is lost."""

import asyncio
import contextlib
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support.checkpoints import checkpoint, png, publish
from tests.support.raw import Connection, Response, connection, request
from tests.support.server import PATIENCE, serving

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

CLIENTS = 50
REQUESTS = 10  # of each
PREDICT, LIVE = request(body=png()), request("/health/live", method="GET")


class Client:
    """Keeps its connection as long as it may, and connects anew when an answer says that the connection ends."""

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._method, self._request = ("POST", PREDICT) if number % 2 else ("GET", LIVE)
        self._open = contextlib.AsyncExitStack()
        self._connection: Connection | None = None

    async def ask(self) -> Response:
        """Raises: ConnectionRefusedError, if the port is closed; others where a request is lost."""
        if self._connection is None:
            self._connection = await self._open.enter_async_context(connection(self._port))
        await self._connection.send(self._request)
        answer = await self._connection.response(method=self._method)
        if answer.headers.get("connection") == "close":
            assert await self._connection.rest() == b""
            self._connection = None
        return answer

    async def ask_often(self, times: int) -> Counter[str]:
        """Asks until the port is closed, or so many times."""
        outcomes: Counter[str] = Counter()
        for _ in range(times):
            try:
                answer = await self.ask()
            except ConnectionRefusedError:
                return outcomes + Counter(refused=1)
            except (ConnectionError, asyncio.IncompleteReadError):
                return outcomes + Counter(lost=1)
            closes = answer.headers.get("connection") == "close"
            outcomes[f"{answer.status_code}{' and the end' if closes else ''}"] += 1
        return outcomes

    async def close(self) -> None:
        await self._open.aclose()


@pytest.mark.parametrize("front_ends", [0, 1, 2])
@pytest.mark.parametrize("round_", range(3))
async def test_of_500_requests_that_kept_alive_clients_send_in_the_moment_after_sigterm_none_is_lost(
    front_ends: int, round_: int, tmp_path: Path
) -> None:
    publish(tmp_path, 1, checkpoint())
    flags = ["--device", "cpu", "--front-ends", str(front_ends)]
    with serving(tmp_path, *flags) as server:
        clients = [Client(server.port, number) for number in range(CLIENTS)]
        for client in clients:
            answer = await client.ask()
            assert (answer.status_code, answer.headers.get("connection")) == (200, None)
        server.process.send_signal(signal.SIGTERM)
        outcomes = sum(await asyncio.gather(*(client.ask_often(REQUESTS) for client in clients)), Counter())
        for client in clients:
            await client.close()
        assert outcomes["lost"] == 0, outcomes
        assert outcomes["200 and the end"] >= CLIENTS, outcomes
        assert outcomes.keys() <= {"200", "200 and the end", "refused"}
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("front_ends", [0, 2])
async def test_nor_is_one_of_those_who_ask_on_and_on_until_the_port_is_closed(front_ends: int, tmp_path: Path) -> None:
    publish(tmp_path, 1, checkpoint())
    flags = ["--device", "cpu", "--front-ends", str(front_ends), "--drain-seconds", "0.5"]
    with serving(tmp_path, *flags) as server:
        clients = [Client(server.port, number) for number in range(CLIENTS)]
        for client in clients:
            await client.ask()
        server.process.send_signal(signal.SIGTERM)
        outcomes = sum(await asyncio.gather(*(client.ask_often(1_000_000) for client in clients)), Counter())
        for client in clients:
            await client.close()
        assert (outcomes["refused"], outcomes["lost"]) == (CLIENTS, 0), outcomes
        assert server.process.wait(PATIENCE) == 0
