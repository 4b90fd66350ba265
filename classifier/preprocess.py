"""Says as data what happens to an image before a network sees it, and does the uint8 half of it.

`Preprocess` is saved in every checkpoint. Training and the server both call `to_pixels`, so both give a network the
same pixels. The other half, from uint8 to float, is in `classifier.normalize`. This file imports no torch.
"""

import hashlib
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from classifier.box_resize import box_resize
from classifier.visible import ImageError, to_mode

__all__ = ["ImageError", "Pixels", "Preprocess"]

# C-contiguous uint8 array of shape [height, width, channels]; channels is 1 (L) or 3 (RGB).
Pixels = npt.NDArray[np.uint8]

Edge = Annotated[int, Field(ge=1, le=4096)]

# A long thin image would grow without bound when its shorter edge is scaled up to `resize`.
MAX_ENLARGED_PIXELS = 1 << 25

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class Preprocess(BaseModel):
    """Describes the way from any image to the pixels that one network expects, and on to its floats.

    Args:
        mode: "L" (one channel, grey) or "RGB" (three).
        resize: the length of the shorter edge, where the longer keeps the ratio; or (height, width); or None: the size
            stays as it is.
        crop: (height, width) to cut from the middle, where 0 fills what is missing; None: nothing is cut.
        mean, std: one value for each channel, of levels scaled to [0, 1].
        interpolation: how pixels are resampled. It is always antialiased, except for "nearest".
        resizing: "exact" is torchvision's transform bit for bit. "box" does not compute all that the crop would cut
            off, which is faster and at most 1 level apart.
        background: the grey level, 0 to 255, that shows where an image is transparent.
        ink_on_paper: the image shows ink on paper. Before mean and std are applied, the paper becomes black and the ink
            bright, whatever levels they have (`classifier.ink`). The pixels stay as they are. It needs the mode "L".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["L", "RGB"]
    resize: Edge | tuple[Edge, Edge] | None
    crop: tuple[Edge, Edge] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    resizing: Literal["exact", "box"] = "exact"
    background: int = Field(default=255, ge=0, le=255)
    ink_on_paper: bool = False

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.crop is None and not isinstance(self.resize, tuple):
            raise ValueError("either crop or both edges of resize must be given: a batch needs images of one size")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean and std need {self.channels} values each for mode {self.mode}")
        if not all(map(math.isfinite, self.mean)) or not all(math.isfinite(s) and s > 0 for s in self.std):
            raise ValueError("mean must be finite, std finite and above 0")
        if self.ink_on_paper and self.mode != "L":
            raise ValueError("ink_on_paper needs the mode L: in colour there is no dark and bright")
        return self

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (colour)."""
        return 1 if self.mode == "L" else 3

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the pixels of every image."""
        match self.crop, self.resize:
            case ((height, width), _) | (None, (height, width)):
                return height, width, self.channels
        raise AssertionError("the validator has seen to it that one of them is a pair")

    @cached_property
    def digest(self) -> str:
        """A hash that is equal for two that make the same pixels of every image.

        mean, std and ink_on_paper do not count, for they are applied later.
        """
        pixel_part = self.model_dump_json(exclude={"mean", "std", "ink_on_paper"})
        return hashlib.sha256(pixel_part.encode()).hexdigest()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Returns a changed copy, checked again.

        (pydantic's own method would check nothing, and keep the shape and the digest of this one.)
        """
        return type(self).model_validate({**self.model_dump(), **(update or {})})

    def to_pixels(self, image: Image.Image) -> Pixels:
        """Returns the pixels of `image`, of shape `self.shape`. Of an animated image they are the first frame's.

        Resizing and cropping equal torchvision's `Resize` and `CenterCrop` on a PIL image.

        Raises:
            ImageError: the file is damaged or cut short, or has pixels or proportions that cannot be used.
            MemoryError: there is too little memory left; that says nothing of the image.
        """
        try:
            seen = to_mode(image, mode=self.mode, background=self.background)
            # Not np.array(image), which takes half as long again.
            values = bytearray(self._resized_and_cropped(seen).tobytes())
            return np.frombuffer(values, np.uint8).reshape(self.shape)
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
            raise ImageError(f"the image is damaged: {str(error) or type(error).__name__}") from error

    @cached_property
    def _as_it_is(self) -> tuple[int, int] | None:
        """(width, height) of an image that needs neither resizing nor cropping; None if there is no such size."""
        size = self.shape[1], self.shape[0]
        return size if _resized_size(size, self.resize) == size else None

    def _resized_and_cropped(self, image: Image.Image) -> Image.Image:
        if image.size == self._as_it_is:
            return image
        width, height = _resized_size(image.size, self.resize)
        crop_height, crop_width = self.crop or (height, width)
        left, top = _margin(width, crop_width), _margin(height, crop_height)
        window = (left, top, left + crop_width, top + crop_height)
        if (width, height) != image.size:
            resample = _INTERPOLATIONS[self.interpolation]
            inside = crop_width <= width and crop_height <= height
            if self.resizing == "box" and inside and resample != Image.Resampling.NEAREST:
                return box_resize(image, size=(width, height), window=window, resample=resample)
            image = image.resize((width, height), resample)
        return image if window == (0, 0, *image.size) else image.crop(window)


def _resized_size(size: tuple[int, int], resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """Returns (width, height) after resizing. The longer edge is cut down to a whole number, as torchvision does it.

    Raises: ImageError if the image is so long and thin that enlarging it would take too much memory.
    """
    match resize:
        case None:
            return size
        case (new_height, new_width):
            return new_width, new_height
        case int(shorter):
            longer = int(shorter * max(size) / min(size))
            if shorter > min(size) and shorter * longer > MAX_ENLARGED_PIXELS:
                raise ImageError(f"an image of {size[0]}x{size[1]} pixels is too long and thin")
            return (shorter, longer) if size[0] <= size[1] else (longer, shorter)


def _margin(edge: int, crop: int) -> int:
    """Returns how many pixels are cut off before the crop.

    The number is below 0 where the crop is longer than the edge: so many zeros are put there instead.
    """
    # As torchvision: halves are rounded to even where it cuts, and the odd pixel of padding comes last.
    return round((edge - crop) / 2) if crop <= edge else -((crop - edge) // 2)
