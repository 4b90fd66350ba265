"""Checkpoints with seeded weights, which are as quick to serve as trained ones and are made in a second.

Their manifests have all that costs a server time: a temperature, and a threshold that a score must reach.
"""

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from classifier.architectures import build
from classifier.checkpoint import Checkpoint, Reference
from classifier.manifest import Calibration, Manifest, OutOfDistribution
from classifier.normalize import normalizer
from classifier.preprocess import Preprocess

SEED = 0
DIGITS = Preprocess(mode="L", resize=(28, 28), crop=None, mean=(0.1307,), std=(0.3081,), background=0)
# torchvision's, for its classifiers.
PHOTOS = Preprocess(mode="RGB", resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def digits(path: Path) -> Path:
    """Saves the MNIST network with ten labels."""
    return _saved(path, model="digits", architecture="mnist_cnn", labels=10, preprocess=DIGITS)


def photos(path: Path) -> Path:
    """Saves ResNet-18 with a thousand labels, as ImageNet has."""
    return _saved(path, model="photos", architecture="resnet18", labels=1000, preprocess=PHOTOS)


def of(architecture: str, path: Path) -> Path:
    """Saves any network. Its answer is the same for all images, so that every precision passes the server's proof."""
    digits = architecture == "mnist_cnn"
    labels, preprocess = (10, DIGITS) if digits else (1000, PHOTOS)
    return _saved(
        path, model=architecture, architecture=architecture, labels=labels, preprocess=preprocess, steady=True
    )


@contextmanager
def store_of(network: str) -> Iterator[Path]:
    """Makes a store with that network alone, until the block is left."""
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "store"
        (store / network).mkdir(parents=True)
        of(network, store / network / "1.safetensors")
        yield store


def published(checkpoint: Path, store: Path, model: str = "benchmark") -> Path:
    """Copies a checkpoint into a store, as version 1 of a model, and returns the store."""
    (store / model).mkdir(parents=True, exist_ok=True)
    shutil.copy(checkpoint, store / model / "1.safetensors")
    return store


def drawings(count: int) -> list[bytes]:
    """Draws white strokes on black in images of 28x28 pixels, as PNG files."""
    random = np.random.default_rng(SEED)
    images = [Image.new("L", (28, 28)) for _ in range(count)]
    for image in images:
        ends = [tuple(point) for point in random.integers(4, 24, (3, 2)).tolist()]
        ImageDraw.Draw(image).line(ends, fill=255, width=3)
    return [_png(image) for image in images]


def _saved(
    path: Path, *, model: str, architecture: str, labels: int, preprocess: Preprocess, steady: bool = False
) -> Path:
    torch.manual_seed(SEED)
    network = build(architecture, labels).eval().requires_grad_(False)
    if steady:
        _steady(network)
    height, width, channels = preprocess.shape
    colors = torch.randint(256, (4, 7, 7, channels), dtype=torch.uint8).numpy()
    images = [Image.fromarray(each.squeeze()).resize((width, height)) for each in colors]
    pixels = torch.stack([torch.from_numpy(preprocess.to_pixels(image)) for image in images])
    logits = network(normalizer(preprocess, device=torch.device("cpu"))(pixels))
    manifest = Manifest(
        model=model,
        architecture=architecture,
        labels=tuple(f"{model} {index}" for index in range(labels)),
        preprocess=preprocess,
        calibration=Calibration(temperature=0.1),  # low enough for answers that differ from image to image
        out_of_distribution=OutOfDistribution(method="energy", threshold=0.0),
    )
    Checkpoint(manifest, network.state_dict(), Reference(tuple(map(_png, images)), pixels, logits)).save(path)
    return path


def _steady(network: nn.Module) -> None:
    """Makes all logits small but one.

    Fresh deep networks give large logits, and in bfloat16 their order changes.
    """
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    head.weight.mul_(0.01)
    head.bias.zero_()[0] = 8


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
