"""Files of torchvision's names in a torch hub cache of a test's own: random weights, which its own code then loads.

The cache lies below the folder that the environment variable TORCH_HOME names. torch checks a file's hash when it
downloads it, not when it finds it there.
"""

import os
from pathlib import Path

import torch
from torch import nn
from torchvision import models


def cache(architecture: str, weights: dict[str, torch.Tensor]) -> Path:
    """`weights` in the cache, as what torchvision would download for this architecture's default."""
    path = Path(os.environ["TORCH_HOME"]) / "hub" / "checkpoints" / file_name(architecture)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights, path)
    return path


def file_name(architecture: str) -> str:
    url: str = models.get_model_weights(architecture).DEFAULT.url
    return url.rsplit("/", 1)[1]


def random_weights(network: nn.Module, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Values for all that a network, or its meta network, saves, with which different images get different logits."""
    generator = torch.Generator().manual_seed(seed)

    def value(name: str, like: torch.Tensor) -> torch.Tensor:
        if not like.is_floating_point():
            return torch.ones(like.shape, dtype=like.dtype)
        noise = torch.randn(like.shape, generator=generator)
        if like.dim() > 1:
            return noise.mul((2 / like[0].numel()) ** 0.5)
        return 0.1 * noise.abs() + 1 if name.endswith(("weight", "running_var")) else 0.1 * noise

    weights: dict[str, torch.Tensor] = network.state_dict()  # which has the layers' versions, too
    for name, tensor in weights.items():
        weights[name] = value(name, tensor)
    return weights
