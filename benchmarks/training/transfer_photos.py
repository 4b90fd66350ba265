"""Measures what real pretrained weights gain on few photos: ants and bees, with 5 to 120 training photos of each.

    python -m benchmarks.training.transfer_photos [--data DIR] [--seeds N] [--ways WAY ...] [--sizes N ...] [--set K=V]

The network is EfficientNet-Lite0 with the ImageNet weights of the extra `imagenet` (`examples/efficientnet_lite.py`).
It is trained in three ways, each by its built-in recipe as it comes: the head alone (`transfer`), first the head and
then all (`finetune`), and from fresh weights (`scratch`). Its norms take in 1 % of each batch's statistics, and few
photos make too few steps for that. Therefore ResNet-18 is trained from fresh weights as well (`resnet18`): its norms
take in 10 %.

Training sees the first so many photos of each class in an order that the seed draws, and holds a part of them out. The
153 photos of `val/` are measured once a run, at the end. Nothing is chosen by them. `--set` tries another value of a
recipe; then compare the means of the held-out photos.

Each run is written to the results as soon as it ends. The same command goes on where it was stopped.
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from classifier.checkpoint import Header
from examples import efficientnet_lite
from training.commands.import_network import import_network
from training.commands.train import train
from training.networks import own_code
from training.recipes.builtin import builtin
from training.recipes.overrides import with_settings
from training.recipes.recipe import Recipe

RESULTS = Path(__file__).parents[1] / "results" / "transfer_photos.json"
NETWORK = own_code.load(f"{efficientnet_lite.__file__}:lite0").architecture
ALL = 1_000_000  # photos of each class: more than there are
SIZES = (5, 10, 20, 40, 80, ALL)
WAYS = ("transfer", "finetune", "scratch", "resnet18")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hymenoptera"), help="with train/ and val/")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each pretrained way (default: %(default)s)")
    parser.add_argument("--scratch-seeds", type=int, default=2, help="runs from scratch (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="(default: all)")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="training photos of each class")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pretrained = ("transfer", "finetune")
    seeds = {way: arguments.seeds if way in pretrained else arguments.scratch_seeds for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.data)
        runs = Runs(arguments.results)
        # The largest first, for they are what people ask for.
        for size in sorted(arguments.sizes, reverse=True):
            for way in arguments.ways or seeds:
                for seed in range(seeds[way]):
                    recipe = with_settings(bench.recipe(way, seed), arguments.settings)
                    if not runs.has(size, recipe):
                        runs.add(size, recipe, arguments.settings, bench.run(recipe, size))
    print(f"{'photos of each class':>20}  {'way':10}{'mean':>8}{'spread':>8}   by seed")
    for row in runs.summary():
        found = ", ".join(f"{accuracy:.1%}" for accuracy in row["accuracies"])
        print(f"{row['photos_of_each_class']:>20}  {row['way']:10}{row['mean']:>8.2%}{row['spread']:>8.2%}   {found}")
        print(f"{'':20}  held out {row['held_out_mean']:.2%}, loss {row['held_out_loss']:.4f}  {' '.join(row['set'])}")
    return 0


class Runs:
    """The file of results, which grows by a run at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []

    def has(self, size: int, recipe: Recipe) -> bool:
        return any((run["size"], run["recipe"]) == (size, recipe.model_dump(mode="json")) for run in self._runs)

    def add(self, size: int, recipe: Recipe, settings: list[str], found: dict[str, Any]) -> None:
        what = {"way": recipe.name, "size": size, "set": settings, "recipe": recipe.model_dump(mode="json")}
        self._runs.append(what | found)
        content = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
            "network": NETWORK,
            "test_photos": found["test_photos"],
            "summary": self.summary(),
            "runs": self._runs,
        }
        self._path.write_text(json.dumps(content, indent=2) + "\n")

    def summary(self) -> list[dict[str, Any]]:
        """The runs of each way with as many photos and the same settings, together."""
        together: dict[tuple[int, str, tuple[str, ...]], list[dict[str, Any]]] = {}
        for run in self._runs:
            together.setdefault((run["size"], run["way"], tuple(run["set"])), []).append(run)
        return [
            {
                "photos_of_each_class": "all" if size == ALL else size,
                "way": way,
                "set": settings,
                "mean": statistics.mean(accuracies := [run["accuracy"] for run in runs]),
                "spread": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
                "held_out_mean": statistics.mean(run["held_out_accuracy"] for run in runs),
                "held_out_loss": statistics.mean(run["held_out_loss"] for run in runs),
                "accuracies": accuracies,
            }
            for (size, way, settings), runs in sorted(together.items())
        ]


class Bench:
    def __init__(self, folder: Path, data: Path) -> None:
        self._folder = folder
        self._data = data
        self._parent = import_network(
            f"{efficientnet_lite.__file__}:lite0",
            labels=efficientnet_lite.labels(),
            store=folder / "store",
            name="lite0",
            preprocess=efficientnet_lite.PREPROCESS,
        )

    def recipe(self, way: str, seed: int) -> Recipe:
        preprocess = efficientnet_lite.PREPROCESS.model_dump()
        recipe = builtin("photos", "scratch:resnet18" if way == "resnet18" else way, network=_network_of(way))
        return recipe.replace(preprocess=preprocess, seed=seed)

    def run(self, recipe: Recipe, size: int) -> dict[str, Any]:
        """Trains and measures once, on so many photos of each class."""
        data = self._folder / "data"
        photos = sum(1 for _ in chosen(self._data, data, size, recipe.seed))
        path = train(
            recipe,
            store=self._folder / "store",
            name="insects",
            data=data,
            runs=self._folder / "runs",
            device="cpu",
            pictures=False,
            parent=self._parent if recipe.start == "backbone" else None,
        )
        manifest = Header.read(path).manifest
        path.unlink()
        shutil.rmtree(data)
        if manifest.metrics is None or manifest.provenance is None or manifest.curve is None:
            raise AssertionError("training measures what it publishes")
        best = manifest.curve[manifest.provenance.epoch - 1]
        return {
            "training_photos": photos,
            "test_photos": manifest.metrics.samples,
            "accuracy": manifest.metrics.accuracy,
            "loss": manifest.metrics.loss,
            "epoch": best.epoch,
            "held_out_accuracy": best.held_out_accuracy,
            "held_out_loss": best.held_out_loss,
        }


def _network_of(way: str) -> str | None:
    return None if way == "resnet18" else NETWORK


def chosen(source: Path, target: Path, size: int, seed: int) -> Iterator[Path]:
    """Links `val/` and the first photos of each class of `train/`, in the seed's order. Gives the latter."""
    (target / "train").mkdir(parents=True)
    (target / "val").symlink_to((source / "val").resolve())
    for folder in sorted(path for path in (source / "train").iterdir() if path.is_dir()):
        (target / "train" / folder.name).mkdir()
        for path in first(sorted(folder.iterdir()), size, seed):
            link = target / "train" / folder.name / path.name
            link.symlink_to(path.resolve())
            yield link


def first(paths: Sequence[Path], size: int, seed: int) -> list[Path]:
    """Returns the first paths of a drawn order: those of a smaller size are among those of a larger one."""
    return random.Random(seed).sample(paths, len(paths))[:size]


if __name__ == "__main__":
    sys.exit(main())
