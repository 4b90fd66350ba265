"""ALL the torch computing of one version on one device: pixels -> batch -> logits -> scores -> rows."""

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
    """Computes as many batches at once, for as many threads, as it has slots; whoever comes beyond that waits.

    Args:
        network: in eval mode, on the CPU; it is moved.
        max_items: of one batch. It becomes less, for good, when memory runs out: more are computed in pieces.
        precision: what the network computes in, a key of PRECISIONS; its logits are float32 in any case.
        compile_with: a backend of torch.compile; None does without. All that computes with it then needs one number of
            torch's threads: for another one torch compiles anew.
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
        self.seconds_alone = math.inf  # for one image, the least that was seen; whoever warms it up measures it
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
        """Once, before the first batch, while no other thread computes: compiles, and captures what can be replayed.

        Args:
            capture: makes one for each slot. CUDA graphs, if not said; elsewhere nothing is captured, then.

        Raises: RuntimeError, if it was to be compiled and cannot be, or if there is no memory for one image.
        """
        if self._compiles:
            # One for 1, one for any number up to 15, one for any beyond: torch's convolutions differ there.
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
        """float32 [n, classes] on the CPU, of at least one image."""
        return torch.cat(self._computed(pixels, torch.Tensor.clone))  # as a slot overwrites what it captured

    def predict(self, items: Sequence[Item]) -> list[Row]:
        """A row for each of at least one image, as long as the largest `top_k` wants it; `row_decoder` decodes them."""
        most = min(max(item.top_k for item in items), len(self.manifest.labels))
        tables = self._computed([item.pixels for item in items], partial(self._table, most))
        return [row for table in tables for row in table.numpy()]

    def _computed(self, pixels: Sequence[Pixels], read: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        """What `read` makes of the logits, on the CPU, of one piece after the other."""
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
    """No method: a predictor that refers to itself would keep its weights until garbage is looked for."""

    def forward(batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network(normalize(batch))
        return logits.float()

    if compile_with is None:
        return forward
    # Torch counts how often it has compiled a code object, and stops at 8: all predictors would share this one.
    forward.__code__ = forward.__code__.replace()
    return torch.compile(forward, backend=compile_with)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Torch says it by this type for the host, and on the device not always by its own OutOfMemoryError."""
    return "out of memory" in str(error) or "can't allocate memory" in str(error)
