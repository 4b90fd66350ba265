"""Computes the logits that a network gives the samples of a split."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from training.data.batches import Split
from training.process_group import ALONE, ProcessGroup

Forward = Callable[[torch.Tensor], torch.Tensor]  # a batch as a split gives it -> logits [n, classes]


_EVALUATED_BYTES = 1 << 24  # of pixels, in one batch
_EVALUATED_IMAGES = 1000


def logits_of(
    network: nn.Module, split: Split, *, forward: Forward, device: torch.device, group: ProcessGroup = ALONE
) -> torch.Tensor:
    """Returns float32 [n, classes] on the CPU, in the order of the samples.

    Args:
        forward: makes logits of a batch, by means of `network`.
        device: where the network is.
        group: the processes that share the work. Each of them gets all logits.

    Raises: what `forward` and the split raise.
    """
    return torch.cat(list(outputs_of(network, split, forward=forward, device=device, group=group)))


@torch.inference_mode()
def outputs_of(
    network: nn.Module, split: Split, *, forward: Forward, device: torch.device, group: ProcessGroup = ALONE
) -> Iterator[torch.Tensor]:
    """Gives float32 [batch, ...] on the CPU for each batch, in the order of the samples.

    The network is in eval mode meanwhile. Afterwards each of its modules is in the mode it was in, even after an error.
    The size of a batch depends only on that of an image, so equal images give equal outputs, to the last bit.

    Args:
        forward, device, group: as for `logits_of`.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        everything = torch.split(torch.arange(len(split)), evaluation_batch(split, device))
        opened = split.batches(everything[group.rank :: group.size], device=device)
        yield from group.in_turns((forward(images).float().cpu() for images, _ in opened), len(everything))
    finally:
        for module, training in modes.items():
            module.training = training


def evaluation_batch(split: Split, device: torch.device) -> int:
    """Returns how many samples are evaluated at once: 1 to 1,000, as many as have 16 MiB together."""
    ((first, _),) = split.batches([torch.zeros(1, dtype=torch.int64)], device=device)
    return max(1, min(_EVALUATED_IMAGES, _EVALUATED_BYTES // first.numel()))
