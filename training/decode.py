"""One picture, from where it lies to uint8 pixels: as the server makes them, or augmented for training."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, JpegImagePlugin, UnidentifiedImageError

from classifier.architectures import TORCHVISION_BROKEN
from classifier.preprocess import ImageError, Pixels, Preprocess
from classifier.visible import visible
from training.errors import TrainingError
from training.labelled import Picture
from training.recipes import Augment

# Those that torchvision's ImageFolder reads, by what they hold and not by their names.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
_RATIO = (3 / 4, 4 / 3)
_SPARE = 2  # a JPEG is decoded smaller where what is cut out still has so many times the pixels wanted, each way


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Args:
    pictures: any number of them.
    seeds: one for each picture, of what is done to it at random; None: nothing is.
    """

    pictures: tuple[Picture, ...]
    preprocess: Preprocess
    augment: Augment
    seeds: tuple[int, ...] | None


def pixels_of(job: Job) -> torch.Tensor:
    """uint8 [n, height, width, channels].

    Raises: TrainingError naming the file that cannot be read.
    """
    pixels = torch.empty((len(job.pictures), *job.preprocess.shape), dtype=torch.uint8)
    rows = pixels.numpy()
    if job.seeds is None or not (job.augment.crop or job.augment.trivial):
        for row, picture in zip(rows, job.pictures, strict=True):
            row[...] = _plain(picture, job.preprocess)
        return pixels
    chance = _Chance(job.preprocess, job.augment)
    with torch.random.fork_rng(devices=[]):
        for row, picture, seed in zip(rows, job.pictures, job.seeds, strict=True):
            row[...] = chance.pixels(picture, seed)
    return pixels


def stacked(images: npt.NDArray[np.uint8], preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """uint8 [n, height, width, channels] of the images of an array."""
    mode = "L" if images.ndim == 3 else "RGB"
    if images.shape[1:3] == preprocess.shape[:2] and preprocess.mode == mode and preprocess.crop is None:
        return images.reshape(-1, *preprocess.shape)  # what `to_pixels` would give, without 60,000 calls
    return np.stack([preprocess.to_pixels(Image.fromarray(image)) for image in images])


def opened(picture: Picture) -> Image.Image:
    """The image with its size known and nothing decoded. Raises: OSError; nearly any from Pillow's parsers."""
    if isinstance(picture, Path):
        return Image.open(BytesIO(picture.read_bytes()), formats=FORMATS)
    return Image.fromarray(picture)


def seen_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of what `visible` will show of an image that is not yet decoded."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or _orientation(image) < 5:
        return image.size
    return image.height, image.width


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  damaged EXIF says nothing about the pixels
        return 1
    return value if isinstance(value, int) else 1


def _plain(picture: Picture, preprocess: Preprocess) -> Pixels:
    try:
        return preprocess.to_pixels(opened(picture))
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged files
        raise _unreadable(picture, error) from error


class _Chance:
    """What is done at random to single images; all that is random comes from torch's generator."""

    def __init__(self, preprocess: Preprocess, augment: Augment) -> None:
        # Here, not above: torchvision takes a second to import.
        try:
            from torchvision.transforms import v2
        except (RuntimeError, ImportError) as error:
            raise TrainingError(TORCHVISION_BROKEN.format(reason=error)) from error
        self._preprocess = preprocess
        self._resample = Image.Resampling[preprocess.interpolation.upper()]
        interpolation = v2.InterpolationMode(preprocess.interpolation)
        self._crop = v2.RandomResizedCrop(preprocess.shape[:2], augment.crop, _RATIO) if augment.crop else None
        self._trivial = v2.TrivialAugmentWide(interpolation=interpolation) if augment.trivial else None

    def pixels(self, picture: Picture, seed: int) -> Pixels:
        # Not torch.manual_seed: it also seeds devices that are not used here, which takes 50 times as long.
        torch.default_generator.manual_seed(seed)
        if self._crop is None:
            image = Image.fromarray(_plain(picture, self._preprocess).squeeze())
        else:
            try:
                image = self._cropped(opened(picture), self._crop)
            except Exception as error:  # Pillow's parsers raise nearly anything on damaged files
                raise _unreadable(picture, error) from error
        if self._trivial is not None:
            image = self._trivial(image)
        return np.asarray(image).reshape(self._preprocess.shape)

    def _cropped(self, image: Image.Image, crop: Any) -> Image.Image:
        width, height = seen_size(image)
        part = crop.make_params([torch.empty((1, height, width), device="meta")])
        left, top, wide, high = (part[name] for name in ("left", "top", "width", "height"))
        out_height, out_width, _ = self._preprocess.shape
        fewer = min(wide // (_SPARE * out_width), high // (_SPARE * out_height))
        if fewer > 1 and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (image.width // fewer, image.height // fewer))
        seen = visible(image, mode=self._preprocess.mode, background=self._preprocess.background)
        # A draft's last column and row may stand for less than the others.
        across, down = seen.width / width, seen.height / height
        box = (left * across, top * down, (left + wide) * across, (top + high) * down)
        return seen.resize((out_width, out_height), self._resample, box)


def _unreadable(picture: Picture, error: Exception) -> TrainingError:
    where = picture if isinstance(picture, Path) else "an image of the data set"
    return TrainingError(f"{where} cannot be used: {reason(error)}; it could be when training began")


def reason(error: Exception) -> str:
    """In a few words, without a path or the address of a buffer."""
    match error:
        case ImageError():
            return str(error)
        case UnidentifiedImageError():
            return "it is no JPEG, PNG, WebP, BMP, TIFF or PPM image"
        case OSError(strerror=str(words)):
            return words
    return " ".join(str(error).split())[:200] or type(error).__name__
