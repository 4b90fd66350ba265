"""Asks nvidia-smi how busy a GPU is while something else goes on."""

import shutil
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress


@contextmanager
def busy_percent(device: str) -> Iterator[list[float]]:
    """Samples the percentage of time in which the GPU is busy, each tenth of a second until the block is left.

    The list is complete after the block. It stays empty if there is no CUDA device or no nvidia-smi.
    """
    samples: list[float] = []
    if not device.startswith("cuda") or shutil.which("nvidia-smi") is None:
        yield samples
        return
    which = device.partition(":")[2] or "0"
    query = ["nvidia-smi", f"--id={which}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*query, "--loop-ms=100"], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield samples
        finally:
            process.terminate()
        for line in process.communicate()[0].splitlines():
            with suppress(ValueError):  # "[N/A]"
                samples.append(float(line))


def median(samples: Sequence[float]) -> float | None:
    """Returns the median, or None if there are no samples.

    A mean would count the first and the last sample, from before and after the load.
    """
    return statistics.median(samples) if samples else None
