"""Mosec: a Rust front end, and as many processes as cores that each decode and compute batches of their own.

Run by benchmarks/serving/compare.py; the flags are Mosec's. A stage of its own for the decoding was slower, a
second thread of torch in each process ten times as slow, and waiting longer than 1 ms for a batch brought nothing.
"""

from collections.abc import Sequence

from mosec import Server, Worker

from benchmarks.servers.network import Network, is_small
from classifier.preprocess import Pixels


class Classify(Worker):
    def __init__(self) -> None:
        super().__init__()
        self._network = Network()

    def deserialize(self, data: bytes) -> Pixels:
        return self._network.pixels(data)

    def forward(self, data: Sequence[Pixels]) -> list[bytes]:
        return self._network.documents(data)

    def serialize(self, data: bytes) -> bytes:
        return data


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Classify, num=2, max_batch_size=16 if is_small() else 4, max_wait_time=1, timeout=30, route="/predict"
    )
    server.run()
