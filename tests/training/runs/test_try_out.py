"""Before a run begins it is known whether the network can take its images, and its batches."""

from functools import cache

import pytest
import torch
from torch import nn

from classifier.architectures import build
from classifier.preprocess import Preprocess
from training.data.batches import InMemorySplit
from training.errors import TrainingError
from training.recipes.recipe import PhotosSource, Recipe
from training.runs.try_out import try_out
from training.runs.virtual_ranks import VirtualRanks


def _recipe(size: int, *, architecture: str = "resnet18", batch_size: int = 1, trainable: str = "all") -> Recipe:
    return Recipe(
        name=f"scratch:{architecture}",
        source=PhotosSource(),
        architecture=architecture,
        preprocess=Preprocess(mode="RGB", resize=(size, size), crop=None, mean=(0.5,) * 3, std=(0.5,) * 3),
        epochs=1,
        batch_size=batch_size,
        lr=0.1,
        trainable=trainable,
    )


def _try(recipe: Recipe, samples: int = 5, network: nn.Module | None = None) -> None:
    images = torch.zeros(samples, *recipe.preprocess.shape, dtype=torch.uint8)
    split = InMemorySplit(images, torch.arange(samples) % 2)
    try_out(_network(recipe.architecture) if network is None else network, split, recipe, VirtualRanks())


@cache
def _network(architecture: str) -> nn.Module:
    """One for all tests: it is left as it was, as one of them shows."""
    return build(architecture, 2)


def _refusal(recipe: Recipe, samples: int = 5) -> str:
    with pytest.raises(TrainingError) as caught:
        _try(recipe, samples)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "norm"),
    [("resnet18", "layer4.0.bn1"), ("densenet121", "features.denseblock4.denselayer1.norm1"), ("vgg11_bn", None)],
)
def test_a_batch_of_one_image_is_refused_only_where_a_norm_would_get_a_single_value(
    architecture: str, norm: str | None
) -> None:
    if norm is None:
        _try(_recipe(32, architecture=architecture))
    else:
        message = _refusal(_recipe(32, architecture=architecture))
        assert f"{architecture} cannot train on one image at a time: its batch norm {norm}" in message
        assert "Use --batch-size 2 or more, or larger images" in message


@pytest.mark.slow
def test_what_is_refused_is_what_torch_would_refuse() -> None:
    network, images = build("resnet18", 2).train(), torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(images)
    assert "layer4.0.bn1" in _refusal(_recipe(32))
    _try(_recipe(33))  # there the last feature maps have 2x2 values
    assert network(torch.zeros(1, 3, 33, 33)).shape == (1, 2)


def test_two_images_in_each_batch_are_enough_whatever_is_left_over() -> None:
    _try(_recipe(32, batch_size=2), samples=5)  # the last sample alone joins the batch before it
    _try(_recipe(32, batch_size=4), samples=5)
    _try(_recipe(32, batch_size=1), samples=2)  # so do both samples
    assert "cannot train on one image" in _refusal(_recipe(32, batch_size=1), samples=3)


def test_one_training_image_is_refused_with_what_helps() -> None:
    assert "One training image is left: add images" in _refusal(_recipe(32, batch_size=64), samples=1)


def test_norms_that_do_not_train_take_one_image() -> None:
    _try(_recipe(32, trainable="fc"))
    assert "layer4.0.bn1" in _refusal(_recipe(32, trainable="layer4,fc"))
    unfrozen = _recipe(32, trainable="fc").replace(unfreeze={"epochs": 1, "lr": 0.1})
    assert "layer4.0.bn1" in _refusal(unfrozen)


def test_the_network_is_left_as_it_was() -> None:
    network = build("resnet18", 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    _try(_recipe(40, batch_size=2), network=network)
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


@pytest.mark.slow
def test_images_of_a_wrong_size_are_refused() -> None:
    assert "alexnet cannot take images of 8x8x3" in _refusal(_recipe(8, architecture="alexnet"))
