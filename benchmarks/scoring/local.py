"""Measures `python -m app score` on one machine, beside what its parts alone would allow.

    python -m benchmarks.scoring.local [--data DIR] [--architecture NAME] [--rounds N]

The parts are reading and decoding, and the forward pass, each by as many threads as there are cores, with nothing else
beside them. If all cores were always busy with one of both, an image would take the sum of what it takes in each: that
is the ideal. Loading and verifying the model is left out. All are measured in turns.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as `python -m app` does, and before torch is imported

import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

from app.decoding.image import open_image, to_pixels
from app.engine.rows import Item
from app.scoring.output import Output
from app.scoring.pipeline import scored
from app.scoring.scorer import Scorer, read
from app.scoring.setup import Setup
from app.scoring.sources import Source, find
from benchmarks.harness import seeded
from classifier.cores import usable_cores
from classifier.preprocess import Pixels

J = TypeVar("J")
R = TypeVar("R")

RESULTS = Path(__file__).parents[1] / "results" / "scoring.json"
BATCH = 32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/hymenoptera", help="a folder of photos")
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="of the photos: the end, where a core waits, is a part")
    parser.add_argument("--no-result", action="store_true", help="do not write the figures into benchmarks/results")
    arguments = parser.parse_args()
    threads = usable_cores()
    found = [each for each in find([arguments.data]).sources if not each.name.endswith(".gif")]
    sources = found * arguments.repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "1.safetensors"
        seeded.of(arguments.architecture, checkpoint)
        setup = Setup(
            version=1,
            top_k=5,
            device="cpu",
            precision="fp32",
            max_pixels=50_000_000,
            draft=False,
            compiled=False,
            batch=BATCH,
        )
        scorer = Scorer(checkpoint, setup, threads=threads)
        groups = [sources[start : start + BATCH] for start in range(0, len(sources), BATCH)]
        decoded = _spread(lambda group: [_decoded(scorer, source) for source in group], groups, threads)
        outputs = iter(range(1_000))

        def score() -> None:
            with Output.opened(folder / f"{next(outputs)}.jsonl", {}, resume=False) as output:
                for rows in scored(scorer, sources):
                    output.add(rows)
                output.finish()

        work: dict[str, Callable[[], object]] = {
            "decode": lambda: _spread(lambda group: [_decoded(scorer, each) for each in group], groups, threads),
            "forward": lambda: _spread(lambda pixels: _forward(scorer, pixels), decoded, threads),
            "score": score,
        }
        seconds: dict[str, list[float]] = {name: [] for name in work}
        for number in range(-1, arguments.rounds):  # the first is not counted
            for each in list(work)[:: 1 if number % 2 else -1]:
                start = time.perf_counter()
                work[each]()
                if number >= 0:
                    seconds[each].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    share = (medians["decode"] + medians["forward"]) / medians["score"]
    rates = {name: len(sources) / each for name, each in medians.items()}
    print(", ".join(f"{name} {rate:,.1f}/s" for name, rate in rates.items()), f"{share:.1%} of the ideal")
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"torch": torch.__version__},
        "architecture": arguments.architecture,
        "images": len(sources),
        "threads": threads,
        "load_average": os.getloadavg()[0],
        "seconds": seconds,
        "images_per_second": rates,
        "share_of_the_ideal": share,
    }
    if not arguments.no_result:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _spread(function: Callable[[J], R], jobs: Sequence[J], threads: int) -> list[R]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, jobs))


def _decoded(scorer: Scorer, source: Source) -> Pixels:
    data = read(source)
    if isinstance(data, OSError):
        raise data
    return to_pixels(open_image(data, max_pixels=50_000_000), scorer.predictor.manifest.preprocess)


def _forward(scorer: Scorer, pixels: Sequence[Pixels]) -> object:
    torch.set_num_threads(1)
    return scorer.predictor.predict([Item(each, 5) for each in pixels])


if __name__ == "__main__":
    sys.exit(main())
