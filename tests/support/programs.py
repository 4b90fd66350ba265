"""Small sound checkpoints that hold their network as a program, made of code that nobody needs afterwards."""

from pathlib import Path

import torch

from classifier.checkpoint import Checkpoint, Reference
from classifier.manifest import Manifest
from classifier.preprocess import Preprocess
from tests.support.checkpoints import DIGITS, logits, png, to_pixels
from training.networks.served import served_network
from training.networks.spec import NetworkSpec

# Its layers have names, its norm counts batches, its mask is no weight, and its sizes are computed.
CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_channels, image_size):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 8, 7, stride=7), nn.BatchNorm2d(8), nn.GELU())
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(16 * 8, num_classes)
        self.register_buffer("mask", torch.full((16, 16), float("-inf")).triu(1), persistent=False)

    def forward(self, images):
        tokens = self.body(images).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, attn_mask=self.mask, need_weights=False)
        return self.head((tokens + mixed).reshape(len(images), tokens.shape[1] * tokens.shape[2]))
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
