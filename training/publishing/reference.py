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
    pixels = torch.from_numpy(np.stack([preprocess.to_pixels(Image.open(io.BytesIO(png))) for png in examples]))
    normalize = normalizer(preprocess, device=torch.device("cpu"))
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        logits = network(normalize(pixels)).clone()
    return Reference(encoded=examples, pixels=pixels, logits=logits)
