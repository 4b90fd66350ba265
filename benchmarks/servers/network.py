"""What LitServe and Mosec are given to serve: decoding by Pillow, flambeau's computing, and as little else."""

import json
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from classifier.checkpoint import Checkpoint, Header
from classifier.normalize import normalizer
from classifier.preprocess import Pixels

TOP_K = 5


def checkpoint_path() -> Path:
    return Path(os.environ["CHECKPOINT"])


def is_small() -> bool:
    """Whether an image takes so little computing that the ways to and from it are what counts."""
    height, width, _ = Header.read(checkpoint_path()).manifest.preprocess.shape
    return height * width <= 32 * 32


class Network:
    """Loaded where it is used, in a process with one thread of torch: as many processes as cores serve best."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        checkpoint = Checkpoint.load(checkpoint_path())
        manifest = checkpoint.manifest
        self._preprocess = manifest.preprocess
        self._network = checkpoint.build().to(memory_format=torch.channels_last)
        self._normalize = normalizer(manifest.preprocess, device=torch.device("cpu"))
        self._temperature = manifest.temperature
        self._labels = [json.dumps(label) for label in manifest.labels]

    def pixels(self, image: bytes) -> Pixels:
        return self._preprocess.to_pixels(Image.open(BytesIO(image)))

    def documents(self, batch: Sequence[Pixels]) -> list[bytes]:
        """The answers, as JSON."""
        with torch.inference_mode():
            logits = self._network(self._normalize(torch.from_numpy(np.stack(batch))))
            probabilities, indices = torch.softmax(logits / self._temperature, dim=1).topk(TOP_K, dim=1)
            rows = zip(probabilities.tolist(), indices.tolist(), strict=True)
        return [self._document(*row) for row in rows]

    def _document(self, probabilities: Sequence[float], indices: Sequence[int]) -> bytes:
        members = ",".join(
            f'{{"label":{self._labels[index]},"index":{index},"probability":{probability:.6g}}}'
            for probability, index in zip(probabilities, indices, strict=True)
        )
        return f'{{"predictions":[{members}]}}'.encode()
