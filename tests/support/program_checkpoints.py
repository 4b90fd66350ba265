"""Small sound checkpoints that hold their network as a program, made of code that nobody needs afterwards."""

from pathlib import Path

import torch

from classifier.checkpoint import Checkpoint, Reference
from classifier.manifest import Manifest
from classifier.preprocess import Preprocess
from tests.support.checkpoints import DIGITS, logits, png, to_pixels
from training.networks.served import served_network
from training.networks.spec import NetworkSpec

# A small transformer. Its norm counts batches, its mask is no weight, and a size of it is computed.
CODE = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(in_channels, 8, 7, stride=7), nn.BatchNorm2d(8))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(17 * 8, num_classes)
        self.register_buffer("mask", torch.full((17, 17), float("-inf")).triu(1), persistent=False)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(images.shape[0], -1, -1), tokens], dim=1)
        query, key, value = self.qkv(self.norm(tokens)).unflatten(2, (6, 4)).transpose(1, 2).chunk(3, dim=1)
        tokens = tokens + F.scaled_dot_product_attention(query, key, value, self.mask).transpose(1, 2).flatten(2)
        tokens = tokens + self.mlp(tokens)
        return self.head(tokens.reshape(images.shape[0], tokens.shape[1] * tokens.shape[2]))
"""


def program_checkpoint(
    folder: Path, *, code: str = CODE, preprocess: Preprocess = DIGITS, model: str = "own", seed: int = 0
) -> Checkpoint:
    """A sound one; the file with the code is gone when it is returned."""
    file = folder / f"net_{seed}.py"
    file.write_text(code)
    labels = tuple("0123456789")
    torch.manual_seed(seed)
    spec = NetworkSpec.of(f"{file}:Net", preprocess)
    own = served_network(spec, spec.build(len(labels)).state_dict(), len(labels))
    file.unlink()
    images = tuple(png(i, preprocess.shape[1::-1], preprocess.mode) for i in range(4))
    pixels = torch.stack([torch.from_numpy(to_pixels(image, preprocess)) for image in images])
    return Checkpoint(
        manifest=Manifest(
            model=model,
            architecture=f"{file.name}:Net",
            labels=labels,
            preprocess=preprocess,
            format=2,
            program=own.info,
        ),
        network=own.weights,
        reference=Reference(images, pixels, logits(own.network, preprocess, pixels)),
        program=own.program,
        constants=own.constants,
    )
