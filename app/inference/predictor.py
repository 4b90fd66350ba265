"""Does ALL the torch computing of one version on one device: pixels -> batch -> logits -> scores -> rows."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

import numpy as np
import torch
from torch import nn

from app.engine.rows import Item, Row, RowDecoder
from app.inference.cuda_graphs import CudaCapture
from app.inference.slots import Capture, Forward, Slot
from app.telemetry.log import event
from classifier.manifest import Manifest
from classifier.normalize import Normalize, normalizer
from classifier.preprocess import Pixels
from classifier.scores import SCORES

logger = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Predictor:
    """Computes the batches of one version. As many threads as there are slots may compute at the same time.

    Args:
        network: the version's network in eval mode, on the CPU. It is moved to the device.
        max_items: how many images one batch may have. When memory runs out it becomes less, for good, and larger
            batches are computed in pieces.
        precision: what the network computes in, a key of PRECISIONS. Its logits are float32 in any case.
        compile_with: a backend of torch.compile; None does without. All threads must then use the same number of
            torch's threads, because torch compiles anew for another number.
    """

    def __init__(
        self,
        network: nn.Module,
        manifest: Manifest,
        *,
        device: torch.device,
        max_items: int,
        precision: str = "fp32",
        slots: int = 1,
        compile_with: str | None = None,
    ) -> None:
        self.manifest = manifest
        self.max_items = max_items
        self.device = device
        self.precision = precision
        self.seconds_alone = math.inf  # the least that one image took; whoever warms it up measures it
        # channels_last: the layout that uint8 images have anyway, and the faster one for convolutions on CPU and GPU.
        dtype = PRECISIONS[precision]
        network = network.to(device, dtype).to(memory_format=torch.channels_last)
        normalize = normalizer(manifest.preprocess, device=device, dtype=dtype)
        known = manifest.out_of_distribution
        self._score = None if known is None else SCORES[known.method]
        self.row_decoder = RowDecoder(manifest.labels, None if known is None else known.threshold)
        self._compiles = compile_with is not None
        forward = _forward(network, normalize, compile_with=compile_with)
        self._slots = [
            Slot(forward, manifest.preprocess.shape, max_items=max_items, device=device) for _ in range(slots)
        ]
        self._free: SimpleQueue[Slot] = SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the slots' streams do not wait for the one that the weights came by

    def warm_up(self, capture: Callable[[], Capture] | None = None) -> None:
        """Compiles the network, and captures what can be replayed.

        It is called once, before the first batch, while no other thread computes.

        Args:
            capture: makes a capture for each slot. None means CUDA graphs on a CUDA device, and nothing elsewhere.

        Raises: RuntimeError, if the network cannot be compiled, or if there is no memory for one image.
        """
        if self._compiles:
            # Torch compiles for 1 image, for up to 15, and for more: its convolutions differ there.
            for count in sorted({1, min(2, self.max_items), self.max_items}):
                self.logits([np.zeros(self.manifest.preprocess.shape, np.uint8)] * count)
        if capture is None and self.device.type == "cuda":
            capture = CudaCapture
        if capture is None:
            return
        try:
            for slot in self._slots:
                with torch.inference_mode(), slot.turn:
                    self._shrink(slot.capture(capture(), self.max_items))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            event(logger, "nothing captured", level=logging.WARNING, model=self.manifest.model, reason=reason)

    def logits(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        """Computes the logits of at least one image: float32 [n, classes], on the CPU."""
        return torch.cat(self._computed(pixels, torch.Tensor.clone))  # a slot overwrites what it captured

    def predict(self, items: Sequence[Item]) -> list[Row]:
        """Computes a row for each of at least one image. A row is as long as the largest `top_k` wants it."""
        most = min(max(item.top_k for item in items), len(self.manifest.labels))
        tables = self._computed([item.pixels for item in items], partial(self._table, most))
        return [row for table in tables for row in table.numpy()]

    def _computed(self, pixels: Sequence[Pixels], read: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        """Computes one piece after the other, and gives what `read` makes of its logits, on the CPU."""
        results: list[torch.Tensor] = []
        done = 0
        while done < len(pixels):
            batch = pixels[done : done + self.max_items]
            try:
                results.append(self._of_one_batch(batch, read))
            except RuntimeError as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
                self._shrink(len(batch) // 2)
            else:
                done += len(batch)
        return results

    def _of_one_batch(self, pixels: Sequence[Pixels], read: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        slot = self._free.get()
        try:
            with torch.inference_mode(), slot.turn:
                return read(slot.logits(pixels)).cpu()  # which waits for the device
        finally:
            self._free.put(slot)

    def _table(self, most: int, logits: torch.Tensor) -> torch.Tensor:
        probabilities, indices = torch.topk(torch.softmax(logits / self.manifest.temperature, dim=1), most, dim=1)
        columns = [probabilities, indices.float()]
        if self._score is not None:
            columns.append(self._score(logits)[:, None])
        return torch.cat(columns, dim=1)  # one copy off the device for all

    def _shrink(self, max_items: int) -> None:
        if max_items < self.max_items:
            event(
                logger,
                "out of memory; smaller batches from now on",
                level=logging.WARNING,
                model=self.manifest.model,
                max_items=max_items,
            )
            self.max_items = max_items


def _forward(network: nn.Module, normalize: Normalize, *, compile_with: str | None) -> Forward:
    """Makes the forward pass. As a method it would refer to its predictor, whose weights then stayed until the next
    garbage collection."""

    def forward(batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network(normalize(batch))
        return logits.float()

    if compile_with is None:
        return forward
    # Torch counts how often it has compiled a code object, and stops at 8: all predictors would share this one.
    forward.__code__ = forward.__code__.replace()
    return torch.compile(forward, backend=compile_with)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Says whether memory has run out. On the device torch does not always raise its own OutOfMemoryError."""
    return "out of memory" in str(error) or "can't allocate memory" in str(error)
