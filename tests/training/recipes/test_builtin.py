"""The built-in recipes: by name, for each data set, and refused in one line."""

import pytest

from training.errors import TrainingError
from training.recipes.builtin import DEFAULTS, base_of, builtin
from training.recipes.recipe import Recipe

OWN = "my_net.py:Net"


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


@pytest.mark.parametrize("architecture", ["vit_b_32", "swin_t", "convnext_tiny", "maxvit_t"])
def test_transformers_and_convnext_are_trained_by_adamw(architecture: str) -> None:
    scratch, finetune = (builtin("photos", f"{family}:{architecture}") for family in ("scratch", "finetune"))
    assert {scratch.optimizer, finetune.optimizer} == {"adamw"}
    assert scratch.lr / scratch.batch_size == pytest.approx(5e-4 / 512)
    assert (scratch.augment.mixup, scratch.augment.cutmix) == (0.8, 1.0)
    assert finetune.layer_decay < 1
    assert builtin("photos", f"transfer:{architecture}").optimizer == "sgd"  # a linear layer


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "alexnet", "mnist_cnn"])
def test_other_networks_are_trained_by_sgd(architecture: str) -> None:
    assert {builtin("photos", f"{family}:{architecture}").optimizer for family in ("scratch", "finetune")} == {"sgd"}


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


@pytest.mark.parametrize("data", ["strokes", "mnist", "fashion-mnist", "cifar10"])
def test_own_code_is_trained_from_scratch_as_the_data_set_s_own_recipe_does_it(data: str) -> None:
    own, default = builtin(data, network=OWN), builtin(data)
    assert (own.name, own.architecture) == ("scratch", OWN)
    assert own.replace(name=default.name, architecture=default.architecture) == default


def test_own_code_for_photos_is_trained_as_any_network_from_scratch() -> None:
    own, resnet = builtin("photos", network=OWN), builtin("photos", "scratch:resnet18")
    assert own.replace(name=resnet.name, architecture=resnet.architecture) == resnet


@pytest.mark.parametrize("family", ["transfer", "finetune"])
def test_digits_are_not_mirrored_when_own_code_is_fine_tuned(family: str) -> None:
    own, named = builtin("mnist", family, network=OWN), builtin("mnist", f"{family}:resnet18")
    assert own.preprocess == builtin("mnist").preprocess
    assert not own.augment.flip
    assert (own.unfreeze, own.trainable, own.start) == (named.unfreeze, "head", "backbone")
    assert builtin("photos", family, network=OWN).augment == named.augment


@pytest.mark.parametrize("name", ["mnist_cnn", "scratch:resnet18", "nothing"])
def test_a_recipe_that_names_a_network_does_not_go_with_own_code(name: str) -> None:
    with pytest.raises(TrainingError, match="with --network there are scratch, transfer, finetune, which"):
        builtin("mnist", name, network=OWN)


@pytest.mark.parametrize("name", ["scratch", "finetune", f"transfer:{OWN}", f"scratch:{OWN}"])
def test_a_family_alone_needs_a_network(name: str) -> None:
    with pytest.raises(TrainingError, match=r"which network\? Name one, as in \w+:resnet18, or your own"):
        builtin("mnist", name)


@pytest.mark.parametrize(("data", "name", "network"), [("mnist", "finetune", OWN), ("mnist", "scratch:resnet18", None)])
def test_the_built_in_recipe_of_a_changed_one_is_found_again(data: str, name: str, network: str | None) -> None:
    recipe = builtin(data, name, network=network)
    assert base_of(recipe.replace(epochs=99)) == recipe


def test_a_recipe_without_values_for_a_network_is_what_it_was() -> None:
    assert "network" not in builtin("mnist").model_dump(mode="json")
    assert builtin("mnist").replace(network={"width": 3}).model_dump(mode="json")["network"] == {"width": 3}
