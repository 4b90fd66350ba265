"""Preprocess as data, and its resizing and cropping: torchvision's own transforms, bit for bit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from torchvision import models
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from classifier.preprocess import Pixels, Preprocess
from tests.support.images import noise
from training.networks.pretrained import as_preprocess

# Odd, tiny, smaller than any crop, exactly as large, long both ways, and of a camera's proportions: (width, height).
SIZES = [
    *((1, 1), (1, 2), (3, 2), (5, 5), (28, 28), (31, 17), (40, 1), (1, 40), (223, 225), (224, 224), (256, 256)),
    *((255, 257), (232, 231), (500, 375), (375, 500), (481, 641), (333, 777), (223, 500), (900, 31), (31, 900)),
]


def _real_transforms() -> Iterator[tuple[str, Any]]:
    """Every distinct one of torchvision's classifiers, with the first weights that have it."""
    seen = set()
    for name in models.list_models(module=models):
        for weights in models.get_model_weights(name):
            transform = weights.transforms()
            if repr(transform) not in seen:
                seen.add(repr(transform))
                yield str(weights), transform


TRANSFORMS = dict(_real_transforms())


def _both(transform: Any) -> tuple[Preprocess, Preprocess]:
    exact = as_preprocess(transform)
    return exact, exact.model_copy(update={"resizing": "box"})


def _torchvisions(image: Image.Image, transform: Any) -> Pixels:
    """The uint8 stage of the transform's own `forward`."""
    image = F.resize(image, transform.resize_size, interpolation=transform.interpolation, antialias=transform.antialias)
    pixels: Pixels = F.pil_to_tensor(F.center_crop(image, transform.crop_size)).permute(1, 2, 0).numpy()
    return pixels


def _levels_apart(a: Pixels, b: Pixels) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(np.int16) - b).max())


def test_torchvision_has_weights_with_many_different_transforms() -> None:
    assert len(TRANSFORMS) > 20  # or the tests below would prove little


@pytest.mark.slow
@pytest.mark.parametrize("weights", TRANSFORMS)
def test_pixels_equal_the_uint8_stage_of_every_real_transform(weights: str) -> None:
    transform = TRANSFORMS[weights]
    exact, box = _both(transform)
    for width, height in SIZES:
        image = Image.fromarray(noise(height, width, seed=width))
        pixels = exact.to_pixels(image)
        assert np.array_equal(pixels, _torchvisions(image, transform)), (width, height)
        assert _levels_apart(box.to_pixels(image), pixels) <= 1, (width, height)


@pytest.mark.parametrize(
    "weights", [w for w in TRANSFORMS if w.startswith(("AlexNet", "ConvNeXt_Tiny", "ViT_H", "Effi"))]
)
def test_pixels_equal_torchvisions_on_real_photos(weights: str, shared_data: Path) -> None:
    transform = TRANSFORMS[weights]
    exact, box = _both(transform)
    photos = sorted((shared_data / "photos").glob("*.JPEG"))[::11]
    assert photos
    for path in photos:
        with Image.open(path) as image:
            pixels = exact.to_pixels(image)
            assert np.array_equal(pixels, _torchvisions(image.convert("RGB"), transform)), path.name
            assert _levels_apart(box.to_pixels(image), pixels) <= 1, path.name


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("resizing", ["exact", "box"])
def test_any_resize_and_crop_that_can_be_said_equals_torchvisions(mode: str, interpolation: str, resizing: str) -> None:
    random = np.random.default_rng(5)
    for case in range(150):
        width, height, *edges = (int(v) for v in random.integers(1, 120, 6))
        resize: Any = (edges[0], (edges[0], edges[1]), None)[case % 3]
        crop: Any = None if case % 3 == 1 and case % 2 else (edges[2], edges[3])
        values = [0.5] * (1 if mode == "L" else 3)
        preprocess = Preprocess.model_validate(
            {"mode": mode, "resize": resize, "crop": crop, "mean": values, "std": values}
            | {"interpolation": interpolation, "resizing": resizing}
        )
        image = Image.fromarray(noise(height, width, seed=case)).convert(mode)
        pixels = preprocess.to_pixels(image)
        if resize is not None:
            size = [resize] if isinstance(resize, int) else list(resize)
            image = F.resize(image, size, interpolation=InterpolationMode(interpolation))
        if crop is not None:
            image = F.center_crop(image, list(crop))
        expected = F.pil_to_tensor(image).permute(1, 2, 0).numpy()
        allowed = 0 if resizing == "exact" else 1
        assert _levels_apart(pixels, expected) <= allowed, (case, preprocess, width, height)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_pixels_are_a_contiguous_array_of_their_own(mode: str) -> None:
    values = (0.5,) * (1 if mode == "L" else 3)
    preprocess = Preprocess.model_validate({"mode": mode, "resize": 12, "crop": (10, 8), "mean": values, "std": values})
    image = Image.fromarray(noise(20, 30))
    pixels = preprocess.to_pixels(image)
    assert pixels.dtype == np.uint8
    assert pixels.shape == preprocess.shape == (10, 8, preprocess.channels)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    pixels[:] = 0
    assert preprocess.to_pixels(image).any()


def test_what_the_crop_misses_is_filled_with_zeros_and_the_odd_pixel_comes_last() -> None:
    preprocess = Preprocess(mode="L", resize=None, crop=(5, 4), mean=(0,), std=(1,))
    pixels = preprocess.to_pixels(Image.new("L", (2, 2), 9))[..., 0]
    assert pixels.tolist() == [[0, 0, 0, 0], [0, 9, 9, 0], [0, 9, 9, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("resize", "crop", "shape"),
    [(256, (224, 200), (224, 200, 3)), ((30, 40), None, (30, 40, 3)), ((30, 40), (20, 50), (20, 50, 3))],
)
def test_the_shape_is_known_without_an_image(resize: Any, crop: Any, shape: tuple[int, ...]) -> None:
    preprocess = Preprocess(mode="RGB", resize=resize, crop=crop, mean=(0, 0, 0), std=(1, 1, 1))
    assert preprocess.shape == shape == preprocess.to_pixels(Image.new("RGB", (33, 44))).shape


WHOLE: dict[str, Any] = {
    "mode": "RGB",
    "resize": 256,
    "crop": [224, 224],
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.2],
    "interpolation": "bilinear",
    "resizing": "exact",
    "background": 255,
    "ink_on_paper": False,
}


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "L", "mean": [0.5], "std": [0.2]},
        {"resize": 255},
        {"resize": [256, 256]},
        {"resize": None},
        {"crop": [224, 223]},
        {"interpolation": "bicubic"},
        {"resizing": "box"},
        {"background": 0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_sees_whatever_changes_pixels(change: dict[str, Any]) -> None:
    assert Preprocess.model_validate(WHOLE | change).digest != Preprocess.model_validate(WHOLE).digest


def test_the_digest_does_not_see_what_changes_no_pixel() -> None:
    digest = Preprocess.model_validate(WHOLE).digest
    assert Preprocess.model_validate(WHOLE | {"mean": [0.1, 0.2, 0.3]}).digest == digest
    assert Preprocess.model_validate(WHOLE | {"std": [1, 2, 3]}).digest == digest
    grey = {"mode": "L", "mean": [0.5], "std": [0.5]}
    plain, ink = (Preprocess.model_validate(WHOLE | grey | {"ink_on_paper": ink}) for ink in (False, True))
    assert plain.digest == ink.digest
    assert Preprocess.model_validate_json(Preprocess.model_validate(WHOLE).model_dump_json()).digest == digest


def test_a_copy_with_other_values_has_a_shape_and_a_digest_of_its_own() -> None:
    whole = Preprocess.model_validate(WHOLE)
    was = whole.shape, whole.digest
    other = whole.model_copy(update={"crop": (10, 12)})
    assert other.shape[:2] == (10, 12)
    assert other.digest != was[1]
    assert (whole.shape, whole.digest) == was


def test_every_field_is_either_in_the_digest_or_applied_later() -> None:
    assert WHOLE.keys() == Preprocess.model_fields.keys()  # a new field belongs into the tests above


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"crop": None}, "either crop or both edges of resize"),
        ({"crop": None, "resize": None}, "either crop or both edges of resize"),
        ({"mean": [0.5]}, "3 values each for mode RGB"),
        ({"std": [0.2, 0.2]}, "3 values each for mode RGB"),
        ({"mode": "L"}, "1 values each for mode L"),
        ({"ink_on_paper": True}, "ink_on_paper needs the mode L"),
        ({"std": [0.2, 0.2, 0.0]}, "above 0"),
        ({"std": [0.2, 0.2, -1.0]}, "above 0"),
        ({"mean": [0.2, 0.2, float("nan")]}, "finite"),
        ({"std": [0.2, 0.2, float("inf")]}, "finite"),
        ({"resize": 0}, "greater than or equal to 1"),
        ({"resize": 4097}, "less than or equal to 4096"),
        ({"crop": [0, 1]}, "greater than or equal to 1"),
        ({"crop": [1, 2, 3]}, "at most 2 items"),
        ({"background": 256}, "less than or equal to 255"),
        ({"interpolation": "lanczos"}, "nearest"),
        ({"resizing": "fast"}, "exact"),
        ({"mode": "RGBA"}, "RGB"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_data_that_makes_no_sense_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Preprocess.model_validate_json(json.dumps(WHOLE | change))


class _NoMemory(Image.Image):
    """An image that is too large for what is left of the memory."""

    def load(self) -> Any:
        raise MemoryError


def test_that_there_is_no_memory_says_nothing_of_the_image() -> None:
    preprocess = Preprocess(mode="L", resize=(28, 28), crop=None, mean=(0,), std=(1,))
    with pytest.raises(MemoryError):
        preprocess.to_pixels(_NoMemory())
