"""Measures what it saves to compute a frozen network's features once: a head on AlexNet, for photos of ants and bees.

    python -m benchmarks.training.stored_features [--data DIR] [--epochs N]

It runs `alexnet_transfer`, from a checkpoint with fresh weights, for the time does not depend on them. The first epoch
computes the features of all training and held-out images, decoding included, and then makes the first pass. Later
epochs read what was stored. It also times an epoch of the same recipe that computes the features again, as it must if
images are augmented.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from classifier.architectures import build
from classifier.progress import Advance, Progress
from training.commands.import_weights import import_weights
from training.commands.train import train
from training.recipes.builtin import builtin

RESULTS = Path(__file__).parents[1] / "results" / "stored_features.json"


@dataclass(frozen=True, slots=True)
class Watched(Progress):
    """Notes how many seconds each step took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str, *, total: int, unit: str) -> Iterator[Advance]:
        started = time.perf_counter()
        with Progress.silent().step(title, total=total, unit=unit) as advance:
            yield advance
        self.seconds[title] = time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hymenoptera"))
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        origin = fresh_alexnet(Path(folder))
        stored = seconds(Path(folder), arguments.data, origin, epochs=arguments.epochs)
        anew = seconds(Path(folder), arguments.data, origin, epochs=2, flip=True)
    first = sum(taken for title, taken in stored.items() if title.startswith(("features", "epoch 1/")))
    later = [taken for title, taken in stored.items() if title.startswith("epoch") and "epoch 1/" not in title]
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "load_average": os.getloadavg()[0],
        "steps": stored,
        "first_epoch_seconds": first,
        "later_epoch_seconds": statistics.median(later),
        "ratio": first / statistics.median(later),
        "epoch_without_stored_features_seconds": anew["epoch 2/2"],
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"first epoch, features included  {first:8.2f} s")
    print(f"later epochs, median            {result['later_epoch_seconds']:8.3f} s   {result['ratio']:.0f}x")
    print(f"an epoch without stored ones    {anew['epoch 2/2']:8.2f} s")
    return 0


def fresh_alexnet(folder: Path) -> Path:
    torch.manual_seed(0)
    torch.save(build("alexnet", 2).state_dict(), folder / "alexnet.pth")
    return import_weights(folder / "alexnet.pth", architecture="alexnet", labels=("one", "two"), store=folder / "store")


def seconds(folder: Path, data: Path, origin: Path, *, epochs: int, flip: bool = False) -> dict[str, float]:
    """Returns the seconds of each step, by its title."""
    progress = Watched(Progress.silent().console)
    recipe = builtin("photos", "alexnet_transfer").replace(epochs=epochs, augment={"flip": flip})
    train(
        recipe,
        store=folder,
        data=data,
        runs=folder / "runs",
        device="cpu",
        pictures=False,
        parent=origin,
        progress=progress,
    )
    return progress.seconds


if __name__ == "__main__":
    sys.exit(main())
