"""Changes the images of a whole batch at random, in training only, on the device where they are.

Images are uint8 [n, height, width, channels] before and after. What comes in from outside of an image is 0. All random
numbers are drawn from a generator on the CPU: the same generator gives the same images on every device.
"""

import math

import torch
import torch.nn.functional as F

from training.recipes.recipe import Augment

_SPANS = 5  # of the elastic field along each side of an image: for 28 pixels about as smooth as Simard's sigma of 4


def augmented(images: torch.Tensor, augment: Augment, generator: torch.Generator) -> torch.Tensor:
    """Returns the images flipped, warped and shifted as `augment` says, or `images` itself if it says nothing.

    `images` may be changed: they are a batch that nobody else needs.
    """
    if augment.flip:
        flip_in_place(images, generator)
    warp = augment.model_dump(include={"degrees", "scale", "shear", "translate", "elastic"})
    if any(warp.values()):
        images = warped(images, **warp, generator=generator)
    return shifted(images, augment.shift, generator)


def shifted(images: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Returns each image moved by up to `most` whole pixels in each direction."""
    if most == 0:
        return images
    count, height, width = images.shape[:3]
    rows, columns = torch.randint(0, 2 * most + 1, (2, count), generator=generator).to(images.device)
    # All the places that an image may be seen at, as one view: blocks are copied, not pixels looked up.
    windows = F.pad(images, (0, 0, most, most, most, most)).unfold(1, height, 1).unfold(2, width, 1)
    return windows.permute(0, 1, 2, 4, 5, 3)[torch.arange(count, device=images.device), rows, columns]


def flip_in_place(images: torch.Tensor, generator: torch.Generator) -> None:
    """Mirrors each image left-right with probability 1/2.

    One image at a time, which stays in the cache: a choice between the batch and its mirror image takes ten times as
    long (decision 9).
    """
    chosen = torch.rand(len(images), generator=generator) < 0.5
    for index in chosen.nonzero().flatten().tolist():
        images[index] = images[index].flip(1)


def warped(
    images: torch.Tensor,
    *,
    degrees: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    translate: float = 0.0,
    elastic: float = 0.0,
    generator: torch.Generator,
) -> torch.Tensor:
    """Returns each image under an affine map and a smooth displacement of its own.

    Both are drawn evenly. The image is sampled once, by bilinear interpolation.

    Args:
        degrees: the image is turned about its middle by up to this angle, either way.
        scale: the image is enlarged by a factor from 1 - `scale` to 1 + `scale`.
        shear: upright lines are slanted by up to so many degrees, either way.
        translate: the image is moved by up to so many pixels (fractions too) in each direction.
        elastic: beside the affine map, a point moves by at most so many pixels in each direction.
    """
    count, height, width = images.shape[:3]
    turn, enlarge, slant, right, down = torch.rand(5, count, generator=generator) * 2 - 1
    sources = affine(
        turn=turn * math.radians(degrees),
        enlarge=1 + enlarge * scale,
        slant=slant * math.radians(shear),
        right=right * translate,
        down=down * translate,
    )
    places = _places(sources.to(images.device), height, width)
    if elastic > 0:
        pulls = (torch.rand(count, 2, _SPANS + 3, _SPANS + 3, generator=generator) * 2 - 1) * elastic
        places += _smooth(pulls.to(images.device), height, width)
    return sampled(images, places)


def affine(
    *, turn: torch.Tensor, enlarge: torch.Tensor, slant: torch.Tensor, right: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """Returns float [n, 2, 3]: where each pixel (x, y, 1) of the result comes from, in pixels from the image's middle.

    What is seen is first slanted (its top to the right), then turned (clockwise), then enlarged, then moved.

    Args:
        turn, slant: [n], radians.
        enlarge: [n], factors.
        right, down: [n], pixels.
    """
    cosine, sine, slope = turn.cos(), turn.sin(), slant.tan()
    # The inverse of enlarge * turn * slant, for it is the result that is walked through.
    rows = (cosine - slope * sine, sine + slope * cosine, -sine, cosine)
    a, b, c, d = (entry / enlarge for entry in rows)
    return torch.stack([a, b, -(a * right + b * down), c, d, -(c * right + d * down)], dim=1).view(-1, 2, 3)


def sampled(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Returns the images as they are read at `places`.

    Args:
        places: float [n, 2 (x, y), height, width], in pixels from the image's middle.
    """
    height, width = images.shape[1:3]
    half = torch.tensor([width / 2, height / 2], device=places.device)[:, None, None]
    pixels = images.permute(0, 3, 1, 2).float()
    read = F.grid_sample(pixels, (places / half).permute(0, 2, 3, 1), padding_mode="zeros", align_corners=False)
    return read.round_().to(torch.uint8).permute(0, 2, 3, 1)


def _places(sources: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Maps every pixel of the result by [n, 2, 3] to float [n, 2, height, width]; both count from the middle."""
    y = torch.arange(height, device=sources.device) - (height - 1) / 2
    x = torch.arange(width, device=sources.device) - (width - 1) / 2
    by_x, by_y, moved = sources[..., None].unbind(2)
    # No matrix product: its precision is the device's choice, and these are places.
    return (by_x * x)[:, :, None, :] + (by_y * y + moved)[:, :, :, None]


def _smooth(pulls: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Makes of float [n, 2, knots, knots] a cubic spline [n, 2, height, width], within the range of `pulls`."""
    with torch.autocast(pulls.device.type, enabled=False):  # in bf16 the places would be rounded to a few bits
        return _spline(height, pulls) @ pulls @ _spline(width, pulls).T


def _spline(size: int, pulls: torch.Tensor) -> torch.Tensor:
    """Returns float [size, knots]: each pixel's share in each knot of a uniform cubic B-spline. A row's sum is 1."""
    knots = pulls.shape[-1]
    pixels = 1 + (torch.arange(size, device=pulls.device) + 0.5) * (knots - 3) / size
    distance = (pixels[:, None] - torch.arange(knots, device=pulls.device)).abs()
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance).clamp_min(0) ** 3 / 6
    return torch.where(distance < 1, near, far)
