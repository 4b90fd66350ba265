"""How well a model that only ever saw drawn digits reads real ones: the 10,000 MNIST test images.

    python benchmarks/strokes_on_mnist.py [--data DIR] [CHECKPOINT]

Without a checkpoint it takes the newest version of `strokes` in models_store/.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from classifier.checkpoint import Checkpoint
from classifier.normalize import normalizer
from training import mnist
from training.data import Split, as_pixels
from training.loop import evaluate
from training.publish import path_of, versions

RESULTS = Path(__file__).parent / "results" / "strokes_on_mnist.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist"), help="where MNIST/raw is")
    parser.add_argument("--store", type=Path, default=Path("models_store"))
    arguments = parser.parse_args()
    path = arguments.checkpoint or _newest(arguments.store / "strokes")
    checkpoint = Checkpoint.load(path)
    manifest, cpu = checkpoint.manifest, torch.device("cpu")
    _, test = mnist.load(arguments.data)
    network, normalize = checkpoint.build(), normalizer(manifest.preprocess, device=cpu)
    everything = as_pixels(manifest.preprocess, test)
    score = evaluate(network, everything, normalize=normalize)
    by_digit = {}
    for digit in range(10):
        of_it = everything.targets == digit
        part = Split(everything.images[of_it], everything.targets[of_it])
        by_digit[manifest.labels[digit]] = round(evaluate(network, part, normalize=normalize).accuracy, 4)
    result = {
        "checkpoint": f"{manifest.model}/{path.stem}",
        "provenance": manifest.provenance and manifest.provenance.model_dump(mode="json"),
        "samples": len(everything),
        "accuracy": score.accuracy,
        "loss": score.loss,
        "accuracy_by_digit": by_digit,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{path} on {len(everything):,} real MNIST test images: {score}")
    print("by digit: " + ", ".join(f"{digit}: {accuracy:.1%}" for digit, accuracy in by_digit.items()))
    return 0


def _newest(folder: Path) -> Path:
    numbers = versions(folder) if folder.is_dir() else []
    if not numbers:
        sys.exit(f"no checkpoint in {folder}; train one first: python -m training strokes")
    return path_of(folder, numbers[0])


if __name__ == "__main__":
    sys.exit(main())
