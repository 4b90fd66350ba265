"""A slot: a place where one batch at a time is computed, in buffers that stay where they are.

On CUDA a slot has a stream of its own. With two slots, the pixels of one batch are copied while another is computed.
What was captured for some number of images is replayed instead of called; on CUDA that launches all kernels at once.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from classifier.preprocess import Pixels

Forward = Callable[[torch.Tensor], torch.Tensor]
Replay = Callable[[], None]

# Runs a forward pass over buffers that stay where they are. It gives what repeats the pass, and the logits, which are
# written anew each time.
Capture = Callable[[Callable[[], torch.Tensor]], tuple[Replay, torch.Tensor]]


class Slot:
    """Computes batches for one thread at a time, which has entered `turn`.

    Args:
        forward: makes logits of a uint8 batch on the device.
        shape: the shape of one image's pixels.
        max_items: how many images one batch may have.
    """

    def __init__(self, forward: Forward, shape: tuple[int, ...], *, max_items: int, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._forward = forward
        self._staging = torch.empty((max_items, *shape), dtype=torch.uint8, pin_memory=cuda)
        self._images = self._staging.numpy()
        # Zeros, because the places beyond a batch are computed as well.
        self._batch = self._staging if device.type == "cpu" else torch.zeros_like(self._staging, device=device)
        self._captured: dict[int, tuple[Replay, torch.Tensor]] = {}  # by how many images, rising
        self.turn: AbstractContextManager[Any] = nullcontext()
        if cuda:
            self.turn = torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]

    def logits(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        """Computes the logits of 1 to `max_items` images: [n, classes], on the device.

        The next call may overwrite them.
        """
        count = len(pixels)
        np.stack(pixels, out=self._images[:count])
        if self._batch is not self._staging:
            self._batch[:count].copy_(self._staging[:count], non_blocking=True)
        for size, (replay, logits) in self._captured.items():
            if size >= count:
                replay()  # places beyond `count` hold images of earlier batches, whose logits nobody reads
                return logits[:count]
        return self._forward(self._batch[:count])

    def capture(self, capture: Capture, max_items: int) -> int:
        """Captures the forward pass for batches of up to `max_items`, once. Gives the size for which memory sufficed.

        Raises:
            torch.OutOfMemoryError: there is not even memory for one image.
            RuntimeError: the forward pass cannot be captured. It is called as before then.
        """
        captured = {}
        for size in sizes(max_items):
            batch = self._batch[:size]
            try:
                captured[size] = capture(lambda batch=batch: self._forward(batch))  # type: ignore[misc]
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
        self._captured = dict(sorted(captured.items()))
        return max(captured)


def sizes(max_items: int) -> list[int]:
    """Lists the sizes of the batches that are captured, the largest first: the others find room in its memory."""
    return [max_items, *(2**i for i in reversed(range((max_items - 1).bit_length())))]
