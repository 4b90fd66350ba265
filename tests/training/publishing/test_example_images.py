"""Example images for a reference batch: drawn ones are always the same, and a folder may hold anything."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.checkpoints import DIGITS, PHOTOS, png
from training.errors import TrainingError
from training.publishing.example_images import drawn, from_folder


def _opened(file: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


@pytest.mark.parametrize("preprocess", [DIGITS, PHOTOS], ids=["grey", "colour"])
def test_eight_different_pictures_are_drawn_always_the_same_ones(preprocess: object) -> None:
    kind = DIGITS if preprocess is DIGITS else PHOTOS
    files = drawn(kind)
    assert files == drawn(kind)
    assert len(set(files)) == 8
    for image in map(_opened, files):
        assert (image.format, image.mode) == ("PNG", kind.mode)
        assert max(image.size) <= 512
        assert np.asarray(image).std() > 5
        assert kind.to_pixels(image).shape == kind.shape


def _write(folder: Path, count: int) -> list[bytes]:
    files = [png(seed) for seed in range(count)]
    for i, file in enumerate(files):
        (folder / f"{i:02}").mkdir()
        (folder / f"{i:02}" / "image.png").write_bytes(file)
    return files


def _same_picture(one: bytes, other: bytes) -> bool:
    return np.array_equal(np.asarray(_opened(one)), np.asarray(_opened(other)))


def test_a_folders_images_are_taken_spread_over_all_of_them(tmp_path: Path) -> None:
    files = _write(tmp_path, 16)
    taken = from_folder(tmp_path, DIGITS)
    assert len(taken) == 8
    assert all(map(_same_picture, taken, files[::2]))


def test_a_few_images_are_all_taken(tmp_path: Path) -> None:
    files = _write(tmp_path, 3)
    taken = from_folder(tmp_path, DIGITS)
    assert len(taken) == 3
    assert all(map(_same_picture, taken, files))


def test_what_is_no_sound_image_is_made_up_for_by_others(tmp_path: Path) -> None:
    files = _write(tmp_path, 10)
    (tmp_path / "00" / "image.png").write_bytes(files[0][:100])
    (tmp_path / "00" / "a.txt").write_text("no image")
    taken = from_folder(tmp_path, DIGITS)
    assert len(taken) == 8
    assert all(any(_same_picture(one, other) for other in files[1:]) for one in taken)


def test_large_images_are_made_smaller_and_have_the_networks_channels(tmp_path: Path) -> None:
    Image.new("RGBA", (1200, 600), (9, 9, 9, 255)).save(tmp_path / "large.png")
    (taken,) = from_folder(tmp_path, PHOTOS)
    assert (_opened(taken).size, _opened(taken).mode) == ((512, 256), "RGB")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there is no image in"):
        from_folder(tmp_path, DIGITS)
    (tmp_path / "a.txt").write_text("no image")
    with pytest.raises(TrainingError, match="there is no image in"):
        from_folder(tmp_path, DIGITS)
    with pytest.raises(TrainingError, match="is not a folder of images"):
        from_folder(tmp_path / "a.txt", DIGITS)
