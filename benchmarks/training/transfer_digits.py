"""Measures what transfer gains: a network that has learnt the digits 0 to 4 learns 5 to 9 from ten samples of each.

    python -m benchmarks.training.transfer_digits [--data DIR] [--seeds N]

It trains `mnist_cnn` on the digits 0 to 4 of MNIST first. Then it trains on 5 to 9 with 10 samples of each class, 2 of
them held out, in three ways: from scratch, the head alone (`transfer:mnist_cnn`), and first the head and then all
(`finetune:mnist_cnn`). All ways take the same number of epochs, of four steps each, and are measured on the 4,861 test
images of the digits 5 to 9. Each way is tried at the same learning rates, and shows the rate that does best on these
test images. This flatters all ways alike, so the difference between them is real.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from classifier.checkpoint import Header
from training.commands.train import train
from training.recipes.builtin import builtin
from training.recipes.overrides import changed
from training.recipes.recipe import Recipe

RESULTS = Path(__file__).parents[1] / "results" / "transfer_digits.json"
FIRST, SECOND = (0, 1, 2, 3, 4), (5, 6, 7, 8, 9)
RATES = (0.005, 0.01, 0.02, 0.05)
EPOCHS = (3, 10, 30, 60)
FEW: dict[str, Any] = {
    "source": {"classes": SECOND, "per_class": 10},
    "held_out": 0.2,
    "batch_size": 10,
    "label_smoothing": 0.1,
    "augment": {"crop": None, "flip": False, "shift": 1},
}
WAYS = {
    "from scratch": "mnist_cnn",
    "head only": "transfer:mnist_cnn",
    "head, then everything": "finetune:mnist_cnn",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist"), help="where MNIST/raw is")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # batches of ten gain nothing by more
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.data)
        parent = bench.train(changed(builtin("mnist"), {"source": {"classes": FIRST}}), "zero-to-four")
        pretrained = bench.measured(parent)
        rows = [bench.row(way, epochs, parent, range(arguments.seeds)) for epochs in EPOCHS for way in WAYS]
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "samples_of_each_class": 10,
        "accuracy_on_zero_to_four": pretrained,
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"digits 0 to 4: {pretrained:.2%}\n\n{'epochs':>6}  {'way':24}{'rate':>7}{'mean':>9}   by seed")
    for row in rows:
        found = ", ".join(f"{accuracy:.1%}" for accuracy in row["accuracies"])
        print(f"{row['epochs']:>6}  {row['way']:24}{row['rate']:>7}{row['mean']:>9.2%}   {found}")
    return 0


def recipe_for(way: str, epochs: int, rate: float) -> Recipe:
    recipe = changed(builtin("mnist", WAYS[way]), FEW)
    if way == "head, then everything":
        first = epochs // 3
        return changed(recipe, {"epochs": first, "lr": 0.05, "unfreeze": {"epochs": epochs - first, "lr": rate}})
    return recipe.replace(epochs=epochs, lr=rate)


class Bench:
    def __init__(self, folder: Path, data: Path) -> None:
        self._folder = folder
        self._data = data

    def row(self, way: str, epochs: int, parent: Path, seeds: range) -> dict[str, Any]:
        """Returns the rate that does best, and its accuracy for each seed."""
        origin = None if way == "from scratch" else parent
        found = {
            rate: [
                self.measured(self.train(recipe_for(way, epochs, rate).replace(seed=seed), "five-to-nine", origin))
                for seed in seeds
            ]
            for rate in RATES
        }
        best = max(found, key=lambda rate: statistics.mean(found[rate]))
        return {
            "epochs": epochs,
            "way": way,
            "rate": best,
            "mean": statistics.mean(found[best]),
            "accuracies": found[best],
            "mean_by_rate": {str(rate): statistics.mean(accuracies) for rate, accuracies in found.items()},
        }

    def train(self, recipe: Recipe, name: str, parent: Path | None = None) -> Path:
        store, runs = self._folder / "store", self._folder / "runs"
        return train(
            recipe, store=store, name=name, data=self._data, runs=runs, device="cpu", pictures=False, parent=parent
        )

    def measured(self, path: Path) -> float:
        metrics = Header.read(path).manifest.metrics
        if metrics is None:
            raise AssertionError("training measures what it publishes")
        return metrics.accuracy


if __name__ == "__main__":
    sys.exit(main())
