"""Measures images per second of the input pipeline alone, beside ImageFolder and torchvision.transforms.v2.

    python -m benchmarks.training.photo_pipeline [--data DIR] [--rounds N] [--workers N]

Both go from the same JPEG files to the same normalised float batches of 32 at 224x224, with the same number of worker
processes on the same cores, in turns. The baseline is what torchvision's reference script for classification sets up
(PIL backend, v2): RandomResizedCrop, RandomHorizontalFlip, perhaps TrivialAugmentWide, PILToTensor, ToDtype, Normalize,
ToPureTensor, in a DataLoader. Its workers are persistent here, and a first batch of each is not timed: neither's start
counts. "uint8" is ours without the last step, which is the GPU's where there is one: flipping and normalising the whole
batch. Cameras make larger photos than those at hand, so the last case has these enlarged.
"""

import argparse
import json
import os

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as `python -m training` does, and before torch is imported

import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from classifier.normalize import normalizer
from classifier.progress import Progress
from training.data.augment import augmented
from training.data.dataset import load_dataset
from training.recipes.builtin import builtin

RESULTS = Path(__file__).parents[1] / "results" / "photo_pipeline.json"
CPU = torch.device("cpu")
BATCH = 32
SCALE = (0.08, 1.0)  # the reference's
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Epoch = Callable[[], Iterator[torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Case:
    """Is a folder of photos to measure with.

    Args:
        repeats: how often a round goes through the photos of the folder.
    """

    name: str
    folder: Path
    trivial: bool
    repeats: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hymenoptera"), help="with train/ and val/")
    parser.add_argument("--rounds", type=int, default=7, help="of each, in turns")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode, of both")
    parser.add_argument("--repeats", type=int, default=8, help="of the training photos in a round")
    parser.add_argument("--no-result", action="store_true", help="do not write the figures into benchmarks/results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        photos, large = _copied(arguments.data, scratch / "photos"), _enlarged(arguments.data, scratch / "large")
        cases = [
            Case("crop, flip", photos, trivial=False, repeats=arguments.repeats),
            Case("crop, flip, TrivialAugment", photos, trivial=True, repeats=arguments.repeats),
            Case("crop, flip; photos of 4000x3000", large, trivial=False, repeats=2),
        ]
        figures = {case.name: _compared(case, arguments, scratch) for case in cases}
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": PIL.__version__},
        "workers": arguments.workers,
        "batch_size": BATCH,
        "load_average": os.getloadavg()[0],
        "images_per_second": figures,
    }
    if not arguments.no_result:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _compared(case: Case, arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    pipelines = {
        "ours": _ours(case, arguments.workers, scratch),
        "uint8": _ours(case, arguments.workers, scratch, normalized=False),
        "reference": _reference(case, arguments.workers),
    }
    for epoch in pipelines.values():
        for _ in epoch():
            pass
    rates: dict[str, list[float]] = {name: [] for name in pipelines}
    for number in range(arguments.rounds):
        for name in list(pipelines)[:: 1 if number % 2 else -1]:
            rates[name].append(_rate(pipelines[name]))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {name: medians[name] / medians["reference"] for name in ("ours", "uint8")}
    figures = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in medians.items())
    print(f"{case.name}: {figures}; {ratios['ours']:.2f} times (uint8: {ratios['uint8']:.2f})")
    return {"rounds": rates, "median": medians, "over_reference": ratios}


def _rate(epoch: Epoch) -> float:
    """Returns images per second, counted from the moment when the first batch is there."""
    batches = epoch()
    next(batches)
    start = time.perf_counter()
    images = sum(len(batch) for batch in batches)
    return images / (time.perf_counter() - start)


def _ours(case: Case, workers: int, scratch: Path, *, normalized: bool = True) -> Epoch:
    preprocess = {"mode": "RGB", "resize": 256, "crop": (224, 224), "mean": MEAN, "std": STD}
    augment = {"crop": SCALE, "flip": True, "trivial": case.trivial}
    recipe = builtin("photos").replace(preprocess=preprocess, augment=augment, held_out=1)
    dataset = load_dataset(recipe, folder=case.folder, scratch=scratch, workers=workers, progress=Progress.silent())
    normalize, generator = normalizer(recipe.preprocess, device=CPU), torch.Generator()
    split = dataset.train

    def epoch() -> Iterator[torch.Tensor]:
        order = torch.cat([torch.randperm(len(split)) for _ in range(case.repeats)])
        for images, _ in split.batches(torch.split(order, BATCH), device=CPU, draw=int(order[0])):
            yield normalize(augmented(images, recipe.augment, generator)) if normalized else images

    return epoch


def _reference(case: Case, workers: int) -> Epoch:
    transforms: list[Any] = [v2.RandomResizedCrop(224, interpolation=v2.InterpolationMode.BILINEAR, antialias=True)]
    transforms += [v2.RandomHorizontalFlip(0.5)]
    transforms += [v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)] if case.trivial else []
    transforms += [v2.PILToTensor(), v2.ToDtype(torch.float, scale=True), v2.Normalize(MEAN, STD), v2.ToPureTensor()]
    folder = ImageFolder(str(case.folder / "train"), transform=v2.Compose(transforms))
    loader: DataLoader[Any] = DataLoader(
        ConcatDataset([folder] * case.repeats), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )

    def epoch() -> Iterator[torch.Tensor]:
        for images, _ in loader:
            yield images

    return epoch


def _copied(data: Path, folder: Path) -> Path:
    return Path(shutil.copytree(data, folder, ignore=shutil.ignore_patterns("*.gif")))


def _enlarged(data: Path, folder: Path) -> Path:
    """Writes thirty photos of each class, as large as a camera's, to train on, and one for val/."""
    for part, count in (("train", 30), ("val", 1)):
        for label in sorted(path for path in (data / part).iterdir() if path.is_dir()):
            (folder / part / label.name).mkdir(parents=True)
            for path in sorted(label.glob("*.jpg"))[:count]:
                large = Image.open(path).convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
                large.save(folder / part / label.name / path.name, quality=90)
    return folder


if __name__ == "__main__":
    sys.exit(main())
