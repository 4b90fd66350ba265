"""Does the float half of preprocessing: makes of a uint8 batch what a network takes, on the device where it is."""

from collections.abc import Callable

import torch

from classifier.ink import ink_brightener
from classifier.preprocess import Preprocess

Normalize = Callable[[torch.Tensor], torch.Tensor]


def normalizer(preprocess: Preprocess, *, device: torch.device, dtype: torch.dtype = torch.float32) -> Normalize:
    """Returns a function from uint8 [n, height, width, channels] to `dtype` [n, channels, height, width] on `device`.

    It computes (x / 255 - mean) / std by one multiplication and one addition. If the preprocess says `ink_on_paper`, x
    is what `ink_brightener` makes of the pixels. Its result is a view in channels_last order: the pixels are never
    moved.
    """
    mean = torch.tensor(preprocess.mean, dtype=torch.float64)
    std = torch.tensor(preprocess.std, dtype=torch.float64)
    scale = (1 / (255 * std)).to(device, torch.float32)
    shift = (-mean / std).to(device, torch.float32)

    def normalize_grey(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(torch.float32, copy=True).mul_(scale).add_(shift).to(dtype).permute(0, 3, 1, 2)

    def normalize_colour(pixels: torch.Tensor) -> torch.Tensor:
        # A row at a time: torch is many times slower where the innermost dimension has but 3 values.
        rows, width = pixels.flatten(2).to(torch.float32, copy=True), pixels.shape[2]
        rows.mul_(scale.repeat(width)).add_(shift.repeat(width))
        return rows.view(pixels.shape).to(dtype).permute(0, 3, 1, 2)

    def normalize_ink(pixels: torch.Tensor) -> torch.Tensor:
        return brighten(pixels).mul_(scale).add_(shift).to(dtype).permute(0, 3, 1, 2)

    if preprocess.ink_on_paper:
        height, width, _ = preprocess.shape
        brighten = ink_brightener(height, width, device=device)
        return normalize_ink
    return normalize_grey if preprocess.channels == 1 else normalize_colour
