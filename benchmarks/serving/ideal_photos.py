"""Measures the most that this machine could serve of photos: decoding and forward passes in one process, no HTTP.

    python -m benchmarks.serving.ideal_photos CHECKPOINT PHOTOS [--seconds 3]

A pool of threads decodes the next batch while each lane computes one. A lane is a thread. Sizes of batches, numbers of
lanes and numbers of torch's threads are tried. The ideal is the best of float32 as torch computes it. The other
variants show what flambeau's own changes to the network bring (`app.inference.optimize.optimize`), and bfloat16.
The logits of bfloat16 differ by more than the proof of a checkpoint allows for float32.
"""

import argparse
import copy
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from app.decoding.image import decode
from app.inference.optimize.optimize import optimize
from classifier.checkpoint import Checkpoint
from classifier.cores import usable_cores
from classifier.normalize import normalizer
from classifier.preprocess import Pixels, Preprocess

BATCHES = (1, 4, 8, 16, 32)
# Numbers of lanes, and of torch's threads in each.
SHAPES = ((1, 1), (1, 2), (2, 1))

Compute = Callable[[Sequence[Pixels]], object]


@dataclass(frozen=True, slots=True)
class Setup:
    """A variant of the network, the images in a batch, the lanes, and torch's threads in each lane."""

    variant: str
    batch: int
    lanes: int
    threads: int


@dataclass(frozen=True, slots=True)
class Rate:
    """What a setup reached: images per second, and microseconds of CPU for an image."""

    setup: Setup
    images_per_second: float
    cpu_us: float


class Ideal:
    """Measures setups on encoded photos in memory.

    Args:
        photos: JPEG or PNG files, which are decoded in turns.

    Raises: CheckpointError, OSError.
    """

    def __init__(self, checkpoint: Path, photos: Sequence[bytes]) -> None:
        content = Checkpoint.load(checkpoint)
        self._photos = photos
        self._preprocess = content.manifest.preprocess
        network = content.build()

        def as_served(dtype: torch.dtype) -> nn.Module:
            served = copy.deepcopy(network)
            optimize(served, content.manifest, device=torch.device("cpu"), dtype=dtype)
            return served

        self._variants = {
            "float32": _compute(network, torch.float32, self._preprocess),
            "as served": _compute(as_served(torch.float32), torch.float32, self._preprocess),
            "bfloat16": _compute(copy.deepcopy(network), torch.bfloat16, self._preprocess),
            "as served, bfloat16": _compute(as_served(torch.bfloat16), torch.bfloat16, self._preprocess),
        }

    def tried(self, seconds: float) -> list[Rate]:
        """Tries all setups for so many seconds each. Returns the best of each variant; the first is the ideal."""
        best: list[Rate] = []
        for variant in self._variants:
            # What is best for float32 in lanes and threads is best for the others.
            shapes = SHAPES if not best else ((best[0].setup.lanes, best[0].setup.threads),)
            setups = [Setup(variant, batch, lanes, threads) for batch in BATCHES for lanes, threads in shapes]
            best.append(max((self.rate(setup, seconds) for setup in setups), key=lambda rate: rate.images_per_second))
        return best

    def rate(self, setup: Setup, seconds: float) -> Rate:
        """Measures a setup for so many seconds, after one batch in each lane to warm up."""
        compute, photos = self._variants[setup.variant], itertools.cycle(self._photos)
        with ThreadPoolExecutor(usable_cores()) as pool, ThreadPoolExecutor(setup.lanes) as lanes:

            def decoded() -> "Future[Pixels]":
                return pool.submit(decode, next(photos), self._preprocess)

            def lane(seconds: float) -> float:
                torch.set_num_threads(setup.threads)
                return _lane(compute, decoded, batch=setup.batch, seconds=seconds)

            list(lanes.map(lane, [0.0] * setup.lanes))
            cpu, clock = time.process_time(), time.perf_counter()
            images_per_second = sum(lanes.map(lane, [seconds] * setup.lanes))
            cores = (time.process_time() - cpu) / (time.perf_counter() - clock)
        return Rate(setup, images_per_second, cores / images_per_second * 1e6)


def _lane(compute: Compute, decoded: Callable[[], "Future[Pixels]"], *, batch: int, seconds: float) -> float:
    """Returns the images per second of one lane. The next batch is always being decoded, and batches are whole."""
    waiting = [decoded() for _ in range(batch)]
    wait(waiting)
    start, images = time.perf_counter(), 0
    while images == 0 or time.perf_counter() - start < seconds:
        pixels, waiting = [each.result() for each in waiting], [decoded() for _ in range(batch)]
        compute(pixels)
        images += batch
    rate = images / (time.perf_counter() - start)
    wait(waiting)
    return rate


def _compute(network: nn.Module, dtype: torch.dtype, preprocess: Preprocess) -> Compute:
    network = network.to(dtype).to(memory_format=torch.channels_last)
    normalize = normalizer(preprocess, device=torch.device("cpu"), dtype=dtype)

    def compute(pixels: Sequence[Pixels]) -> object:
        with torch.inference_mode():
            logits = network(normalize(torch.from_numpy(np.stack(pixels))))
            return torch.softmax(logits.float(), dim=1).topk(5, dim=1).values.tolist()

    return compute


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--seconds", type=float, default=3, help="how long each setup is measured")
    arguments = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(arguments.photos.iterdir())]
    for best in Ideal(arguments.checkpoint, photos).tried(arguments.seconds):
        setup = best.setup
        print(
            f"{setup.variant:<21}{best.images_per_second:>7.1f} images/s, {best.cpu_us / 1000:.1f} ms of CPU each"
            f" (batches of {setup.batch}, {setup.lanes} lanes with {setup.threads} threads)"
        )


if __name__ == "__main__":
    main()
