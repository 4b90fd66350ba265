"""The data sets that torchvision knows and we train on: one row each, and a row is all that a new one needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from classifier.preprocess import Preprocess

# A digit with nothing behind it may be black or white: on grey both are seen.
DIGIT = Preprocess(
    mode="L", resize=(28, 28), crop=None, mean=(0.1307,), std=(0.3081,), background=128, ink_on_paper=True
)
# What networks for ImageNet usually want.
PHOTO = Preprocess(mode="RGB", resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_CLOTHES = DIGIT.model_copy(update={"mean": (0.2860,), "std": (0.3530,), "background": 0, "ink_on_paper": False})
_TINY_PHOTO = Preprocess(
    mode="RGB", resize=(32, 32), crop=None, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
)
_FOUR_FILES = (
    "its four files (train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, "
    "t10k-labels-idx1-ubyte; unpacked)"
)


@dataclass(frozen=True, slots=True)
class TorchvisionDataset:
    """Describes one data set.

    Args:
        name: the command that trains on it, and the kind of its source in a recipe.
        torchvision: the class in `torchvision.datasets`, which takes (folder, train=..., download=...).
        shape: of an image in the class's `data`: (height, width) if grey, (height, width, 3) if in colour.
        what: a few words for --help.
        example: what is typed behind `python -m training`.
        recipe: the built-in recipe that it is trained with where none is named.
        adapted: the values of that recipe that this data set wants otherwise.
        files: the names of its files, for a person who must put them there.
        below: the folder in --data where torchvision looks for these files.
        labels: by class index; None: those of the class's `classes`.
    """

    name: str
    torchvision: str
    shape: tuple[int, ...]
    what: str
    example: str
    recipe: str
    files: str
    below: str
    adapted: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None


_ROWS = (
    TorchvisionDataset(
        name="mnist",
        torchvision="MNIST",
        shape=(28, 28),
        what="60,000 real digits",
        example="mnist --data ../shared/data/mnist",
        recipe="mnist_cnn",
        files=_FOUR_FILES,
        below="MNIST/raw",
        labels=tuple("0123456789"),  # torchvision's are "0 - zero"
    ),
    TorchvisionDataset(
        name="fashion-mnist",
        torchvision="FashionMNIST",
        shape=(28, 28),
        what="60,000 pieces of clothing",
        example="fashion-mnist",
        recipe="mnist_cnn",
        adapted={"preprocess": _CLOTHES, "epochs": 12, "augment": {"shift": 1, "flip": True}},
        files=_FOUR_FILES,
        below="FashionMNIST/raw",
    ),
    TorchvisionDataset(
        name="cifar10",
        torchvision="CIFAR10",
        shape=(32, 32, 3),
        what="50,000 tiny photos of 10 things",
        example="cifar10 --recipe finetune:resnet18",
        recipe="scratch:resnet18",
        adapted={
            "preprocess": _TINY_PHOTO,
            "epochs": 15,
            "batch_size": 128,
            "lr": 0.1,
            "augment": {"shift": 4, "flip": True},
            "held_out": 0.05,
        },
        files="data_batch_1 to 5, test_batch and batches.meta of its Python version",
        below="cifar-10-batches-py",
    ),
)
TORCHVISION_DATASETS: Mapping[str, TorchvisionDataset] = MappingProxyType({row.name: row for row in _ROWS})
