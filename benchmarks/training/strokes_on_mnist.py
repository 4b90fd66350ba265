"""Measures how well a model that was trained on drawn digits alone reads real ones: the 10,000 MNIST test images.

    python -m benchmarks.training.strokes_on_mnist [--data DIR] [CHECKPOINT]

Without a checkpoint it takes the newest version of `strokes` in models_store/.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from classifier.checkpoint import Checkpoint
from classifier.normalize import normalizer
from training.data import torchvision_datasets
from training.data.batches import InMemorySplit
from training.data.decode import stacked
from training.evaluation.logits import logits_of
from training.evaluation.score import Score
from training.publishing.publish import path_of, versions
from training.recipes.recipe import TorchvisionSource

RESULTS = Path(__file__).parents[1] / "results" / "strokes_on_mnist.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist"), help="where MNIST/raw is")
    parser.add_argument("--store", type=Path, default=Path("models_store"))
    arguments = parser.parse_args()
    path = arguments.checkpoint or _newest(arguments.store / "strokes")
    checkpoint = Checkpoint.load(path)
    manifest, cpu = checkpoint.manifest, torch.device("cpu")
    mnist = torchvision_datasets.load(TorchvisionSource(kind="mnist"), arguments.data, seed=0)
    network, normalize = checkpoint.build(), normalizer(manifest.preprocess, device=cpu)
    images = np.asarray(mnist.pictures)[mnist.test]
    targets = torch.from_numpy(mnist.targets[mnist.test])
    test = InMemorySplit(torch.from_numpy(stacked(images, manifest.preprocess)), targets)
    logits = logits_of(network, test, forward=lambda images: network(normalize(images)), device=cpu)
    score = Score.of(logits, targets)
    by_digit = {}
    for digit in range(10):
        of_it = targets == digit
        by_digit[manifest.labels[digit]] = round(Score.of(logits[of_it], targets[of_it]).accuracy, 4)
    result = {
        "checkpoint": f"{manifest.model}/{path.stem}",
        "provenance": manifest.provenance and manifest.provenance.model_dump(mode="json"),
        "samples": len(test),
        "accuracy": score.accuracy,
        "loss": score.loss,
        "accuracy_by_digit": by_digit,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{path} on {len(test):,} real MNIST test images: {score}")
    print("by digit: " + ", ".join(f"{digit}: {accuracy:.1%}" for digit, accuracy in by_digit.items()))
    return 0


def _newest(folder: Path) -> Path:
    numbers = versions(folder) if folder.is_dir() else []
    if not numbers:
        sys.exit(f"no checkpoint in {folder}; train one first: python -m training strokes")
    return path_of(folder, numbers[0])


if __name__ == "__main__":
    sys.exit(main())
