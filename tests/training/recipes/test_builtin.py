"""The built-in recipes: by name, for each data set, and refused in one line."""

import pytest

from training.errors import TrainingError
from training.recipes.builtin import DEFAULTS, builtin
from training.recipes.recipe import Recipe


def test_each_data_set_has_a_recipe_of_its_own() -> None:
    for data, name in DEFAULTS.items():
        recipe = builtin(data)
        assert (recipe.source.kind, recipe.name) == (data, name)
    assert builtin("photos").start == "backbone"
    assert builtin("photos").trainable == "head"


@pytest.mark.parametrize(
    ("name", "architecture", "trainable"),
    [
        ("mnist_cnn", "mnist_cnn", "all"),
        ("alexnet_transfer", "alexnet_transfer", "head"),
        ("alexnet_finetune", "alexnet_finetune", "classifier"),
        ("transfer:vit_b_16", "vit_b_16", "head"),
        ("finetune:resnet50", "resnet50", "head"),
        ("scratch:squeezenet1_1", "squeezenet1_1", "all"),
    ],
)
def test_a_recipe_comes_by_its_name_for_any_data(name: str, architecture: str, trainable: str) -> None:
    for data in ("photos", "cifar10"):
        recipe = builtin(data, name)
        assert (recipe.name, recipe.architecture, recipe.trainable) == (name, architecture, trainable)


def test_fine_tuning_trains_the_head_first_and_then_everything_at_a_rate_of_its_own() -> None:
    head, everything = builtin("photos", "finetune:resnet18").stages
    assert (head.trainable, everything.trainable) == ("head", "all")
    assert everything.first == head.last + 1
    assert everything.lr < head.lr


def test_an_unknown_recipe_is_refused_with_its_nearest_names() -> None:
    with pytest.raises(TrainingError, match="did you mean alexnet_transfer"):
        builtin("photos", "alexnet_transfr")
    with pytest.raises(TrainingError, match=r"transfer:<architecture>.*\.toml"):
        builtin("photos", "quux")


def test_values_that_do_not_go_together_are_said_without_all_the_others() -> None:
    with pytest.raises(TrainingError) as caught:
        builtin("strokes").replace(held_out=50_000)
    assert len(str(caught.value)) < 150


def test_a_recipe_survives_the_way_through_a_manifest() -> None:
    for data in DEFAULTS:
        recipe = builtin(data)
        assert Recipe.checked(recipe.model_dump(mode="json")) == recipe
