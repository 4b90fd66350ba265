"""Makes uint8 pixels of a picture, from where it lies: as the server makes them, or augmented for training."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from classifier.image_files.opening import necessary
from classifier.preprocess import ImageError, Pixels, Preprocess
from classifier.torchvision_parts import torchvision_part
from classifier.visible import to_mode
from training.data import jpeg
from training.data.raw_dataset import Member, Picture
from training.errors import TrainingError, one_line
from training.recipes.recipe import Augment

# The formats that torchvision's ImageFolder reads; a file is known by its content, not by its name.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")
_RATIO = (3 / 4, 4 / 3)
_SPARE = 2  # a JPEG is decoded smaller where what is cut out still has so many times the pixels wanted, each way


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Asks for the pixels of some pictures.

    Args:
        pictures: any number of them.
        seeds: one for each picture, of what is done to it at random; None: nothing is done at random.
    """

    pictures: tuple[Picture, ...]
    preprocess: Preprocess
    augment: Augment
    seeds: tuple[int, ...] | None


def pixels_of(job: Job) -> torch.Tensor:
    """Returns uint8 [n, height, width, channels], one row for each picture of the job.

    Raises: TrainingError, which names the file that cannot be read; TorchvisionError.
    """
    pixels = torch.empty((len(job.pictures), *job.preprocess.shape), dtype=torch.uint8)
    rows = pixels.numpy()
    if job.seeds is None or not job.augment.one_by_one:
        for row, picture in zip(rows, job.pictures, strict=True):
            row[...] = _plain(picture, job.preprocess)
        return pixels
    chance = _Chance(job.preprocess, job.augment)
    with torch.random.fork_rng(devices=[]):
        for row, picture, seed in zip(rows, job.pictures, job.seeds, strict=True):
            row[...] = chance.pixels(picture, seed)
    return pixels


def stacked(images: npt.NDArray[np.uint8], preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Returns uint8 [n, height, width, channels], the pixels of all images of an array."""
    mode = "L" if images.ndim == 3 else "RGB"
    if images.shape[1:3] == preprocess.shape[:2] and preprocess.mode == mode and preprocess.crop is None:
        return images.reshape(-1, *preprocess.shape)  # what `to_pixels` would give, without 60,000 calls
    return np.stack([preprocess.to_pixels(Image.fromarray(image)) for image in images])


def opened(picture: Picture) -> Image.Image:
    """Returns the image with its size known and nothing decoded.

    Raises: OSError; nearly any, for Pillow's parsers raise them on damaged files.
    """
    return _opened_with_data(picture)[0]


def _opened_with_data(picture: Picture) -> tuple[Image.Image, bytes]:
    if isinstance(picture, Path | Member):
        data = necessary(picture.read_bytes(), max_pixels=None)
        return Image.open(BytesIO(data), formats=FORMATS), data
    return Image.fromarray(picture), b""


def _plain(picture: Picture, preprocess: Preprocess) -> Pixels:
    try:
        return preprocess.to_pixels(opened(picture))
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged files
        raise _unreadable(picture, error) from error


class _Chance:
    """Does at random what is done to single images; all random numbers come from torch's own generator."""

    def __init__(self, preprocess: Preprocess, augment: Augment) -> None:
        v2 = torchvision_part("transforms.v2")
        self._preprocess = preprocess
        interpolation = v2.InterpolationMode(preprocess.interpolation)
        self._crop = v2.RandomResizedCrop(preprocess.shape[:2], augment.crop, _RATIO) if augment.crop else None
        self._change: Any = None
        if augment.trivial:
            self._change = v2.TrivialAugmentWide(interpolation=interpolation)
        elif augment.rand is not None:
            self._change = v2.RandAugment(*augment.rand, interpolation=interpolation)
        mean = [round(255 * each) for each in preprocess.mean]
        self._erase = v2.RandomErasing(augment.erase, value=mean) if augment.erase else None

    def pixels(self, picture: Picture, seed: int) -> Pixels:
        # Not torch.manual_seed: it also seeds devices that are not used here, which takes 50 times as long.
        torch.default_generator.manual_seed(seed)
        if self._crop is None:
            pixels = _plain(picture, self._preprocess)
        else:
            try:
                pixels = self._cropped(picture, self._crop)
            except Exception as error:  # Pillow's parsers raise nearly anything on damaged files
                raise _unreadable(picture, error) from error
        if self._change is not None:
            pixels = np.asarray(self._change(Image.fromarray(pixels.squeeze())))
        pixels = pixels.reshape(self._preprocess.shape)
        if self._erase is not None:
            pixels = self._erase(torch.tensor(pixels).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        return pixels

    def _cropped(self, picture: Picture, crop: Any) -> Pixels:
        preprocess = self._preprocess
        image, data = _opened_with_data(picture)
        if isinstance(image, JpegImageFile):
            size = jpeg.upright_size(image)
            box = _box(crop, size)
            image = self._no_more_than_needed(image, data, box)
            seen = to_mode(image, mode=preprocess.mode, background=preprocess.background)
        else:
            seen = to_mode(image, mode=preprocess.mode, background=preprocess.background)
            size = seen.size
            box = _box(crop, size)
        if seen.width == size[0]:
            return resized(seen.crop(box), preprocess)
        # Not the ratio of the sizes: the last column and row may stand for less than the others.
        fewer = round(size[0] / seen.width)
        left, top = box[0] // fewer, box[1] // fewer
        # Cut out first: what is beside the part must not shine into its edges.
        part = seen.crop((left, top, -(-box[2] // fewer), -(-box[3] // fewer)))
        within = (box[0] / fewer - left, box[1] / fewer - top, box[2] / fewer - left, box[3] / fewer - top)
        height, width, _ = preprocess.shape
        return np.asarray(part.resize((width, height), _resample(preprocess), within))

    def _no_more_than_needed(self, image: JpegImageFile, data: bytes, box: tuple[int, int, int, int]) -> Image.Image:
        height, width, _ = self._preprocess.shape
        most = min((box[2] - box[0]) // (_SPARE * width), (box[3] - box[1]) // (_SPARE * height))
        return jpeg.smaller(image, most) if most > 1 else jpeg.down_to(box[3], image, data)


def _box(crop: Any, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Draws (left, top, right, bottom) of the part that is cut out."""
    part = crop.make_params([torch.empty((1, size[1], size[0]), device="meta")])
    return part["left"], part["top"], part["left"] + part["width"], part["top"] + part["height"]


def resized(image: Image.Image, preprocess: Preprocess) -> Pixels:
    """Returns `image`, which has the mode of the preprocess, in the shape of the preprocess's pixels."""
    height, width, _ = preprocess.shape
    if preprocess.interpolation != "bilinear":
        return np.asarray(image.resize((width, height), _resample(preprocess)))
    # torch takes less than half the time that Pillow needs; each level is at most 1 off.
    pixels = torch.from_numpy(np.array(image)).view(1, image.height, image.width, -1).permute(0, 3, 1, 2)
    smaller = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return smaller[0].permute(1, 2, 0).numpy()


def _resample(preprocess: Preprocess) -> Image.Resampling:
    return Image.Resampling[preprocess.interpolation.upper()]


def _unreadable(picture: Picture, error: Exception) -> TrainingError:
    where = picture if isinstance(picture, Path | Member) else "an image of the data set"
    return TrainingError(f"{where} cannot be used: {reason(error)}; it could when training began")


def reason(error: Exception) -> str:
    """Returns why a picture cannot be used, in a few words, without a path or the address of a buffer."""
    match error:
        case ImageError():
            return str(error)
        case UnidentifiedImageError():
            return "it is not a JPEG, PNG, WebP, BMP, TIFF or PPM image"
        case OSError(strerror=str(words)):
            return words
    return one_line(error)
