"""Measures what `--jpeg-draft` gains and what it changes, on photos of a camera's size.

    python -m benchmarks.serving.jpeg_draft CHECKPOINT PHOTOS [--edge 4000]

PHOTOS is a folder, whose subfolders count too. Each photo is enlarged until its longer edge has so many pixels, and
saved at quality 90. With a trained checkpoint, the figures show how many photos keep their likeliest class.
"""

import argparse
import asyncio
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from app.admission import Budget
from app.decoding.decoder import Decoder
from app.decoding.formats import ImageProblem
from app.engine.rows import Item
from app.inference.predictor import Predictor
from classifier.checkpoint import Checkpoint
from classifier.preprocess import Pixels, Preprocess

_KINDS = (".jpg", ".jpeg", ".png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--edge", type=int, default=4000, help="pixels of the longer edge")
    arguments = parser.parse_args()
    checkpoint = Checkpoint.load(arguments.checkpoint)
    preprocess = checkpoint.manifest.preprocess
    paths = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in _KINDS)
    cpu: list[float] = [0.0, 0.0]
    pixels: list[list[Pixels]] = [[], []]
    for done, path in enumerate(paths, start=1):
        photo = _enlarged(path, arguments.edge)
        for way, draft in enumerate((False, True)):
            began = time.process_time()
            pixels[way].append(_decoded(photo, preprocess, draft=draft))
            cpu[way] += time.process_time() - began
        print(f"\r{done} of {len(paths)} photos", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    differences = [np.abs(exact.astype(int) - draft) for exact, draft in zip(*pixels, strict=True)]
    wanted, found = (_probabilities(checkpoint, each) for each in pixels)
    same = np.mean(wanted.argmax(axis=1) == found.argmax(axis=1))
    print(f"CPU of a photo: {cpu[0] / len(paths) * 1e3:.0f} ms, with draft {cpu[1] / len(paths) * 1e3:.0f} ms")
    print(
        f"levels: {np.mean([each.mean() for each in differences]):.2f} apart on average, "
        f"{max(each.mean() for each in differences):.1f} in the worst photo, {max(map(np.max, differences))} at most"
    )
    print(f"the same likeliest class: {same:.1%} of {len(paths)} photos")
    apart = np.abs(wanted - found)
    print(f"probabilities: at most {apart.max():.3f} apart, {apart.mean():.4f} on average")


def _enlarged(path: Path, edge: int) -> bytes:
    with Image.open(path) as image:
        photo = image.convert("RGB")
    scale = edge / max(photo.size)
    large = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    large.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _decoded(photo: bytes, preprocess: Preprocess, *, draft: bool) -> Pixels:
    async def decode() -> Pixels:
        decoder = Decoder(max_pixels=100_000_000, pixels=Budget("pixels", 1e9), threads=1, draft=draft)
        (outcome,) = await decoder.decode([photo], preprocess, deadline=time.monotonic() + 60)
        decoder.close()
        if isinstance(outcome, ImageProblem):
            raise outcome
        return outcome

    return asyncio.run(decode())


def _probabilities(checkpoint: Checkpoint, pixels: Sequence[Pixels]) -> npt.NDArray[np.float64]:
    """Returns the probabilities, [photos, classes]."""
    labels = len(checkpoint.manifest.labels)
    predictor = Predictor(checkpoint.build(), checkpoint.manifest, device=torch.device("cpu"), max_items=1)
    rows = np.zeros((len(pixels), labels))
    for place, each in enumerate(pixels):
        (row,) = predictor.predict([Item(each, labels)])
        rows[place, row[labels : 2 * labels].astype(int)] = row[:labels]
    return rows


if __name__ == "__main__":
    main()
