"""Holds the built-in recipes by their names, and says which one each data set is trained with by default."""

import difflib
from collections.abc import Mapping
from typing import Any

from classifier.preprocess import Preprocess
from training.errors import TrainingError
from training.networks.code_files import is_own_code
from training.recipes.dataset_table import DIGIT, PHOTO, TORCHVISION_DATASETS
from training.recipes.recipe import Recipe

# The recipe of each data set where none is named.
DEFAULTS = {
    "strokes": "mnist_cnn",
    **{name: row.recipe for name, row in TORCHVISION_DATASETS.items()},
    "photos": "transfer:resnet18",
    "table": "transfer:resnet18",
    "shards": "transfer:resnet18",
}
OF_PHOTOS = ("photos", "table", "shards")  # data that a person names by a path

_PHOTO_AUGMENT = {"crop": (0.35, 1.0), "flip": True}

_NAMED: dict[str, dict[str, Any]] = {
    "mnist_cnn": {
        "architecture": "mnist_cnn",
        "preprocess": DIGIT,
        "epochs": 3,
        "batch_size": 128,
        "lr": 0.05,
        "lr_continued": 0.003,
        "augment": {"shift": 1},  # real digits are centred to whole pixels at best
    },
    # As far as the small network goes: chosen by held-out accuracy alone.
    "mnist_cnn_record": {
        "architecture": "mnist_cnn",
        "preprocess": DIGIT,
        "epochs": 40,
        "batch_size": 128,
        "lr": 0.05,
        "label_smoothing": 0.05,
        "ema": 0.99,
        "augment": {"degrees": 10.0, "scale": 0.1, "shear": 5.0, "translate": 1.5, "elastic": 2.0},
    },
    # The features stay as they are; a new head learns to read them.
    "alexnet_transfer": {
        "architecture": "alexnet_transfer",
        "start": "backbone",
        "trainable": "head",
        "held_out": 0.2,
        "epochs": 20,
        "batch_size": 32,
        "lr": 0.002,
    },
    "alexnet_finetune": {
        "architecture": "alexnet_finetune",
        "start": "backbone",
        "trainable": "classifier",
        "held_out": 0.2,
        "epochs": 10,
        "batch_size": 32,
        "lr": 0.005,
        "clip": 5.0,
        "augment": _PHOTO_AUGMENT,
    },
}
# Recipes for any architecture; their names are `<family>:<architecture>`. That of own code is the family's alone.
_FAMILIES: dict[str, dict[str, Any]] = {
    "scratch": {"epochs": 30, "batch_size": 64, "lr": 0.05, "clip": 5.0, "augment": _PHOTO_AUGMENT, "held_out": 0.1},
    "transfer": {
        "start": "backbone",
        "trainable": "head",
        "held_out": 0.2,
        "epochs": 30,
        "batch_size": 32,
        "lr": 0.01,
    },
    # The head first, alone: its fresh weights would shake up good ones.
    "finetune": {
        "start": "backbone",
        "trainable": "head",
        "held_out": 0.2,
        "epochs": 3,
        "batch_size": 32,
        "lr": 0.01,
        "clip": 5.0,
        "unfreeze": {"epochs": 7, "lr": 0.002},
        "augment": _PHOTO_AUGMENT,
    },
}

# The same for networks with layer norms: transformers, ConvNeXt and their kin, which learn little by SGD.
_LAYER_NORM_FAMILIES: dict[str, dict[str, Any]] = {
    # As DeiT (Touvron et al. 2021, table 9), Swin (Liu et al. 2021, A2.1) and ConvNeXt (Liu et al. 2022, table 5) are
    # trained. All three take a rate of 5e-4 for a batch of 512.
    "scratch": {
        "optimizer": "adamw",
        "lr": 5e-4 * 64 / 512,
        "weight_decay": 0.05,
        "schedule": "cosine",
        "warm_up": 0.07,
        "label_smoothing": 0.1,
        "augment": {**_PHOTO_AUGMENT, "rand": (2, 9), "erase": 0.25, "mixup": 0.8, "cutmix": 1.0},
    },
    # As ConvNeXt (table 6) and Swin (A2.1) are fine-tuned. ConvNeXt-T has 0.7 for 12 groups of its 23 layers.
    "finetune": {
        "optimizer": "adamw",
        "lr": 0.001,
        "weight_decay": 1e-8,
        "layer_decay": 0.85,
        "label_smoothing": 0.1,
        "unfreeze": {"epochs": 7, "lr": 5e-5},
    },
}


def names() -> list[str]:
    """Returns the names as a person types them; those of the families hold a placeholder."""
    return [*_NAMED, *(f"{family}:<architecture>" for family in _FAMILIES)]


def builtin(data: str, name: str | None = None, *, network: str | None = None) -> Recipe:
    """Returns the recipe of that name for that data set.

    Args:
        data: the kind of a source, such as "mnist".
        name: None: the data set's default recipe; for own code, "scratch".
        network: the architecture of own code, such as `my_net.py:Net`. The name is then that of a family alone.

    Raises: TrainingError if no recipe has that name; TorchvisionError.
    """
    if network is not None:
        return _for_own_code(data, "scratch" if name is None else name, network)
    name = DEFAULTS[data] if name is None else name
    values = {"name": name, "source": {"kind": data}} | {**_values(name), **_adapted(data, name)}
    if "preprocess" not in values:
        values["preprocess"] = usual_preprocess(values["architecture"])
    recipe = Recipe.checked(values)
    others = _LAYER_NORM_FAMILIES.get(name.partition(":")[0])
    return recipe.replace(**others) if others is not None and recipe.spec.has_layer_norms else recipe


def base_of(recipe: Recipe) -> Recipe:
    """Returns the built-in recipe that this one was made from. Raises: TrainingError if there is no such any more."""
    network = recipe.architecture if is_own_code(recipe.architecture) else None
    return builtin(recipe.source.kind, recipe.name, network=network)


def _for_own_code(data: str, family: str, network: str) -> Recipe:
    """Returns a family's recipe. Images are prepared and changed at random as the data set's default recipe does it.

    From scratch, all else is as in that recipe, too. Photos are the exception: there the default is no scratch.
    """
    if family not in _FAMILIES:
        raise TrainingError(
            f"--recipe {family}: with --network there are {', '.join(_FAMILIES)}, which name no other network, "
            "or a .toml file"
        )
    default = {} if data in OF_PHOTOS else default_values(data)
    values = _FAMILIES[family] if family != "scratch" or not default else default
    if "augment" in values and default:
        values = values | {"augment": default["augment"]}  # a digit in a mirror is none
    values = {"preprocess": default.get("preprocess", PHOTO)} | values
    return Recipe.checked(values | {"name": family, "source": {"kind": data}, "architecture": network})


def default_values(data: str) -> dict[str, Any]:
    """Returns the values that the data set's default recipe sets itself. It imports no torch."""
    name = DEFAULTS[data]
    return {**_values(name), **_adapted(data, name)}


def _values(name: str) -> dict[str, Any]:
    if name in _NAMED:
        return _NAMED[name]
    family, separator, architecture = name.partition(":")
    if name in _FAMILIES or ":" in architecture:
        raise TrainingError(
            f"--recipe {name}: which network? Name one, as in {family}:resnet18, "
            f"or your own, as in --network my_net.py:Net --recipe {family}"
        )
    if separator and family in _FAMILIES:
        return {"architecture": architecture} | _FAMILIES[family]
    near = difflib.get_close_matches(name, [*_NAMED, *_FAMILIES], n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names())}, or a .toml file"
    raise TrainingError(f"unknown recipe {name!r}: {hint}")


def _adapted(data: str, name: str) -> Mapping[str, Any]:
    """Returns what the data set wants otherwise than the recipe of that name has it."""
    row = TORCHVISION_DATASETS.get(data)
    return row.adapted if row is not None and row.recipe == name else {}


def usual_preprocess(architecture: str) -> Preprocess:
    """Returns the preprocess that this architecture usually has.

    Raises: TrainingError if the architecture is not known; TorchvisionError.
    """
    if architecture == "mnist_cnn":
        return DIGIT
    # Here, not above: it imports torch, and a list of names does without it.
    from training.networks.pretrained import preprocess_of

    usual = preprocess_of(architecture)
    if usual is None:
        raise AssertionError("only mnist_cnn has no weights of torchvision's")
    return usual
