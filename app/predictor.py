"""ALL the torch computing of one version on one device: pixels -> batch -> logits -> scores -> rows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from app.rows import Reader, Row
from classifier.manifest import Manifest
from classifier.normalize import normalizer
from classifier.preprocess import Pixels
from classifier.scores import SCORES

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Item(NamedTuple):
    """One image that waits for its predictions."""

    pixels: Pixels
    top_k: int


class Predictor:
    """Not thread-safe: the staging buffer is reused, so one thread at a time computes with it.

    Args:
        network: in eval mode, on the CPU; it is moved.
        max_items: of one batch, which the staging buffer holds.
        precision: what the network computes in, a key of PRECISIONS; its logits are float32 in any case.
    """

    def __init__(
        self,
        network: nn.Module,
        manifest: Manifest,
        *,
        device: torch.device,
        max_items: int,
        precision: str = "fp32",
    ) -> None:
        self.manifest = manifest
        self.max_items = max_items
        self.device = device
        # channels_last: the layout that uint8 images have anyway, and the faster one for convolutions on CPU and GPU.
        dtype = PRECISIONS[precision]
        self._network = network.to(device, dtype).to(memory_format=torch.channels_last)
        self._normalize = normalizer(manifest.preprocess, device=device, dtype=dtype)
        self.precision = precision
        self.seconds_alone = math.inf  # for one image, the least that was seen; whoever warms it up measures it
        self._staging = torch.empty(
            (max_items, *manifest.preprocess.shape), dtype=torch.uint8, pin_memory=device.type == "cuda"
        )
        self._rows = self._staging.numpy()
        known = manifest.out_of_distribution
        self._score = None if known is None else SCORES[known.method]
        self.reader = Reader(manifest.labels, None if known is None else known.threshold)

    def logits(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        """float32 [n, classes] on the device, of 1 to `max_items` images."""
        count = len(pixels)
        np.stack(pixels, out=self._rows[:count])
        with torch.inference_mode():
            batch = self._staging[:count].to(self.device, non_blocking=True)
            logits: torch.Tensor = self._network(self._normalize(batch))
            return logits.float()

    def predict(self, items: Sequence[Item]) -> list[Row]:
        """A row for each of 1 to `max_items` images, as long as the largest `top_k` wants it; `reader` reads them."""
        most = min(max(item.top_k for item in items), len(self.manifest.labels))
        logits = self.logits([item.pixels for item in items])
        with torch.inference_mode():
            probabilities, indices = torch.topk(torch.softmax(logits / self.manifest.temperature, dim=1), most, dim=1)
            columns = [probabilities, indices.float()]
            if self._score is not None:
                columns.append(self._score(logits)[:, None])
            return list(torch.cat(columns, dim=1).cpu().numpy())  # one copy off the device for all
