"""How busy a GPU is while something else goes on, by nvidia-smi."""

import shutil
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress


@contextmanager
def busy_percent(device: str) -> Iterator[list[float]]:
    """What nvidia-smi says each tenth of a second, complete after the block; empty where there is none of it."""
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
    """The first and the last are of the time before and after the load."""
    return statistics.median(samples) if samples else None
