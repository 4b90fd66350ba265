"""Keeps drawn digits on the disk for the next run: to draw the same digits again would only take time."""

import json
from pathlib import Path
from typing import Any

import numpy.typing as npt
import safetensors
import safetensors.numpy

from classifier import atomic_files
from classifier.progress import Progress
from training.data.raw_dataset import LabelledImages
from training.data.strokes.draw import VERSION, draw_digits


def load_digits(count: int, *, seed: int, stream: int, scratch: Path, progress: Progress) -> LabelledImages:
    """Returns what `draw_digits` draws, from `scratch` if it is there and sound.

    Raises: OSError if the digits cannot be kept there.
    """
    key = f"strokes-v{VERSION}-seed{seed}-stream{stream}-{count}"
    path = scratch / "drawings" / f"{key}.safetensors"
    kept = _read(path)
    if kept is not None and len(kept.targets) == count:
        return kept
    with progress.step(f"drawing {count:,} digits", total=count, unit="digits") as advance:
        drawn = LabelledImages(*draw_digits(count, seed=seed, stream=stream, advance=advance))
    arrays: dict[str, npt.NDArray[Any]] = {"images": drawn.images, "targets": drawn.targets}
    atomic_files.replace(path, safetensors.numpy.save(arrays, metadata={"sha256": drawn.fingerprint}))
    return drawn


def _read(path: Path) -> LabelledImages | None:
    """Returns what was kept; None if the file is not there, or does not hold what was written."""
    try:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        arrays = safetensors.numpy.load(data)
        kept = LabelledImages(arrays["images"], arrays["targets"])
        return kept if kept.fingerprint == header["__metadata__"]["sha256"] else None
    except (FileNotFoundError, ValueError, KeyError, safetensors.SafetensorError):
        return None
