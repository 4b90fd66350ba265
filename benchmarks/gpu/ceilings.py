"""Measures what bounds a server with a GPU: the bare forward pass, and the decoding of photos.

Photos are decoded by the processor, and by the GPU.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.harness.barrier import barrier
from benchmarks.harness.seeded import DIGITS, PHOTOS
from classifier.architectures import build
from classifier.cores import usable_cores

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
JPEGS = 32  # photos in one batch on the GPU


@dataclass(frozen=True, slots=True)
class Forward:
    """The network alone. Its input is on the device already."""

    network: str
    precision: str
    batch: int
    images_per_second: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Decoding:
    """The way from JPEG bytes in memory to pixels."""

    how: str
    photos_per_second: float
    on_gpu: bool = False


def forward(
    networks: list[str], precisions: list[str], batches: list[int], *, device: torch.device, seconds: float
) -> Iterator[Forward]:
    """Measures each network in each precision at each size of batch, for so many seconds.

    On CUDA the network is a graph, with the best kernels that cuDNN finds by trying.
    """
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # the stubs lack it
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(max(1, usable_cores() - 1))  # as the engine, which leaves one core to the others
    for name in networks:
        preprocess, labels = (DIGITS, 10) if name == "mnist_cnn" else (PHOTOS, 1000)
        height, width, channels = preprocess.shape
        with device:
            network = build(name, labels).eval().requires_grad_(False)
        for precision in precisions:
            dtype = PRECISIONS[precision]
            network = network.to(dtype).to(memory_format=torch.channels_last)
            for batch in batches:
                images = torch.randn(batch, channels, height, width, device=device).to(dtype)
                each = _seconds_of(network, images.to(memory_format=torch.channels_last), seconds=seconds)
                yield Forward(name, precision, batch, batch / each, each * 1000)


def _seconds_of(network: nn.Module, images: torch.Tensor, *, seconds: float) -> float:
    """Returns the mean seconds of one forward pass, of as many as fit."""
    with torch.inference_mode():
        if images.device.type != "cuda":
            network(images)
            return _mean(lambda: network(images), seconds=seconds)
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # a capture needs a warm-up on another stream
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                network(images)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            network(images)
        graph.replay()
        return _mean_on_gpu(graph, seconds=seconds)


def _mean(once: Callable[[], object], *, seconds: float) -> float:
    began = now = time.perf_counter()
    count = 0
    while now - began < seconds:
        once()
        count, now = count + 1, time.perf_counter()
    return (now - began) / count


def _mean_on_gpu(graph: torch.cuda.CUDAGraph, *, seconds: float) -> float:
    """Returns the mean seconds of one replay.

    Two events stand around replays that are all in the queue, so the processor's part does not count.
    """
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    count = 2
    while True:
        begin.record()
        for _ in range(count):
            graph.replay()
        end.record()
        end.synchronize()
        spent: float = begin.elapsed_time(end) / 1000
        if spent >= seconds / 2:
            return spent / count
        count = int(count * min(50, 1 + seconds / max(spent, 1e-6)))


def decoding(photos: Path, *, seconds: float) -> Iterator[Decoding]:
    """Measures the server's decoder on all cores: threads of one process, then processes of one thread."""
    cores = usable_cores()
    for processes, threads in dict.fromkeys([(1, cores), (cores, 1)]):
        arguments = [str(photos), PHOTOS.model_dump_json(), f"{threads}", f"{seconds}"]
        rates = barrier("benchmarks.gpu.decoders", [arguments] * processes)
        how = f"{threads} threads" if processes == 1 else f"{processes} processes"
        yield Decoding(how, sum(rates))


def decoding_on_gpu(photos: Path, *, device: torch.device, seconds: float) -> Iterator[Decoding]:
    """Measures torchvision's decoder (nvJPEG) in batches of 32: alone, then with resize and crop on the GPU."""
    # Here, not above: importing torchvision takes a second or two, and most processes do not need it.
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import functional as transforms

    files = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8) for path in sorted(photos.iterdir())]
    jpegs = [file for file in files if file[:3].tolist() == [0xFF, 0xD8, 0xFF]]
    batches = [[jpegs[(first + i) % len(jpegs)] for i in range(JPEGS)] for first in range(0, len(jpegs), JPEGS)]

    def decoded(batch: list[torch.Tensor]) -> Any:
        return decode_jpeg(batch, mode=ImageReadMode.RGB, device=device)

    def cropped(batch: list[torch.Tensor]) -> Any:
        resized = (transforms.resize(image, [256], antialias=True) for image in decoded(batch))
        return torch.stack([transforms.center_crop(image, [224, 224]) for image in resized])

    for how, step in (("as large as they are", decoded), ("resized, cropped", cropped)):

        def all_of_them(step: Callable[[list[torch.Tensor]], Any] = step) -> None:
            for batch in batches:
                step(batch)
            torch.cuda.synchronize(device)

        all_of_them()
        rate = len(batches) * JPEGS / _mean(all_of_them, seconds=seconds)
        yield Decoding(f"GPU, batches of {JPEGS}, {how}", rate, on_gpu=True)
