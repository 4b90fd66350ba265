"""Recipes from a file, or changed by single settings; what makes no sense is refused in one line."""

from pathlib import Path

import pytest

from training.errors import TrainingError
from training.recipes.builtin import builtin
from training.recipes.overrides import changed, from_file, preprocess_with, settings_from, with_settings
from training.recipes.recipe import PhotosSource

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
    assert isinstance(recipe.source, PhotosSource)
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


def test_a_new_size_of_all_images_takes_away_a_larger_crop_that_nobody_named(tmp_path: Path) -> None:
    base = builtin("photos", "scratch:resnet18")
    assert base.preprocess.crop == (224, 224)
    smaller = with_settings(base, ["preprocess.resize=[64,64]"])
    assert smaller.preprocess.shape == (64, 64, 3)
    (tmp_path / "small.toml").write_text('base = "scratch:resnet18"\npreprocess.resize = [64, 64]\n')
    assert from_file("photos", tmp_path / "small.toml").preprocess == smaller.preprocess
    assert with_settings(base, ["preprocess.resize=[240,320]"]).preprocess.crop == (224, 224)
    framed = with_settings(base, ["preprocess.resize=[64,64]", "preprocess.crop=[224,224]"])
    assert framed.preprocess.shape == (224, 224, 3)
    for recipe in (smaller, framed):
        assert with_settings(base, settings_from(base, recipe)) == recipe


def test_colour_takes_away_the_ink_on_paper_that_nobody_named() -> None:
    base = builtin("strokes", None)
    assert base.preprocess.ink_on_paper
    colour = ["preprocess.mode=RGB", "preprocess.mean=[0.5,0.5,0.5]", "preprocess.std=[0.5,0.5,0.5]"]
    recipe = with_settings(base, colour)
    assert (recipe.preprocess.mode, recipe.preprocess.ink_on_paper) == ("RGB", False)
    assert with_settings(base, settings_from(base, recipe)) == recipe
    with pytest.raises(TrainingError, match="ink_on_paper needs the mode L"):
        with_settings(base, [*colour, "preprocess.ink_on_paper=true"])


def test_a_preprocess_alone_is_changed_by_the_same_settings() -> None:
    base = builtin("photos", "scratch:resnet18")
    settings = ["preprocess.resize=[64,64]", "preprocess.mean=[0.5,0.5,0.5]"]
    assert preprocess_with(base.preprocess, settings) == with_settings(base, settings).preprocess
    assert preprocess_with(base.preprocess, []) == base.preprocess


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


def test_a_value_that_is_left_out_where_it_is_as_ever_comes_back_against_another_base() -> None:
    sgd, adamw = builtin("mnist"), builtin("mnist").replace(optimizer="adamw", layer_decay=0.5)
    assert settings_from(adamw, sgd) == ["optimizer=sgd", "layer_decay=1.0"]
    other = adamw.replace(betas=(0.8, 0.99), augment={"mixup": 0.5, "rand": (2, 9)})
    for base, recipe in ((adamw, sgd), (sgd, adamw), (other, adamw), (adamw, other)):
        assert with_settings(base, settings_from(base, recipe)) == recipe


def test_values_for_a_network_come_back_as_what_they_are() -> None:
    base = builtin("mnist", network="my_net.py:Net")
    values = {"width": 32, "rate": 0.5, "norm": "32", "word": "a b", "deep": True, "sizes": [1, "2"]}
    recipe = base.replace(network=values)
    assert settings_from(base, recipe)[2] == 'network.norm="32"'
    assert with_settings(base, settings_from(base, recipe)) == recipe
    assert with_settings(base, ["network.width=32", "network.norm=batch"]).network == {"width": 32, "norm": "batch"}


@pytest.mark.parametrize(
    ("network", "architecture"), [(None, "my_net.py:Net"), ("my_net.py:Net", "resnet18"), ("my_net.py:Net", "b.py:N")]
)
def test_own_code_is_not_named_by_a_setting(network: str | None, architecture: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--network alone names a network of your own"):
        with_settings(builtin("mnist", network=network), [f"architecture={architecture}"])


def test_a_file_may_be_a_recipe_for_own_code(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "finetune"\nlr = 0.5\n[network]\nwidth = 8\n')
    recipe = from_file("photos", path, network="my_net.py:Net")
    assert (recipe.name, recipe.architecture, recipe.lr) == ("finetune", "my_net.py:Net", 0.5)
    assert recipe.network == {"width": 8}
    path.write_text('base = "finetune:resnet18"\n')
    with pytest.raises(TrainingError, match="finetune:resnet18: with --network there are"):
        from_file("photos", path, network="my_net.py:Net")
