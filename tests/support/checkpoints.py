"""Small sound checkpoints for tests: real networks with seeded weights, without the time that training takes."""

import io
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from classifier.architectures import build
from classifier.checkpoint import Checkpoint, Reference
from classifier.manifest import Manifest
from classifier.normalize import normalizer
from classifier.preprocess import Pixels, Preprocess
from tests.support.images import encoded

DIGITS = Preprocess(mode="L", resize=(28, 28), crop=None, mean=(0.1307,), std=(0.3081,), background=0)
PHOTOS = Preprocess(
    mode="RGB", resize=72, crop=(64, 64), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resizing="box"
)
# As large as networks for photos are trained on.
LARGE_PHOTOS = PHOTOS.model_copy(update={"resize": 256, "crop": (224, 224)})


@lru_cache(maxsize=256)
def png(seed: int = 0, size: tuple[int, int] = (28, 28), mode: str = "L") -> bytes:
    """A picture of a few strokes, other ones for another seed."""
    random = np.random.default_rng(seed)
    image = Image.new(mode, size)
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        ends = [tuple(int(v) for v in random.integers(0, size)) for _ in range(2)]
        draw.line(ends, fill=tuple(int(v) for v in random.integers(60, 256, len(image.getbands()))), width=3)
    return encoded(image)


def checkpoint(
    seed: int = 0, *, architecture: str = "mnist_cnn", preprocess: Preprocess = DIGITS, model: str = "digits"
) -> Checkpoint:
    """A sound one; the same for the same arguments. Its tensors may be changed: nobody else has them."""
    made = _checkpoint(seed, architecture, preprocess, model)
    torch.manual_seed(seed)
    return replace(
        made,
        network={name: tensor.clone() for name, tensor in made.network.items()},
        reference=replace(made.reference, pixels=made.reference.pixels.clone(), logits=made.reference.logits.clone()),
    )


@lru_cache(maxsize=16)
def _checkpoint(seed: int, architecture: str, preprocess: Preprocess, model: str) -> Checkpoint:
    """Makes it once: fresh weights and pictures take longer than most tests that want them."""
    labels = tuple("0123456789")
    torch.manual_seed(seed)
    network = build(architecture, len(labels)).eval()
    images = tuple(png(i, preprocess.shape[1::-1], preprocess.mode) for i in range(4))
    pixels = torch.stack([torch.from_numpy(to_pixels(image, preprocess)) for image in images])
    return Checkpoint(
        manifest=Manifest(model=model, architecture=architecture, labels=labels, preprocess=preprocess),
        network={name: tensor.clone() for name, tensor in network.state_dict().items()},
        reference=Reference(images, pixels, logits(network, preprocess, pixels)),
    )


def saying(content: Checkpoint, **sections: Any) -> Checkpoint:
    """The same weights, with these sections in the manifest."""
    return replace(content, manifest=content.manifest.model_copy(update=sections))


def to_pixels(image: bytes, preprocess: Preprocess = DIGITS) -> Pixels:
    return preprocess.to_pixels(Image.open(io.BytesIO(image))).copy()


def logits(network: torch.nn.Module, preprocess: Preprocess, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        values: torch.Tensor = network(normalizer(preprocess, device=torch.device("cpu"))(pixels))
        return values


def publish(store: Path, version: int, content: Checkpoint | bytes, *, model: str = "digits") -> Path:
    """Puts a version into a store at once, as publishing does; bytes need not be a checkpoint."""
    folder = store / model
    folder.mkdir(parents=True, exist_ok=True)
    temporary, path = folder / f".{version}.temporary", folder / f"{version}.safetensors"
    if isinstance(content, bytes):
        temporary.write_bytes(content)
    else:
        content.save(temporary)
    temporary.replace(path)
    return path
