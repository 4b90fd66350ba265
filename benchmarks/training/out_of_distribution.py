"""Measures how well a digit classifier's out-of-distribution score tells MNIST's test images from other images.

    python -m benchmarks.training.out_of_distribution CHECKPOINT [--data DIR]

For each kind of image: the AUROC (the chance that a test image scores above one of them), the same with the highest
probability as the score, which is the usual baseline, and the share that the checkpoint's threshold flags.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError

from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import OutOfDistribution
from classifier.normalize import normalizer
from classifier.preprocess import ImageError
from classifier.scores import SCORES
from training.data import torchvision_datasets
from training.data.batches import InMemorySplit
from training.data.decode import stacked
from training.data.strokes.draw import draw_glyph
from training.data.strokes.glyphs import Glyph
from training.errors import TrainingError
from training.evaluation.calibration import auroc
from training.evaluation.logits import logits_of
from training.recipes.recipe import TorchvisionSource

RESULTS = Path(__file__).parents[1] / "results" / "out_of_distribution.json"
BASELINE = "max_probability"
EACH = 2000  # images of each kind that is made here
SEED = 0
_CPU = torch.device("cpu")

Images = npt.NDArray[np.uint8]  # [n, height, width], or [n, height, width, channels] when they are preprocessed

# Letters that share no shape with a digit, as O, I, Z, S and B do; in the words of
# training.data.strokes.glyphs. Drawn carelessly, a T may still come near
# a 7: the figures count it as what it was meant to be.
LETTERS = {
    "A": "5,100 30,45 50,0! 70,45 95,100 | 25,62 50,61 78,62",
    "E": "90,3 50,2 12,4! 12,50 12,98! 50,98 92,96 | 12,50 45,50 78,48",
    "F": "90,3 50,2 14,4! 14,50 12,100 | 14,48 45,48 76,47",
    "H": "12,0 12,50 10,100 | 88,0 88,50 90,100 | 12,50 50,49 88,50",
    "K": "14,0 13,50 12,100 | 88,2 50,32 14,56! 50,76 92,100",
    "M": "5,100 10,50 14,2! 32,38 50,68! 70,35 86,2! 91,50 96,100",
    "N": "10,100 11,50 12,2! 50,50 88,98! 89,50 90,0",
    "R": "14,100 14,50 14,3! 60,0 84,22 58,48 16,50! 55,75 92,100",
    "T": "5,5 50,4 95,3 | 50,4 50,50 50,100",
    "W": "4,2 14,50 26,98! 38,60 50,28! 62,60 75,98! 87,50 97,2",
    "X": "8,2 50,50 92,98 | 90,2 50,50 8,98",
    "Y": "8,2 30,26 50,48 | 92,2 70,26 50,48! 48,75 46,100",
}


@dataclass(frozen=True, slots=True)
class Row:
    """Holds how the scores of one kind of image compare with those of the test images."""

    kind: str
    samples: int
    auroc: float | None
    auroc_baseline: float | None
    flagged: float


class Scorer:
    """Computes logits by a checkpoint's network, and scores them by the server's own table of scores."""

    def __init__(self, checkpoint: Checkpoint, section: OutOfDistribution) -> None:
        self.preprocess = checkpoint.manifest.preprocess
        self.section = section
        self._network = checkpoint.build()
        self._normalize = normalizer(self.preprocess, device=_CPU)

    def logits(self, pixels: Images) -> torch.Tensor:
        """Returns the logits of images that are preprocessed."""
        split = InMemorySplit(torch.from_numpy(pixels), torch.zeros(len(pixels), dtype=torch.int64))
        return logits_of(
            self._network, split, forward=lambda images: self._network(self._normalize(images)), device=_CPU
        )

    def row(self, kind: str, logits: torch.Tensor, *, inside: torch.Tensor | None) -> Row:
        """Compares images of one kind with the logits `inside`, which the AUROCs are computed against."""
        areas = {
            method: None if inside is None else auroc(SCORES[method](inside), SCORES[method](logits))
            for method in (self.section.method, BASELINE)
        }
        flagged = SCORES[self.section.method](logits) < self.section.threshold
        return Row(kind, len(logits), areas[self.section.method], areas[BASELINE], int(flagged.sum()) / len(logits))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds mnist/ and folders of photos")
    arguments = parser.parse_args()
    try:
        checkpoint = Checkpoint.load(arguments.checkpoint)
        mnist = torchvision_datasets.load(TorchvisionSource(kind="mnist"), arguments.data / "mnist", seed=SEED)
    except CheckpointError as error:
        sys.exit(f"{arguments.checkpoint}: {error}")
    except (TrainingError, OSError) as error:
        sys.exit(str(error))
    manifest, section = checkpoint.manifest, checkpoint.manifest.out_of_distribution
    if section is None:
        sys.exit(f"{arguments.checkpoint} has no out-of-distribution threshold: there is nothing to measure")
    images, targets = np.asarray(mnist.pictures)[mnist.test], torch.from_numpy(mnist.targets[mnist.test])
    kinds, letters = measured(Scorer(checkpoint, section), images, targets, data=arguments.data)
    show([*kinds, *letters], f"{manifest.model}: {section.method}, threshold {section.threshold:.3f}")
    result = {
        "checkpoint": f"{manifest.model}/{arguments.checkpoint.stem}",
        "method": section.method,
        "threshold": section.threshold,
        "baseline": BASELINE,
        "kinds": [asdict(one) for one in kinds],
        "letters": [asdict(one) for one in letters],
        "provenance": manifest.provenance and manifest.provenance.model_dump(mode="json"),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def measured(scorer: Scorer, digits: Images, targets: torch.Tensor, *, data: Path) -> tuple[list[Row], list[Row]]:
    """Returns the rows by kind of image, and those by letter."""
    test = scorer.logits(stacked(digits, scorer.preprocess))
    right = test.argmax(1) == targets
    letters = {letter: scorer.logits(stacked(drawn, scorer.preprocess)) for letter, drawn in drawn_letters()}
    kinds = [
        scorer.row("MNIST test images", test, inside=None),
        scorer.row("... that are read right", test[right], inside=None),
        *([] if bool(right.all()) else [scorer.row("... that are misread", test[~right], inside=test[right])]),
        scorer.row("letters", torch.cat(list(letters.values())), inside=test),
    ]
    for kind, pixels in other_kinds(digits, data, scorer):
        kinds.append(scorer.row(kind, scorer.logits(pixels), inside=test))
    return kinds, [scorer.row(letter, logits, inside=test) for letter, logits in letters.items()]


def drawn_letters() -> Iterator[tuple[str, Images]]:
    """Draws letters as `strokes` draws digits: with the same pens, slants, blurs and margins."""
    random = np.random.default_rng(SEED)
    each = -(-EACH // len(LETTERS))
    for letter, pen in LETTERS.items():
        yield letter, draw_glyph(Glyph(letter, share=1, pen=pen), each, random)


def other_kinds(digits: Images, data: Path, scorer: Scorer) -> Iterator[tuple[str, Images]]:
    """Gives images after preprocessing, by kind."""
    random = np.random.default_rng(SEED)
    some, size = digits[:EACH], digits.shape[1:]
    shuffled = random.permuted(some.reshape(len(some), -1), axis=1).reshape(some.shape)
    uniform = random.integers(0, 256, (EACH, *size), dtype=np.uint8)
    gaussian = np.clip(random.normal(128, 64, (EACH, *size)), 0, 255).astype(np.uint8)
    blank = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, *size))
    yield "photos in grey", photos(data, scorer)
    yield "uniform noise", stacked(uniform, scorer.preprocess)
    yield "Gaussian noise", stacked(gaussian, scorer.preprocess)
    yield "digits with their pixels shuffled", stacked(shuffled, scorer.preprocess)
    yield "blank, of each grey level", stacked(np.ascontiguousarray(blank), scorer.preprocess)
    if not scorer.preprocess.ink_on_paper:  # with it they are the same digits
        yield "digits in negative, dark on white", stacked(255 - some, scorer.preprocess)


def photos(data: Path, scorer: Scorer) -> Images:
    """Returns all images that can be read in the folders of photos."""
    paths = sorted(path for name in ("photos", "hymenoptera") for path in (data / name).rglob("*") if path.is_file())
    pixels: list[Images] = []
    for path in paths:
        try:
            with Image.open(path) as image:
                pixels.append(scorer.preprocess.to_pixels(image))
        except (UnidentifiedImageError, ImageError) as error:
            print(f"{path.name} is left out: {error}", file=sys.stderr)
    if not pixels:
        sys.exit(f"there are no photos in {data / 'photos'} and {data / 'hymenoptera'}")
    return np.stack(pixels)


def show(rows: list[Row], title: str) -> None:
    print(f"{title}\n{'':36}{'samples':>8}{'AUROC':>9}{'baseline':>10}{'flagged':>9}")
    for row in rows:
        areas = (f"{area:.4f}" if area is not None else "" for area in (row.auroc, row.auroc_baseline))
        print(f"{row.kind:36}{row.samples:8,}{next(areas):>9}{next(areas):>10}{row.flagged:9.1%}")


if __name__ == "__main__":
    sys.exit(main())
