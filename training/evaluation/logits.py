"""The logits that a network gives the samples of a split."""

from collections.abc import Callable

import torch
from torch import nn

from training.data.batches import Split

Forward = Callable[[torch.Tensor], torch.Tensor]  # a batch as a split gives it -> logits [n, classes]


_EVALUATED_BYTES = 1 << 24  # of pixels, in one batch
_EVALUATED_IMAGES = 1000


@torch.inference_mode()
def logits_of(network: nn.Module, split: Split, *, forward: Forward, device: torch.device) -> torch.Tensor:
    """float32 [n, classes] on the CPU, in the samples' order and in eval mode; the mode it was in comes back.

    Batches have the same size whenever the images have: then they give the same to the last bit.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        everything = torch.split(torch.arange(len(split)), evaluation_batch(split, device))
        return torch.cat([forward(images).float().cpu() for images, _ in split.batches(everything, device=device)])
    finally:
        for module, training in modes.items():
            module.training = training


def evaluation_batch(split: Split, device: torch.device) -> int:
    """As many samples at once as fit well."""
    ((first, _),) = split.batches([torch.zeros(1, dtype=torch.int64)], device=device)
    return max(1, min(_EVALUATED_IMAGES, _EVALUATED_BYTES // first.numel()))
