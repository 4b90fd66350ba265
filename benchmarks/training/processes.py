"""Measures images per second of training by one process and by two, with sums in one order and in any.

    python -m benchmarks.training.processes [--rounds N]

Each contestant is `python -m training`, or torchrun with two of them, on all cores of this machine. The first epoch of
each run is left out. A network with few parameters and small images shows what an exchange costs at worst; ResNet-18
what it costs beside real work.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from classifier.cores import usable_cores

RESULTS = Path(__file__).parents[1] / "results" / "training_processes.json"

_NETWORKS = {
    "mnist_cnn": ("--recipe", "mnist_cnn", "--epochs", "4", "--batch-size", "128", "--set", "source.samples=12000"),
    "resnet18": (
        *("--recipe", "scratch:resnet18", "--epochs", "3", "--batch-size", "64", "--set", "source.samples=1024"),
        *("--set", "preprocess.resize=[64,64]", "--set", "preprocess.mode=RGB"),
    ),
}
_COMMON = ("--no-pictures", "--set", "source.test_samples=64", "--set", "held_out=64", "--set", "precision=fp32")


@dataclass(frozen=True, slots=True)
class Contestant:
    """Is one way to train.

    Args:
        processes: so many are started by torchrun; 1: by nobody.
        flags: of the training.
        threads: of torch, by the environment; None: as many as there are cores.
    """

    processes: int = 1
    flags: tuple[str, ...] = ()
    threads: int | None = None


CONTESTANTS: Mapping[str, Contestant] = {
    "one process": Contestant(),
    "one process, one thread": Contestant(threads=1),
    "one process, two virtual ranks": Contestant(flags=("--set", "virtual_ranks=2")),
    "two processes, two virtual ranks": Contestant(2, ("--set", "virtual_ranks=2")),
    "two processes, --all-reduce": Contestant(2, ("--all-reduce",), threads=1),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of all contestants, in turns")
    parser.add_argument("--no-result", action="store_true", help="do not write the figures into benchmarks/results")
    arguments = parser.parse_args()
    rates: dict[str, dict[str, list[float]]] = {name: {each: [] for each in CONTESTANTS} for name in _NETWORKS}
    for _ in range(arguments.rounds):
        for network, flags in _NETWORKS.items():
            for name, contestant in CONTESTANTS.items():
                with tempfile.TemporaryDirectory() as folder:
                    rates[network][name] += _images_per_second(contestant, flags, Path(folder))
    medians = {network: {name: statistics.median(each) for name, each in of.items()} for network, of in rates.items()}
    result = {
        "machine": f"{platform.machine()}, {usable_cores()} cores, torch {torch.__version__}",
        "images_per_second": medians,
        "as_a_part_of_one_process": {
            network: {name: round(rate / of["one process"], 3) for name, rate in of.items()}
            for network, of in medians.items()
        },
        "spread": {
            network: {name: round((max(each) - min(each)) / statistics.median(each), 3) for name, each in of.items()}
            for network, of in rates.items()
        },
    }
    print(json.dumps(result, indent=2))
    if not arguments.no_result:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _images_per_second(contestant: Contestant, flags: Sequence[str], folder: Path) -> list[float]:
    """Trains in `folder`, and returns the images per second of each epoch but the first."""
    module = ["-m", "training", "strokes", *flags, *_COMMON, *contestant.flags]
    places = ["--runs", str(folder / "runs"), "--store", str(folder / "store")]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(contestant.processes)]
    threads = {} if contestant.threads is None else {"OMP_NUM_THREADS": str(contestant.threads)}
    subprocess.run(
        [sys.executable, *(torchrun if contestant.processes > 1 else ()), *module, *places],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | threads,
    )
    log = (folder / "runs" / "strokes" / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["images_per_second"] for line in log[1:]]


if __name__ == "__main__":
    sys.exit(main())
