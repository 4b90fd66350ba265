"""Data sets: split by the seed, and refused with advice where there is none."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classifier.preprocess import Preprocess
from tests.training.digits import write_mnist
from training import data, mnist
from training.builtin import builtin
from training.data import Dataset
from training.errors import TrainingError
from training.progress import Progress
from training.recipes import Recipe


def _load(recipe: Recipe, folder: Path) -> Dataset:
    return data.load(recipe, folder=folder, scratch=folder, progress=Progress.silent())


def test_held_out_samples_are_not_trained_on_and_none_is_lost(tiny: Recipe, tmp_path: Path) -> None:
    dataset = _load(tiny, tmp_path)
    train, held_out, test = (
        {image.tobytes() for image in split.images.numpy()} for split in (dataset.train, dataset.held_out, dataset.test)
    )
    assert (len(train), len(held_out), len(test)) == (600, 100, 150)
    assert not train & held_out
    assert not test & (train | held_out)


def test_the_seed_chooses_what_is_held_out_of_mnist(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=60, test=10)
    recipe = builtin("mnist").but(held_out=20)
    first, same, other = (_load(recipe.but(seed=seed), folder) for seed in (1, 1, 2))
    assert first.held_out.images.equal(same.held_out.images)
    assert not first.held_out.images.equal(other.held_out.images)
    assert first.fingerprint == other.fingerprint


def test_mnist_is_read_as_torchvision_lays_it_out(tmp_path: Path) -> None:
    dataset = _load(builtin("mnist").but(held_out=20), write_mnist(tmp_path, train=60, test=10))
    assert dataset.train.images.shape == (40, 28, 28, 1)
    assert dataset.train.images.dtype == torch.uint8
    assert dataset.test.targets.dtype == torch.int64
    assert dataset.labels == tuple("0123456789")


def test_pixels_are_what_preprocess_makes_of_the_images(tiny: Recipe, tmp_path: Path) -> None:
    other = Preprocess(mode="RGB", resize=20, crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    for preprocess in (tiny.preprocess, other):
        dataset = _load(tiny.but(preprocess=preprocess.model_dump()), tmp_path)
        for png, pixels in zip(dataset.examples, _first_of_each_class(dataset), strict=True):
            assert np.array_equal(preprocess.to_pixels(Image.open(io.BytesIO(png))), pixels)


def _first_of_each_class(dataset: Dataset) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    firsts = np.unique(dataset.test.targets.numpy(), return_index=True)[1][:8]
    return [dataset.test.images[i].numpy() for i in firsts.tolist()]


def test_without_mnist_the_message_says_what_to_do(tmp_path: Path) -> None:
    nowhere = tmp_path / "a-file"
    nowhere.touch()  # nothing can be downloaded into it either
    with pytest.raises(TrainingError) as caught:
        mnist.load(nowhere)
    message = str(caught.value)
    assert "\n" not in message
    for advice in ("train-images-idx3-ubyte", str(nowhere / "MNIST" / "raw"), "--data", "strokes"):
        assert advice in message


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_mnist_is_refused(tmp_path: Path, name: str) -> None:
    path = write_mnist(tmp_path, train=30, test=10) / "MNIST" / "raw" / name
    for content in (path.read_bytes()[:-5], b"", b"no such format, whatever it may be"):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="MNIST cannot be had"):
            mnist.load(tmp_path)


def test_files_of_differing_length_are_refused(tmp_path: Path) -> None:
    raw = write_mnist(tmp_path / "one", train=30, test=10) / "MNIST" / "raw"
    other = write_mnist(tmp_path / "other", train=20, test=10) / "MNIST" / "raw"
    (other / "train-labels-idx1-ubyte").replace(raw / "train-labels-idx1-ubyte")
    with pytest.raises(TrainingError, match="do not fit together"):
        mnist.load(tmp_path / "one")


def test_too_few_samples_to_hold_some_out_are_refused(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=30, test=10)
    with pytest.raises(TrainingError, match="too few"):
        _load(builtin("mnist").but(held_out=40), folder)


def test_the_real_mnist_is_found_where_it_is_at_hand(shared_data: Path) -> None:
    train, test = mnist.load(shared_data / "mnist")
    assert (len(train.targets), len(test.targets)) == (60_000, 10_000)
