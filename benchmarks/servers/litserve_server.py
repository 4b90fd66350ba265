"""LitServe: HTTP processes, a queue, and workers that decode and compute in batches.

Run by benchmarks/serving/compare.py as `litserve_server PORT`. Its `fast_queue` does nothing in 0.2.19; here it does.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import litserve
from fastapi import Depends, Request, Response
from litserve.transport.factory import TransportConfig

from benchmarks.servers.network import Network, is_small
from classifier.preprocess import Pixels


async def body(request: Request) -> bytes:
    """The image as it comes: quicker than a form, which would go through the queue as an open file."""
    return await request.body()


class Classify(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe's own
        self._network = Network()

    def decode_request(self, request: Annotated[bytes, Depends(body)]) -> Pixels:
        return self._network.pixels(request)

    def batch(self, inputs: Sequence[Pixels]) -> Sequence[Pixels]:
        return inputs

    def predict(self, x: Sequence[Pixels]) -> list[bytes]:
        return self._network.documents(x)

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="application/json")


class FastServer(litserve.LitServer):
    """Answers come back by ZeroMQ, which takes a quarter off the CPU time of a request.

    `fast_queue` sets a field that is not there, and ZeroMQ's two addresses are taken for one another.
    """

    def _init_manager(self, num_api_servers: int) -> Any:
        self.transport_config = TransportConfig(transport_type="zmq")
        manager = super()._init_manager(num_api_servers)
        queue = self._transport
        queue.backend_address, queue.frontend_address = queue.frontend_address, queue.backend_address
        return manager


def main() -> None:
    # A batch_timeout of 0 keeps two processes busy while there is nothing to do.
    if is_small():
        classify, workers, front_ends = Classify(max_batch_size=32, batch_timeout=0.001), 1, 2
    else:
        classify, workers, front_ends = Classify(max_batch_size=4, batch_timeout=0.005), 2, 1
    FastServer(classify, accelerator="cpu", workers_per_device=workers, timeout=60).run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=front_ends,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
