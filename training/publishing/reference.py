"""Makes the reference batch, which a server must be able to repeat before it serves the weights."""

import io

import numpy as np
import torch
from PIL import Image
from torch import nn

from classifier.checkpoint import Reference
from classifier.normalize import normalizer
from classifier.preprocess import Preprocess


def reference(network: nn.Module, examples: tuple[bytes, ...], preprocess: Preprocess) -> Reference:
    """Returns the PNG files, their pixels, and the logits that `network` gives them.

    Args:
        network: in eval mode, on the CPU, because there fp32 is really computed in fp32.
        examples: 1 to 8 PNG files.
    """
    pixels = _pixels(examples, preprocess)
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        logits = network(_normalized(pixels, preprocess)).clone()
    return Reference(encoded=examples, pixels=pixels, logits=logits)


def images_of(examples: tuple[bytes, ...], preprocess: Preprocess) -> torch.Tensor:
    """Returns what a network is given of PNG files: float [n, channels, height, width]."""
    return _normalized(_pixels(examples, preprocess), preprocess)


def _pixels(examples: tuple[bytes, ...], preprocess: Preprocess) -> torch.Tensor:
    return torch.from_numpy(np.stack([preprocess.to_pixels(Image.open(io.BytesIO(png))) for png in examples]))


def _normalized(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    return normalizer(preprocess, device=torch.device("cpu"))(pixels)
