"""What is done at random to the images of a batch, in training only."""

import torch
import torch.nn.functional as F


def shifted(images: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """uint8 [n, height, width, channels], each image moved by up to `most` pixels each way; 0 comes in at the edges."""
    if most == 0:
        return images
    count, height, width = images.shape[:3]
    offsets = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator).to(images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)
    columns = offsets[1] + torch.arange(width, device=images.device)
    padded = F.pad(images, (0, 0, most, most, most, most))
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]]
