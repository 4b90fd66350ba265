"""One process that decodes photos with a pool of threads, as fast as it can, and prints the photos per second.

    python -m benchmarks.gpu.decoders PHOTOS PREPROCESS THREADS SECONDS

Several such processes begin together, see `benchmarks.harness.barrier`. Imports no torch, as front-ends do not.
"""

import itertools
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.decoding.image import decode
from benchmarks.harness.barrier import wait_for_the_others
from classifier.preprocess import Preprocess


def main() -> None:
    folder, preprocess, threads, seconds = sys.argv[1:]
    photos = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    print(_rate(photos, Preprocess.model_validate_json(preprocess), threads=int(threads), seconds=float(seconds)))


def _rate(photos: list[bytes], preprocess: Preprocess, *, threads: int, seconds: float) -> float:
    for photo in photos[:8]:
        decode(photo, preprocess)
    wait_for_the_others()
    end = time.perf_counter() + seconds

    def one_after_another(first: int) -> float:
        """Decodes photos in this thread until the end. Returns photos per second."""
        began = now = time.perf_counter()
        done = 0
        for photo in itertools.islice(itertools.cycle(photos), first, None):
            decode(photo, preprocess)
            done, now = done + 1, time.perf_counter()
            if now > end:
                break
        return done / (now - began)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one_after_another, range(threads)))


if __name__ == "__main__":
    main()
