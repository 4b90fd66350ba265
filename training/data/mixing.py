"""Mixes the images of a batch with one another, and their classes alike: mixup and CutMix."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from training.recipes.recipe import Augment


@dataclass(frozen=True, slots=True)
class Targets:
    """Says of which classes the images of a batch are.

    Args:
        first, second: int64 [n], the two classes of each image.
        share: of the first class, 0 to 1; the rest is of the second.
    """

    first: torch.Tensor
    second: torch.Tensor
    share: float = 1.0

    def loss(self, logits: torch.Tensor, *, label_smoothing: float) -> torch.Tensor:
        """Returns the mean cross-entropy with both classes, each by its share."""
        loss = F.cross_entropy(logits, self.first, label_smoothing=label_smoothing)
        if self.share == 1:
            return loss
        return self.share * loss + (1 - self.share) * F.cross_entropy(
            logits, self.second, label_smoothing=label_smoothing
        )

    def right(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns how many answers are right. An answer that is one of two classes counts by its share."""
        best = logits.argmax(1)
        right = (best == self.first).sum()
        return right if self.share == 1 else self.share * right + (1 - self.share) * (best == self.second).sum()


def mixed(
    images: torch.Tensor, targets: torch.Tensor, augment: Augment, generator: torch.Generator
) -> tuple[torch.Tensor, Targets]:
    """Returns the images mixed as `augment` says, or `images` itself if it says nothing.

    Each image gets a partner: the batch in a random order. All of a batch are mixed in the same share.

    Args:
        images: uint8 [n, height, width, channels].
        targets: int64 [n].
        generator: the only source of random numbers. It is on the CPU.
    """
    if not (augment.mixup or augment.cutmix):
        return images, Targets(targets, targets)
    chance = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
    cuts = augment.cutmix > 0 and (augment.mixup == 0 or chance.random() < 0.5)
    alpha = augment.cutmix if cuts else augment.mixup
    share = float(chance.beta(alpha, alpha))
    partners = torch.randperm(len(images), generator=generator).to(images.device)
    if cuts:
        images, share = _cut(images, images[partners], share, chance)
    else:
        images = (share * images + (1 - share) * images[partners]).round_().to(torch.uint8)
    return images, Targets(targets, targets[partners], share)


def _cut(
    images: torch.Tensor, others: torch.Tensor, share: float, chance: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Puts a part of each other image into each image; returns the images, and the share that stayed.

    The part has the image's ratio and 1 - `share` of its area. Its middle is anywhere, and what is outside is cut off.
    """
    height, width = images.shape[1:3]
    edge = math.sqrt(1 - share)
    top, bottom = _span(int(chance.integers(height)), int(height * edge), height)
    left, right = _span(int(chance.integers(width)), int(width * edge), width)
    images = images.clone()
    images[:, top:bottom, left:right] = others[:, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


def _span(middle: int, length: int, most: int) -> tuple[int, int]:
    return max(middle - length // 2, 0), min(middle + length // 2, most)
