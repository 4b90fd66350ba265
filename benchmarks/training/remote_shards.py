"""Measures images per second of an epoch over shards: in a folder, and behind a URL where few fit on this machine.

    python -m benchmarks.training.remote_shards [--data DIR] [--rounds N] [--workers N]

All three give the same batches of 32 at 224x224, cropped and flipped at random, in turns. The S3 server is moto's, in a
process of its own on the same cores: what it takes to answer is taken from whoever decodes. "fetched" begins each epoch
with the shards that the one before has left, and holds at most half of them.
"""

import argparse
import json
import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as `python -m training` does, and before torch is imported

import itertools
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import torch

from classifier.progress import Progress
from tests.support.s3 import s3_server
from tests.support.shard_files import archive
from training.data.dataset import load_dataset
from training.recipes.builtin import builtin
from training.recipes.recipe import Recipe
from training.runs.loop import order_of

RESULTS = Path(__file__).parents[1] / "results" / "remote_shards.json"
CPU = torch.device("cpu")
BATCH = 32
SHARDS, MIXED = 16, 2

Epoch = Callable[[int], int]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hymenoptera"), help="with train/")
    parser.add_argument("--rounds", type=int, default=5, help="of each, in turns")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode")
    parser.add_argument("--no-result", action="store_true", help="do not write the figures into benchmarks/results")
    arguments = parser.parse_args()
    recipe = builtin("shards").replace(
        source={"kind": "shards", "mixed": MIXED}, augment={"crop": (0.08, 1.0), "flip": True}, held_out=0.02
    )
    with tempfile.TemporaryDirectory() as name, s3_server() as server:
        os.environ.update(server.environment)
        scratch = Path(name)
        paths = _shards(arguments.data, scratch / "photos")
        size = sum(path.stat().st_size for path in paths)
        url = server.new_url()
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        for path in paths:
            files.put_file(str(path), f"{url}/{path.name}")
        places: dict[str, tuple[Path | str, int | None]] = {
            "folder": (scratch / "photos" / "*.tar", None),
            "kept": (f"{url}/*.tar", None),
            "fetched": (f"{url}/*.tar", size // 2),
        }
        epochs = {
            name: _epoch(recipe, data, room, scratch / name, arguments.workers) for name, (data, room) in places.items()
        }
        rates: dict[str, list[float]] = {name: [] for name in epochs}
        for number in range(-1, arguments.rounds):  # the first is not counted
            for each in list(epochs)[:: 1 if number % 2 else -1]:
                start = time.perf_counter()
                images = epochs[each](number + 1)
                if number >= 0:
                    rates[each].append(images / (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: medians[name] / medians["folder"] for name in ("kept", "fetched")}
    print(", ".join(f"{name} {rate:,.0f}/s" for name, rate in medians.items()), ratios)
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"torch": torch.__version__},
        "workers": arguments.workers,
        "load_average": os.getloadavg()[0],
        "shards": {"count": SHARDS, "bytes": size, "mixed": MIXED, "room_bytes": size // 2},
        "images_per_second": {"rounds": rates, "median": medians, "over_folder": ratios},
    }
    if not arguments.no_result:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _shards(data: Path, folder: Path) -> list[Path]:
    """Writes the training photos into shards, as often as it takes."""
    photos = itertools.cycle(sorted((data / "train").rglob("*.jpg")))
    paths = []
    for number in range(SHARDS):
        files: dict[str, bytes] = {}
        for i, path in enumerate(itertools.islice(photos, 61)):
            files |= {f"{i:05}.jpg": path.read_bytes(), f"{i:05}.cls": path.parent.name.encode()}
        paths.append(archive(folder / f"train-{number:03}.tar", files))
    return paths


def _epoch(recipe: Recipe, data: Path | str, room: int | None, scratch: Path, workers: int) -> Epoch:
    dataset = load_dataset(
        recipe, folder=data, scratch=scratch, workers=workers, cache_bytes=room, progress=Progress.silent()
    )

    def epoch(number: int) -> int:
        order = order_of(dataset.train, torch.Generator().manual_seed(number), recipe)
        batches = dataset.train.batches(torch.split(order, BATCH), device=CPU, draw=number)
        return sum(len(images) for images, _ in batches)

    return epoch


if __name__ == "__main__":
    sys.exit(main())
