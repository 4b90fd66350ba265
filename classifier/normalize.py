"""The float half of preprocessing: a uint8 batch becomes what a network takes, on the device where it already is."""

from collections.abc import Callable

import torch

from classifier.preprocess import Preprocess

Normalize = Callable[[torch.Tensor], torch.Tensor]


def normalizer(preprocess: Preprocess, *, device: torch.device, dtype: torch.dtype = torch.float32) -> Normalize:
    """A function from uint8 [n, height, width, channels] to `dtype` [n, channels, height, width] on `device`.

    (x / 255 - mean) / std is folded into one multiplication and one addition. The result is a view in
    channels_last order: the pixels are never moved.
    """
    mean = torch.tensor(preprocess.mean, dtype=torch.float64)
    std = torch.tensor(preprocess.std, dtype=torch.float64)
    scale = (1 / (255 * std)).to(device, torch.float32)
    shift = (-mean / std).to(device, torch.float32)

    def normalize(pixels: torch.Tensor) -> torch.Tensor:
        floats = torch.addcmul(shift, pixels.to(torch.float32), scale)
        return floats.to(dtype).permute(0, 3, 1, 2)

    return normalize
