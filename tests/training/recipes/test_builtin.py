"""Recipes: built in by name, from a file, changed by single settings, and refused in one line."""

from pathlib import Path

import pytest

from training.errors import TrainingError
from training.recipes.builtin import DEFAULTS, builtin, changed, from_file, settings_from, with_settings
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


SETTINGS = [
    "label_smoothing=0.1",
    "augment.flip=true",
    "augment.crop=[0.5, 1.0]",
    "unfreeze.epochs=3",
    "unfreeze.lr=1e-4",
    "clip=none",
    "trainable=layer4,fc",
    "preprocess.resizing=box",
    "source.test_share=0.25",
    "held_out=40",
]


def test_a_setting_changes_one_value_however_deep_it_lies() -> None:
    recipe = with_settings(builtin("photos", "transfer:resnet18"), SETTINGS)
    assert recipe.label_smoothing == 0.1
    assert recipe.augment.flip
    assert recipe.augment.crop == (0.5, 1.0)
    assert recipe.augment.shift == 0
    assert recipe.unfreeze is not None
    assert (recipe.unfreeze.epochs, recipe.unfreeze.lr) == (3, 1e-4)
    assert recipe.clip is None
    assert recipe.trainable == "layer4,fc"
    assert recipe.preprocess.resizing == "box"
    assert recipe.source.kind == "photos"
    assert recipe.source.test_share == 0.25
    assert recipe.held_out == 40


@pytest.mark.parametrize("name", ["transfer:resnet18", "finetune:resnet18", "alexnet_finetune"])
def test_the_settings_between_two_recipes_make_the_one_of_the_other(name: str) -> None:
    base = builtin("photos", name)
    recipe = with_settings(base, SETTINGS)
    assert with_settings(base, settings_from(base, recipe)) == recipe
    assert settings_from(base, base) == []
    without = changed(recipe, {"unfreeze": None, "augment": {"crop": None}})
    assert with_settings(base, settings_from(base, without)) == without


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs", "a key and a value are needed"),
        ("epochs=0", "epochs"),
        ("epochs=many", "epochs"),
        ("surprise=1", "surprise"),
        ("augment.surprise=1", r"augment\.surprise"),
        ("augment=3", "augment"),
        ("unfreeze.epochs=3", r"unfreeze\.lr"),
        ("augment.crop=[0.9, 0.1]", "least, most"),
        ("held_out=1.5", "held_out"),
        ("lr=nan", "lr"),
        ("name=mine", "--name names the model"),
        ("source.kind=mnist", "the command names the data"),
        ("source=3", "source"),
        ("batch_size=99999999999999999999", "batch_size"),
        ("=3", "no such value"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_its_name(setting: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said) as caught:
        with_settings(builtin("photos"), [setting])
    assert "\n" not in str(caught.value)


def test_a_recipe_from_a_file_changes_the_one_it_is_based_on(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "finetune:resnet18"\nepochs = 2\n[augment]\nflip = false\n[unfreeze]\nepochs = 9\n')
    recipe, base = from_file("photos", path), builtin("photos", "finetune:resnet18")
    assert recipe == changed(base, {"epochs": 2, "augment": {"flip": False}, "unfreeze": {"epochs": 9}})
    assert recipe.augment.crop == base.augment.crop


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"epochs = ", "mine.toml"),
        (b"\xff\xfe", "mine.toml"),
        (b"base = 3", "base is the name"),
        (b'base = "quux"', "unknown recipe"),
        (b"surprise = 1", "surprise: a recipe has no such value"),
        (b'name = "mine"', "--name names the model"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=said) as caught:
        from_file("photos", path)
    assert "\n" not in str(caught.value)


def test_a_file_takes_away_what_its_base_has_by_the_word_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "finetune:resnet18"\nclip = "none"\nunfreeze = "none"\n[augment]\ncrop = "none"\n')
    recipe = from_file("photos", path)
    assert (recipe.clip, recipe.unfreeze, recipe.augment.crop) == (None, None, None)


def test_values_that_do_not_go_together_are_said_without_all_the_others() -> None:
    with pytest.raises(TrainingError) as caught:
        builtin("strokes").but(held_out=50_000)
    assert len(str(caught.value)) < 150


def test_a_recipe_survives_the_way_through_a_manifest() -> None:
    for data in DEFAULTS:
        recipe = builtin(data)
        assert Recipe.checked(recipe.model_dump(mode="json")) == recipe
