"""Measures a network as a program beside the same network known by its name, both as the server runs them.

    python -m benchmarks.serving.exported [--network NAME]... [--rounds 7] [--json FILE]

Both are optimized as at loading. Their batches alternate in one run. A figure is the median of the rounds, in
milliseconds a batch; the ratio is that of the medians.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from app.inference.optimize.optimize import optimize
from classifier.architectures import build
from classifier.manifest import Manifest
from classifier.preprocess import Preprocess
from classifier.program.check import check
from classifier.program.network import ProgramNetwork
from training.networks.export_program import export_program

NETWORKS = {"resnet18": 224, "mobilenet_v3_large": 224, "vit_b_32": 224, "mnist_cnn": 28}
BATCHES = (1, 8, 32)
CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--network", choices=NETWORKS, action="append", help="only this one; may be given again")
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    arguments = parser.parse_args()
    table = Table("network", "threads", "batch", "named ms", "exported ms", "ratio")
    figures = []
    default = torch.get_num_threads()
    for architecture in arguments.network or NETWORKS:
        edge = NETWORKS[architecture]
        networks = _networks(architecture, edge)
        for threads in sorted({1, default}):
            torch.set_num_threads(threads)
            for batch in BATCHES:
                figure = _measured(networks, torch.rand(batch, *_shape(architecture, edge)), arguments.rounds)
                figures.append({"network": architecture, "threads": threads, "batch": batch, **figure})
                table.add_row(
                    *(f"{each:.3g}" if isinstance(each, float) else str(each) for each in figures[-1].values())
                )
        torch.set_num_threads(default)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"torch": torch.__version__, "figures": figures}, indent=1) + "\n")


def _shape(architecture: str, edge: int) -> tuple[int, int, int]:
    return (1 if architecture == "mnist_cnn" else 3, edge, edge)


def _networks(architecture: str, edge: int) -> dict[str, nn.Module]:
    shape = _shape(architecture, edge)
    torch.manual_seed(0)
    named = build(architecture, CLASSES).eval().requires_grad_(False)
    exported = export_program(named, shape, architecture)  # the same weights: very small values are slower
    largest = check(exported.program, shape, CLASSES, max(BATCHES))
    networks: dict[str, nn.Module] = {
        "named": named,
        "exported": ProgramNetwork(exported.program, exported.tensors, largest=largest).eval(),
    }
    preprocess = Preprocess(
        mode="L" if shape[0] == 1 else "RGB",
        resize=(edge, edge),
        crop=None,
        mean=(0.5,) * shape[0],
        std=(0.25,) * shape[0],
    )
    labels = tuple(str(i) for i in range(CLASSES))
    manifest = Manifest(model="exported", architecture=architecture, labels=labels, preprocess=preprocess)
    for network in networks.values():
        optimize(network, manifest, device=torch.device("cpu"), dtype=torch.float32)
        network.to(memory_format=torch.channels_last)
    return networks


def _measured(networks: dict[str, nn.Module], images: torch.Tensor, rounds: int) -> dict[str, Any]:
    images = images.to(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for i in range(rounds + 2):  # two to warm up
            for name, network in networks.items():
                began = time.perf_counter()
                network(images)
                if i > 1:
                    seconds[name].append(time.perf_counter() - began)
    named, exported = (statistics.median(seconds[name]) * 1e3 for name in ("named", "exported"))
    return {"named_ms": named, "exported_ms": exported, "ratio": exported / named}


if __name__ == "__main__":
    main()
