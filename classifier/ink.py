"""Makes digits and letters look alike, whatever they were written with: the paper becomes black, and the ink bright.

A scan is dark on white, a blackboard is bright on dark, and a photo of paper has neither white nor black in it.
"""

from collections.abc import Callable

import numpy as np
import torch

# Contrasts, in levels from the paper to the strongest ink. Below _NONE there is no ink but the grain of the paper.
# From _FULL on, ink stays as it is: nearly all that networks see in training is so, to the last bit.
_NONE, _FULL = 32, 204
_SAMPLES = 16  # of the border: enough for a median that a stroke or a speck at the edge does not move


def ink_brightener(height: int, width: int, *, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns a function from uint8 [n, height, width, 1] to float32 levels, 0 to 255, of the same shape on `device`.

    Each image is changed by itself. Its paper is the median level of its border. Its ink is what differs from the paper
    to the side, dark or bright, to which the image as a whole differs. The paper becomes 0, and so does what lies on
    its other side. The ink becomes the difference. If the strongest ink differs by 32 levels or more, but by fewer than
    204, all ink is scaled so that the strongest becomes 255.

    So an image comes back with the same levels if most of its border is black and its brightest level is 204 or more.
    An image and its negative give the same levels. An image of a single level becomes black.
    """
    border = _border(height, width).to(device)
    contrasts = torch.arange(256, dtype=torch.float32)
    faint = (contrasts >= _NONE) & (contrasts < _FULL)
    gains = torch.where(faint, 255 / contrasts, 1.0).to(device)
    places = border.cpu().numpy()

    def are_bright_on_black(pixels: torch.Tensor) -> bool:
        levels = pixels.flatten(1).numpy()
        black = len(places) - np.count_nonzero(levels[:, places], axis=1)
        return bool((2 * black > len(places)).all() and (levels.max(axis=1) >= _FULL).all())

    def brighten(pixels: torch.Tensor) -> torch.Tensor:
        if device.type == "cpu" and are_bright_on_black(pixels):  # which takes a quarter of the time
            return pixels.to(torch.float32, copy=True)
        levels = pixels.flatten(1).to(torch.float32)
        levels.sub_(levels.index_select(1, border).median(1, keepdim=True).values)
        levels.mul_(levels.sum(1, keepdim=True).sign_()).relu_()
        contrast = levels.amax(1).int()
        return levels.mul_(gains.index_select(0, contrast)[:, None]).view(pixels.shape)

    return brighten


def _border(height: int, width: int) -> torch.Tensor:
    """Returns the places of some pixels, spread evenly along the border, in an image that is one row of pixels.

    Their number is odd. Of an even one torch takes the lower of the two in the middle, which is another in a negative.
    """
    places = torch.arange(height * width).view(height, width)
    around = torch.cat([places[0], places[1:, -1], places[-1, :-1].flip(0), places[1:-1, 0].flip(0)])
    samples = around[:: max(1, len(around) // _SAMPLES)]
    return samples[: len(samples) - (len(samples) + 1) % 2]
