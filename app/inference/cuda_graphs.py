"""CUDA graphs: all kernels of a forward pass, launched at once. Not measured: no GPU was at hand."""

from collections.abc import Callable

import torch

from app.inference.slots import Replay


class CudaCapture:
    """Captures on the current stream. Its graphs share their memory, so that only one of them may run at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], torch.Tensor]) -> tuple[Replay, torch.Tensor]:
        for _ in range(2):
            run()  # libraries set themselves up and choose their kernels; that cannot be captured
        stream = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads go on serving on this device meanwhile. (torch waits for the device itself.)
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            logits = run()
        return graph.replay, logits
