"""Measures how well digits are read that are written with other ink on other paper: the 10,000 MNIST test images.

    python -m benchmarks.training.strokes_on_mnist [--data DIR] [CHECKPOINT ...]

Without a checkpoint it takes the newest version of `strokes` in models_store/. That one has learnt drawn digits alone.
Each kind of paper is measured as the manifest says, and without the preprocess's `ink_on_paper`. In the usual polarity
both must be the same.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.normalize import normalizer
from classifier.preprocess import Preprocess
from classifier.scores import SCORES
from training.data import torchvision_datasets
from training.data.batches import InMemorySplit
from training.data.decode import stacked
from training.errors import TrainingError
from training.evaluation.logits import logits_of
from training.publishing.publish import path_of, versions
from training.recipes.recipe import TorchvisionSource

RESULTS = Path(__file__).parents[1] / "results" / "strokes_on_mnist.json"
SEED = 0
_CPU = torch.device("cpu")

Images = npt.NDArray[np.uint8]  # [n, height, width]


@dataclass(frozen=True, slots=True)
class Figures:
    """Holds shares of all images; the last is a share of those that are called in distribution."""

    in_distribution: float
    right: float
    right_in_distribution: float


def written(*, paper: int, ink: int, grain: float = 0.0, shade: int = 0) -> Callable[[Images], Images]:
    """Returns a function that writes MNIST's digits anew.

    Args:
        paper, ink: grey levels.
        grain: the standard deviation of what each pixel differs by chance, in levels.
        shade: how many levels darker the darkest corner or edge is. The light falls from another side in each image.
    """

    def write(digits: Images) -> Images:
        random = np.random.default_rng(SEED)
        height, width = digits.shape[1:]
        angles = random.uniform(0, 2 * np.pi, (len(digits), 1, 1))
        down, right = np.linspace(-0.5, 0.5, height)[:, None], np.linspace(-0.5, 0.5, width)
        darkness = (np.cos(angles) * right + np.sin(angles) * down) / np.sqrt(2) + 0.5
        levels = (paper + (ink - paper) * (digits / 255.0)) * (1 - darkness * shade / 255)
        grainy = levels + random.normal(0, grain, digits.shape)
        seen: Images = np.clip(np.round(grainy), 0, 255).astype(np.uint8)
        return seen

    return write


KINDS: Mapping[str, Callable[[Images], Images]] = {
    "white on black, as MNIST has them": lambda digits: digits,
    "black on white": lambda digits: 255 - digits,
    "dark on grey, 20 on 150": written(paper=150, ink=20),
    "grey on black, 128 on 0": written(paper=0, ink=128),
    "pencil, 180 on 230": written(paper=230, ink=180),
    "chalk, 220 on 90": written(paper=90, ink=220),
    "fainter than 32 levels, 230 on 255": written(paper=255, ink=230),
    "a grainy scan, 40 on 240": written(paper=240, ink=40, grain=10),
    "a photo of paper, 40 on 230 in uneven light": written(paper=230, ink=40, grain=5, shade=90),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", metavar="CHECKPOINT", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist"), help="where MNIST/raw is")
    parser.add_argument("--store", type=Path, default=Path("models_store"))
    arguments = parser.parse_args()
    paths = arguments.checkpoints or [_newest(arguments.store / "strokes")]
    try:
        mnist = torchvision_datasets.load(TorchvisionSource(kind="mnist"), arguments.data, seed=SEED)
        checkpoints = [Checkpoint.load(path) for path in paths]
    except (CheckpointError, TrainingError, OSError) as error:
        sys.exit(str(error))
    images, targets = np.asarray(mnist.pictures)[mnist.test], torch.from_numpy(mnist.targets[mnist.test])
    results = [measured(checkpoint, images, targets) for checkpoint in checkpoints]
    document = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "samples": len(images),
        "checkpoints": results,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    for model in dict.fromkeys(result["model"] for result in results):
        show(model, [result for result in results if result["model"] == model])
    return 0


def measured(checkpoint: Checkpoint, images: Images, targets: torch.Tensor) -> dict[str, Any]:
    """Returns what the JSON holds of one checkpoint. Ends the program if it has no out-of-distribution threshold."""
    manifest = checkpoint.manifest
    if manifest.out_of_distribution is None:
        sys.exit(f"{manifest.model} has no out-of-distribution threshold: there is nothing to measure")
    raw = manifest.preprocess.model_copy(update={"ink_on_paper": False})
    usual = _logits(checkpoint, images, manifest.preprocess).argmax(1) == targets
    return {
        "model": manifest.model,
        "threshold": manifest.out_of_distribution.threshold,
        "right_by_digit": {manifest.labels[digit]: _share(usual[targets == digit]) for digit in range(10)},
        "kinds": [
            {
                "kind": kind,
                "as_the_manifest_says": asdict(_figures(checkpoint, write(images), targets, manifest.preprocess)),
                "without_ink_on_paper": asdict(_figures(checkpoint, write(images), targets, raw)),
            }
            for kind, write in KINDS.items()
        ],
        "provenance": manifest.provenance and manifest.provenance.model_dump(mode="json"),
    }


def _figures(checkpoint: Checkpoint, images: Images, targets: torch.Tensor, preprocess: Preprocess) -> Figures:
    section = checkpoint.manifest.out_of_distribution
    if section is None:
        raise AssertionError("the caller has seen to it")
    logits = _logits(checkpoint, images, preprocess)
    right, inside = logits.argmax(1) == targets, SCORES[section.method](logits) >= section.threshold
    return Figures(_share(inside), _share(right), _share(right[inside]) if bool(inside.any()) else 0.0)


def _logits(checkpoint: Checkpoint, images: Images, preprocess: Preprocess) -> torch.Tensor:
    network, normalize = checkpoint.build(), normalizer(preprocess, device=_CPU)
    pixels = torch.from_numpy(stacked(images, preprocess))
    split = InMemorySplit(pixels, torch.zeros(len(pixels), dtype=torch.int64))
    return logits_of(network, split, forward=lambda images: network(normalize(images)), device=_CPU)


def _share(chosen: torch.Tensor) -> float:
    return round(int(chosen.sum()) / len(chosen), 4)


def show(model: str, results: list[dict[str, Any]]) -> None:
    title = f"{model}, means over {len(results)} checkpoints"
    print(f"{title:46}{'as the manifest says':>27}  {'without ink_on_paper':>27}")
    print(f"{'':46}{'inside':>8}{'right':>8}{'of inside':>11}{'inside':>10}{'right':>8}{'of inside':>11}")
    for i, kind in enumerate(KINDS):
        line = f"{kind:46}"
        for way in ("as_the_manifest_says", "without_ink_on_paper"):
            shares = [mean(result["kinds"][i][way][name] for result in results) for name in Figures.__slots__]
            line += "{:8.2%}{:8.2%}{:11.2%}  ".format(*shares)
        print(line.rstrip())


def _newest(folder: Path) -> Path:
    numbers = versions(folder) if folder.is_dir() else []
    if not numbers:
        sys.exit(f"no checkpoint in {folder}; train one first: python -m training strokes")
    return path_of(folder, numbers[0])


if __name__ == "__main__":
    sys.exit(main())
