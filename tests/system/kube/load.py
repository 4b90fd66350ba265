"""Clients that post one image after another, and keep account of each request."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple

_TIMEOUT = 60.0  # seconds until an answer counts as lost
_PAUSE = 0.005  # seconds between two requests of a client: the pods that start need the processor, too


class Answer(NamedTuple):
    """What one request came to; times in seconds of the monotonic clock."""

    began: float
    ended: float
    version: int
    pod: str  # empty where the balancer does not say it


@dataclass(slots=True)
class Client:
    """Is one connection that is kept, as a client would keep it. Nothing is sent twice."""

    port: int
    answers: list[Answer] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)  # why, one for each request

    def post(self, image: bytes, over: threading.Event) -> None:
        """Posts until it is over."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT)
        while not over.wait(_PAUSE):
            began = time.monotonic()
            try:
                connection.request("POST", "/predict", image, {"Content-Type": "image/png"})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    self.lost.append(f"{response.status} {body[:200]!r}")
                    continue
                version, pod = json.loads(body)["version"], response.getheader("flambeau-pod", "")
            except (OSError, HTTPException, ValueError, KeyError) as error:
                self.lost.append(repr(error))
                connection.close()
                continue
            self.answers.append(Answer(began, time.monotonic(), version, pod))
        connection.close()


@dataclass(frozen=True, slots=True)
class Crowd:
    """Is all clients of a time."""

    clients: Sequence[Client]

    @property
    def answers(self) -> list[Answer]:
        """Every answer, in the order of their ends."""
        return sorted((each for client in self.clients for each in client.answers), key=lambda answer: answer.ended)

    @property
    def lost(self) -> list[str]:
        """Why each request was lost that was."""
        return [each for client in self.clients for each in client.lost]

    def __str__(self) -> str:
        """Counts the requests, and says the slowest answer."""
        answers = self.answers
        slowest = max((answer.ended - answer.began for answer in answers), default=0.0)
        return f"{len(answers):,} answers, the slowest after {slowest * 1000:.0f} ms, lost: {len(self.lost)}"


@contextmanager
def crowd(image: bytes, ports: Sequence[int]) -> Iterator[Crowd]:
    """Lets one client post at each of the ports, until the block is left."""
    over, clients = threading.Event(), [Client(port) for port in ports]
    threads = [threading.Thread(target=client.post, args=(image, over)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield Crowd(clients)
    finally:
        over.set()
        for thread in threads:
            thread.join()
