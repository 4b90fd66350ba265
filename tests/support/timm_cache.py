"""Files of timm's weights where the code looks for them: random ones, in a torch hub cache of a test's own.

The cache lies below the folder that the environment variable TORCH_HOME names.
"""

import os
from pathlib import Path

import safetensors.torch

from tests.support.hub import random_weights
from training.networks import timm_networks, timm_weights


def cache(architecture: str, *, seed: int = 0) -> Path:
    """Random weights as what would be downloaded for this architecture."""
    path = Path(os.environ["TORCH_HOME"]) / "hub" / "checkpoints" / f"{timm_weights.tag_of(architecture)}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = tuple(timm_networks.configuration(architecture).input_size)
    network = timm_networks.meta(architecture, timm_weights.classes_of(architecture), shape)
    safetensors.torch.save_file(dict(random_weights(network, seed=seed)), path)
    return path
