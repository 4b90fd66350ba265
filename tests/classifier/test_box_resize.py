"""A window of a resized image: never more than one level away from the resized image's own."""

import numpy as np
import pytest
from PIL import Image

from classifier.box_resize import box_resize
from tests.support.images import noise


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC], ids=lambda r: r.name)
@pytest.mark.parametrize("seed", range(8))
def test_a_window_is_at_most_one_level_apart_from_resizing_all(resample: Image.Resampling, seed: int) -> None:
    random = np.random.default_rng(seed)
    for case in range(60):
        width, height, new_width, new_height = (int(v) for v in random.integers(1, 500, 4))
        if case % 2:  # as photos are resized: both edges by nearly one factor
            new_width = max(1, width * new_height // height)
        if new_width * new_height > 500 * 500:
            continue
        left, right = sorted(int(v) for v in random.choice(new_width + 1, 2, replace=False))
        top, bottom = sorted(int(v) for v in random.choice(new_height + 1, 2, replace=False))
        image, window = Image.fromarray(noise(height, width, seed=case)), (left, top, right, bottom)
        whole = np.asarray(image.resize((new_width, new_height), resample).crop(window)).astype(np.int16)
        part = np.asarray(box_resize(image, size=(new_width, new_height), window=window, resample=resample))
        assert part.shape == whole.shape
        assert np.abs(whole - part).max() <= 1, (image.size, (new_width, new_height), window)


def test_a_window_over_everything_is_the_resized_image() -> None:
    image = Image.fromarray(noise(90, 70))
    whole = image.resize((40, 50), Image.Resampling.BICUBIC)
    part = box_resize(image, size=(40, 50), window=(0, 0, 40, 50), resample=Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(part), np.asarray(whole))
