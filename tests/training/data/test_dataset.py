"""Data sets: split by the seed, each class its share, and refused with advice where that cannot be."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classifier.preprocess import Preprocess
from classifier.progress import Progress
from tests.support.digits import write_mnist
from training.data.batches import InMemorySplit, OnDemandSplit, Split
from training.data.dataset import Dataset, load_dataset
from training.errors import TrainingError
from training.recipes.builtin import builtin
from training.recipes.recipe import Recipe

CPU = torch.device("cpu")


def _load(recipe: Recipe, folder: Path) -> Dataset:
    return load_dataset(recipe, folder=folder, scratch=folder, workers=0, progress=Progress.silent())


def images_of(split: Split) -> torch.Tensor:
    ((images, targets),) = split.batches([torch.arange(len(split))], device=CPU)
    assert targets.equal(split.targets)
    return images


def test_held_out_samples_are_not_trained_on_and_none_is_lost(tiny: Recipe, tmp_path: Path) -> None:
    dataset = _load(tiny, tmp_path)
    train, held_out, test = (
        {image.tobytes() for image in images_of(split).numpy()}
        for split in (dataset.train, dataset.held_out, dataset.test)
    )
    assert (len(train), len(held_out), len(test)) == (600, 100, 150)
    assert not train & held_out
    assert not test & (train | held_out)


def test_the_seed_chooses_what_is_held_out_of_mnist(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=60, test=10)
    recipe = builtin("mnist").replace(held_out=20)
    first, same, other = (_load(recipe.replace(seed=seed), folder) for seed in (1, 1, 2))
    assert images_of(first.held_out).equal(images_of(same.held_out))
    assert not images_of(first.held_out).equal(images_of(other.held_out))
    assert first.fingerprint == other.fingerprint


@pytest.mark.parametrize("held_out", [100, 1 / 7])
@pytest.mark.slow
def test_of_each_class_the_same_share_is_held_out(tiny: Recipe, tmp_path: Path, held_out: float) -> None:
    dataset = _load(tiny.replace(held_out=held_out), tmp_path)
    held, kept = (torch.bincount(split.targets, minlength=10) for split in (dataset.held_out, dataset.train))
    assert len(dataset.held_out) == pytest.approx(100, abs=5)
    assert ((held - (held + kept) / 7).abs() < 1).all()


@pytest.mark.slow
def test_pixels_are_what_preprocess_makes_of_the_images(tiny: Recipe, tmp_path: Path) -> None:
    smaller = Preprocess(mode="RGB", resize=20, crop=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
    larger = smaller.model_copy(update={"resize": 40, "crop": (32, 32)})
    for preprocess, kind in ((tiny.preprocess, InMemorySplit), (smaller, InMemorySplit), (larger, OnDemandSplit)):
        dataset = _load(tiny.replace(preprocess=preprocess.model_dump()), tmp_path)
        assert isinstance(dataset.test, kind)
        for png, pixels in zip(dataset.examples, _first_of_each_class(dataset), strict=True):
            assert np.array_equal(preprocess.to_pixels(Image.open(io.BytesIO(png))), pixels)


def _first_of_each_class(dataset: Dataset) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    firsts = np.unique(dataset.test.targets.numpy(), return_index=True)[1][:8]
    return [images_of(dataset.test)[i].numpy() for i in firsts.tolist()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "augment", [{"trivial": True}, {"rand": (2, 9)}, {"erase": 1.0}], ids=["trivial", "rand", "erase"]
)
def test_images_that_are_augmented_one_by_one_are_not_stacked(
    tiny: Recipe, tmp_path: Path, augment: dict[str, Any]
) -> None:
    dataset = _load(tiny.replace(augment=augment), tmp_path)
    ((plain, _),) = dataset.train.batches([torch.arange(50)], device=CPU)
    ((drawn, _),) = dataset.train.batches([torch.arange(50)], device=CPU, draw=1)
    assert plain.equal(images_of(_load(tiny, tmp_path).train)[:50])
    assert plain.shape == drawn.shape
    assert not plain.equal(drawn)


def test_too_few_samples_to_hold_some_out_are_refused(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=30, test=10)
    with pytest.raises(TrainingError, match="too few"):
        _load(builtin("mnist").replace(held_out=40), folder)


def test_each_class_keeps_a_sample_to_train_on(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=30, test=10)
    recipe = builtin("mnist")
    classes = len(np.unique(_load(recipe.replace(held_out=1), folder).train.targets))
    most = _load(recipe.replace(held_out=30 - classes), folder)
    assert len(most.train) == len(np.unique(most.train.targets)) == classes
    with pytest.raises(TrainingError, match="each class must keep one"):
        _load(recipe.replace(held_out=31 - classes), folder)
