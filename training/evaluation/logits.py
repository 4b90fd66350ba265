"""Computes the logits that a network gives the samples of a split."""

from collections.abc import Callable

import torch
from torch import nn

from training.data.batches import Split

Forward = Callable[[torch.Tensor], torch.Tensor]  # a batch as a split gives it -> logits [n, classes]


_EVALUATED_BYTES = 1 << 24  # of pixels, in one batch
_EVALUATED_IMAGES = 1000


@torch.inference_mode()
def logits_of(network: nn.Module, split: Split, *, forward: Forward, device: torch.device) -> torch.Tensor:
    """Returns float32 [n, classes] on the CPU, in the order of the samples.

    The network is in eval mode meanwhile. Afterwards each of its modules is in the mode it was in, even after an error.
    The size of a batch depends only on that of an image, so equal images give equal logits, to the last bit.

    Args:
        forward: makes logits of a batch, by means of `network`.
        device: where the network is.

    Raises: what `forward` and the split raise.
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
    """Returns how many samples are evaluated at once: 1 to 1,000, as many as have 16 MiB together."""
    ((first, _),) = split.batches([torch.zeros(1, dtype=torch.int64)], device=device)
    return max(1, min(_EVALUATED_IMAGES, _EVALUATED_BYTES // first.numel()))
