"""The data sets that torchvision knows: found, a part of them chosen, and refused with advice."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from tests.support.digits import write_mnist
from training.data import torchvision_datasets
from training.data.raw_dataset import RawDataset
from training.errors import TrainingError
from training.recipes.recipe import TorchvisionSource


def _load(folder: Path, kind: str = "mnist", *, seed: int = 0, **part: object) -> RawDataset:
    return torchvision_datasets.load(TorchvisionSource.model_validate({"kind": kind, **part}), folder, seed=seed)


def test_mnist_is_read_as_torchvision_lays_it_out(tmp_path: Path) -> None:
    mnist = _load(write_mnist(tmp_path, train=60, test=10))
    assert np.asarray(mnist.pictures).shape == (70, 28, 28)
    assert np.asarray(mnist.pictures).dtype == np.uint8
    assert (mnist.train.tolist(), mnist.test.tolist()) == (list(range(60)), list(range(60, 70)))
    assert mnist.targets.dtype == np.int64
    assert mnist.labels == tuple("0123456789")


def test_fashion_mnist_has_the_names_of_clothes(tmp_path: Path) -> None:
    fashion = _load(write_mnist(tmp_path, train=60, test=10, name="FashionMNIST"), "fashion-mnist")
    assert len(fashion.train) == 60
    assert fashion.labels[:2] == ("T-shirt/top", "Trouser")
    digits = _load(write_mnist(tmp_path, train=60, test=10))  # the same images by other names
    assert np.array_equal(np.asarray(digits.pictures), np.asarray(fashion.pictures))
    assert digits.fingerprint != fashion.fingerprint


def test_cifar10_is_in_colour_and_has_its_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_cifar(tmp_path, monkeypatch)
    cifar = _load(tmp_path, "cifar10")
    assert np.asarray(cifar.pictures).shape == (60, 32, 32, 3)
    assert (len(cifar.train), len(cifar.test)) == (50, 10)
    assert cifar.labels == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    red_first = np.asarray(cifar.pictures)[0, :, :, 0]
    assert (red_first == 1).all()


def test_classes_are_chosen_and_numbered_anew_in_their_order(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=60, test=30)
    whole, part = _load(folder), _load(folder, classes=(7, 2, 5))
    assert part.labels == ("7", "2", "5")
    for new, old in enumerate((7, 2, 5)):
        for rows, all_rows in ((part.train, whole.train), (part.test, whole.test)):
            images = np.asarray(part.pictures)[rows[part.targets[rows] == new]]
            wanted = np.asarray(whole.pictures)[all_rows[whole.targets[all_rows] == old]]
            assert np.array_equal(images, wanted)
    assert part.fingerprint != whole.fingerprint


def test_so_many_of_each_class_are_chosen_by_the_seed_for_training_alone(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=400, test=30)
    first, same, other = (_load(folder, per_class=5, seed=seed) for seed in (1, 1, 2))
    assert np.bincount(first.targets[first.train]).tolist() == [5] * 10
    assert len(first.test) == 30
    assert first.fingerprint == same.fingerprint != other.fingerprint


def test_parts_that_cannot_be_are_refused(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path, train=60, test=10)
    with pytest.raises(TrainingError, match="there are only"):
        _load(folder, per_class=60)
    with pytest.raises(TrainingError, match="named twice"):
        _load(folder, classes=(1, 1))
    with pytest.raises(TrainingError, match="the classes are 0 to 9"):
        _load(folder, classes=(1, 10))


def test_without_mnist_the_message_says_what_to_do(tmp_path: Path) -> None:
    nowhere = tmp_path / "a-file"
    nowhere.touch()  # nothing can be downloaded into it either
    with pytest.raises(TrainingError) as caught:
        _load(nowhere)
    message = str(caught.value)
    assert "\n" not in message
    for advice in ("train-images-idx3-ubyte", str(nowhere / "MNIST" / "raw"), "above MNIST/", "--data", "strokes"):
        assert advice in message


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_mnist_is_refused(tmp_path: Path, name: str) -> None:
    path = write_mnist(tmp_path, train=30, test=10) / "MNIST" / "raw" / name
    for content in (path.read_bytes()[:-5], b"", b"no such format, whatever it may be"):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="MNIST is not available"):
            _load(tmp_path)


def test_files_of_differing_length_are_refused(tmp_path: Path) -> None:
    raw = write_mnist(tmp_path / "one", train=30, test=10) / "MNIST" / "raw"
    other = write_mnist(tmp_path / "other", train=20, test=10) / "MNIST" / "raw"
    (other / "train-labels-idx1-ubyte").replace(raw / "train-labels-idx1-ubyte")
    with pytest.raises(TrainingError, match="do not fit together"):
        _load(tmp_path / "one")


def test_the_real_mnist_is_found_where_it_is_at_hand(shared_data: Path) -> None:
    mnist = _load(shared_data / "mnist")
    assert (len(mnist.train), len(mnist.test)) == (60_000, 10_000)


def _write_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten images in each of its six files, as torchvision lays them out, and the sums that it then wants."""
    below = folder / CIFAR10.base_folder
    below.mkdir()

    def write(name: str, content: dict[str, object]) -> list[str]:
        data = pickle.dumps(content)
        (below / name).write_bytes(data)
        return [name, hashlib.md5(data, usedforsecurity=False).hexdigest()]

    planes = np.repeat(np.array([1, 2, 3], np.uint8), 1024)[None].repeat(10, axis=0)
    batch: dict[str, object] = {"data": planes, "labels": list(range(10))}
    monkeypatch.setattr(CIFAR10, "train_list", [write(f"data_batch_{i}", batch) for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", batch)])
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    name, md5 = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
